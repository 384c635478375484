"""What ``meshdev up`` reads and decides: the project file, its schema, the plan, and the supervision of its processes.

Nothing here starts a process, opens a socket or reads a clock: commands in ``meshdev/cli/`` do that, and hand in what
happened. The text of the file is an argument, too; only ``reading.py`` knows YAML and only ``schema.py`` opens a file,
the schema beside it.
"""
