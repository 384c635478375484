"""``meshdev env``: the environment variables of a workload's container."""

import sys
from typing import Annotated, Final, Literal

import typer

from meshdev.cli import options, render

EXAMPLE: Final = """\b
Examples:
  meshdev env deployment/b
  meshdev env deployment/b -c app --format json
  eval "$(meshdev env svc/b --format shell --strict)"
  docker run --env-file <(meshdev env deployment/b --format docker) IMAGE
"""


@options.bundled
def command(
    target: options.Target,
    *,
    container: options.Container = None,
    namespace: options.Namespace = None,
    cluster: options.ClusterFlags,
    form: Annotated[
        Literal["dotenv", "json", "shell", "docker"],
        typer.Option("--format", "--output", "-o", help="Output format."),
    ] = "dotenv",
    strict: options.Strict = False,
) -> None:
    """Print the environment variables of a workload's container.

    Values come from ConfigMaps, Secrets and fields of the pod, read with your own rights. What cannot be read is named
    on standard error, and the rest is printed.
    """
    from meshdev.cli import workload_reading as reading  # noqa: PLC0415 -- and the next: this command only
    from meshdev.environment.formats import FORMATS  # noqa: PLC0415 -- as above

    found = reading.read_variables(cluster.options(namespace), target, container)
    if strict:
        why = f"not every variable of {found.where} can be read"
        reading.refuse_missing(why, found.variables.missing, "without --strict the others are printed")
    rendered = FORMATS[form](found.variables.values)
    reading.note_missing(found.variables.missing)
    for reason in rendered.left_out:
        reading.note(f"left out of the {form} format: {reason}")
    _print(rendered.text)


def _print(text: str) -> None:
    """Every byte as it is; on a terminal without what that would act on."""
    if sys.stdout.isatty():
        render.print_text(text.rstrip("\n"))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
    sys.stdout.buffer.flush()
