"""``meshdev doctor``: examine this machine, the cluster and the way between them, and say what to do."""

import os
from typing import Annotated, Final

import typer

from meshdev.cli import launch, names, options, render, status
from meshdev.cli.options import Format, Output
from meshdev.cli.progress import progress_view
from meshdev.config import DEFAULT_IMAGE
from meshdev.intercept.target import parse_target
from meshdev.state import Paths
from meshdev.wire.session_api import Wait

EXAMPLE: Final = """\b
Examples:
  meshdev doctor
  meshdev doctor deployment/b -n team-1
  meshdev doctor -o json
"""


@options.bundled
def command(
    *,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[TARGET]", help="Workload or Service to examine for intercepts, too.", autocompletion=names.targets
        ),
    ] = None,
    namespace: options.Namespace = None,
    connection: options.Connection,
    output: Output = Format.TEXT,
) -> None:
    """Examine this machine and the cluster, and say what to do.

    Changes nothing and never asks for a password. Exits 1 if a check failed.
    """
    import asyncio  # noqa: PLC0415 -- and the next: 0.5 s that the other commands need not pay

    from meshdev.cli import doctor_text  # noqa: PLC0415 -- as above
    from meshdev.doctor.checks.facts import Question  # noqa: PLC0415 -- as above
    from meshdev.doctor.plan import diagnose  # noqa: PLC0415 -- as above
    from meshdev.isolation.probing import probe  # noqa: PLC0415 -- as above

    paths, progress = Paths.locate(), progress_view()
    question = Question(
        options=connection.options(namespace),
        image=connection.image or DEFAULT_IMAGE,
        paths=paths,
        uid=os.getuid(),
        status=lambda: status.current(paths),
        helper=launch.helper_command(),
        manager_namespace=options.not_empty("--manager-namespace", connection.manager_namespace),
        target=parse_target(target) if target is not None else None,
        terminal=launch.has_terminal(),
        isolation=probe(),
    )
    try:
        found = asyncio.run(diagnose(question, lambda names: progress.show(Wait(names))))
    finally:
        progress.close()
    if output is Format.JSON:
        render.print_json([each.as_json() for each in found])
    else:
        doctor_text.show(found)
    if any(each.finding.state == "failed" for each in found):
        raise typer.Exit(1)
