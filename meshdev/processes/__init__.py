"""Programs that a command runs beside itself: their process groups, what ends them when the command is killed, whether
they are ready, and their output. Nothing here knows a project, the session or the cluster.
"""
