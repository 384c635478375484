"""``meshdev version``."""

from typing import Final

from meshdev.cli import render
from meshdev.cli.options import Format, Output
from meshdev.config import OLDEST_PROTOCOL, PROTOCOL, VERSION

EXAMPLE: Final = "Example: meshdev version -o json"


def command(output: Output = Format.TEXT) -> None:
    """Print the versions."""
    if output is Format.JSON:
        render.print_json({"version": VERSION, "protocol": {"oldest": OLDEST_PROTOCOL, "newest": PROTOCOL}})
        return
    versions = f"version {PROTOCOL}" if PROTOCOL == OLDEST_PROTOCOL else f"versions {OLDEST_PROTOCOL} to {PROTOCOL}"
    render.print_text(f"meshdev {VERSION}, tunnel protocol {versions}")
