"""What ``meshdev doctor`` examines: this machine, the cluster, and what is between them. Runs in the command.

:mod:`meshdev.doctor.verdicts` decides, :mod:`meshdev.doctor.checks` looks. Nothing here changes anything: API requests
that would are dry runs, nothing asks for root, and no session is made on the manager. Nothing here writes to the
terminal, and no check may keep the others from finishing.
"""
