"""``meshdev schema``: what a project file may contain, for editors and other programs."""

from typing import Final

from meshdev.cli import render

EXAMPLE: Final = "Example: meshdev schema > meshdev.schema.json"


def command() -> None:
    """Print the JSON schema of project files.

    For editors; with the line `# yaml-language-server: $schema=meshdev.schema.json` a file names its schema.
    """
    from meshdev.project import schema  # noqa: PLC0415 -- this command only

    render.print_text(schema.text().rstrip("\n"))
