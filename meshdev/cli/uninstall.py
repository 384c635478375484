"""``meshdev uninstall``."""

from typing import Final

EXAMPLE: Final = "x"


def command() -> None:
    """Remove."""
