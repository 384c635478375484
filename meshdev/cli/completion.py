"""``meshdev completion``: the script that makes a shell complete commands, options and names of the cluster."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer

from meshdev.cli import render

EXAMPLE: Final = """\b
Examples:
  source <(meshdev completion bash)
  meshdev completion zsh > "${fpath[1]}/_meshdev"
  meshdev completion fish > ~/.config/fish/completions/meshdev.fish
"""

_SCRIPTS: Final = Path(__file__).with_name("shells")


class Shell(StrEnum):
    """Those for which there is a script."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def command(shell: Annotated[Shell, typer.Argument(help="Shell to print the script for.")]) -> None:
    """Print the script that completes meshdev's command lines in a shell.

    Commands, options, contexts, namespaces, targets and ports, as they are in the cluster. No file is changed.
    """
    render.print_text((_SCRIPTS / f"meshdev.{shell}").read_text(encoding="utf-8").rstrip("\n"))
