"""What ``meshdev gather`` puts into one archive for a bug report (docs/design/0035). Runs in the command.

:mod:`meshdev.gather.allowed` and :mod:`meshdev.gather.masked` are pure and decide what may be in it: of objects only
fields that are listed there, and of every text whatever looks like a credential is masked. Nothing reaches the archive
but through both. No part may keep the others from being collected, and nothing here writes to the terminal.
"""
