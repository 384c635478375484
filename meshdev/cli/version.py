"""``meshdev version``."""

from typing import Final

from meshdev.cli import render
from meshdev.cli.options import Format, Output
from meshdev.config import OLDEST_PROTOCOL, PROTOCOL, VERSION
from meshdev.wire.message import dump

EXAMPLE: Final = "Example: meshdev version -o json"


def command(output: Output = Format.TEXT) -> None:
    """Print the version of meshdev and of the tunnel protocol."""
    if output is Format.JSON:
        from meshdev.wire.answers import VersionAnswer  # noqa: PLC0415 -- for scripts only

        render.print_json(dump(VersionAnswer(VERSION, OLDEST_PROTOCOL, PROTOCOL)))
        return
    spoken = [str(version) for version in range(OLDEST_PROTOCOL, PROTOCOL + 1)]
    versions = f"version {spoken[0]}" if len(spoken) == 1 else f"versions {spoken[0]} to {spoken[-1]}"
    render.print_text(f"meshdev {VERSION}, tunnel protocol {versions}")
