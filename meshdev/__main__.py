"""``python -m meshdev``."""

from meshdev.cli.main import main

main()
