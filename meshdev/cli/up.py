"""``meshdev up``: connect, run the processes of a file and intercept for them, until Ctrl-C or ``meshdev down``."""

import dataclasses
import os
from typing import Annotated, Final

import typer

from meshdev.cli import options, render
from meshdev.cli.options import Format
from meshdev.cli.project_files import DEFAULT, FileOption
from meshdev.cli.signals import Ended
from meshdev.errors import Cancelled, MeshdevError, UsageError
from meshdev.wire.session_api import ConnectOptions

EXAMPLE: Final = """\b
Examples:
  meshdev up
  meshdev up -f meshdev.yaml --dry-run
  meshdev up --detach
  meshdev up -f ci.yaml -- pytest tests/e2e
"""


@options.bundled
def command(
    program: Annotated[
        list[str] | None,
        typer.Argument(metavar="[-- CMD ARGS...]", help="Program to run when all is up; then all of it ends."),
    ] = None,
    *,
    file: FileOption = DEFAULT,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return once all is up; `meshdev down` ends it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and change nothing.")] = False,
    connection: options.Connection,
    output: options.Output = Format.TEXT,
) -> None:
    """Connect, and run the processes and intercepts of a project file.

    Stays until Ctrl-C, or `meshdev down`, and then undoes everything; with CMD, until that has ended, and exits with
    its code: 125 if meshdev failed, 126 or 127 if CMD cannot be run. A project that is up already is left as it is.
    """
    from meshdev.cli import bringing_up, project_files  # noqa: PLC0415 -- YAML, jsonschema: this command only

    found = project_files.ProjectFile.of(file)
    try:
        if program and (detach or dry_run):
            raise UsageError(f"{'--detach' if detach else '--dry-run'} and a program exclude each other")
        project = found.load(os.environ)
        project = dataclasses.replace(project, connection=_over(project.connection, connection.wanted()))
        if dry_run:
            bringing_up.show_plan(found, project, output)
            return
        code = bringing_up.bring_up(found, project, detach=detach, program=program or [], output=output)
    except MeshdevError as error:
        if not program or isinstance(error, Cancelled):
            raise
        render.print_error(error, as_json=False)  # stdout belongs to the program
        from meshdev.cli.run import FAILED  # noqa: PLC0415 -- in this case only

        raise Ended(FAILED) from error
    if code:
        raise Ended(code)


def _over(file: ConnectOptions, flags: ConnectOptions) -> ConnectOptions:
    """What is given by flags goes before what is in the file."""
    plain = ConnectOptions()
    given = {each.name: getattr(flags, each.name) for each in dataclasses.fields(flags)}
    return dataclasses.replace(file, **{name: value for name, value in given.items() if value != getattr(plain, name)})
