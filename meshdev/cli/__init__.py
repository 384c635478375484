"""The commands: parse, call, render; one file a command.

They talk to the session and start the processes; nothing here keeps state, opens a device or speaks to a cluster
(``uninstall`` alone does the last, and imports it only when it runs). stdout is the answer, stderr everything else.
"""
