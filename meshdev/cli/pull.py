"""``meshdev pull``: files of the ConfigMaps, Secrets and tokens that are mounted into a workload's container."""

from pathlib import Path
from typing import Annotated, Final

import typer

from meshdev.cli import options, render
from meshdev.cli.options import Format
from meshdev.errors import UsageError

EXAMPLE: Final = """\b
Examples:
  meshdev pull deployment/b:/etc/config ./config
  meshdev pull deployment/b:/var/run/secrets/kubernetes.io/serviceaccount ./token
  meshdev pull pod/b-1:/ ./everything -c app --strict
"""


@options.bundled
def command(
    source: Annotated[
        str, typer.Argument(metavar="TARGET:/PATH", help="Workload, and a path in its container, / for all mounts.")
    ],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write to; it is created.")],
    *,
    container: options.Container = None,
    namespace: options.Namespace = None,
    cluster: options.ClusterFlags,
    strict: options.Strict = False,
    output: options.Output = Format.TEXT,
) -> None:
    """Write the files mounted into a workload's container to a folder.

    Files of ConfigMaps, Secrets, the downward API and service account tokens, read with your own rights. Secrets and
    tokens are readable for you only. Prints the path of each file.
    """
    from meshdev.cli import pulled_files  # noqa: PLC0415 -- and the next: this command only
    from meshdev.cli import workload_reading as reading  # noqa: PLC0415 -- as above
    from meshdev.environment.mounts import container_path  # noqa: PLC0415 -- as above
    from meshdev.wire.answers import MissingFiles, PullAnswer, PulledFileAnswer  # noqa: PLC0415 -- as above
    from meshdev.wire.message import dump  # noqa: PLC0415 -- as above

    target, colon, text = source.partition(":")
    if not colon:
        raise UsageError(f"{source!r} has no path", hint="for instance: deployment/b:/etc/config")
    try:
        path = container_path(text)
    except ValueError as error:
        raise UsageError(str(error), hint="for instance: deployment/b:/etc/config") from error
    found = reading.read_files(cluster.options(namespace), target, path, container)
    files, missing = found.pulled.files, found.pulled.missing
    if strict or not files:
        hint = "without --strict the others are written" if files else None
        reading.refuse_missing(f"not every file of {path} in {found.where} can be read", missing, hint)
    reading.note_missing(missing)
    pulled_files.write(directory, files)
    if output is Format.JSON:
        shown = tuple(PulledFileAnswer(str(directory / each.path), f"{each.mode:04o}") for each in files)
        left = tuple(MissingFiles(each.what, each.source, each.why) for each in missing)
        render.print_json(dump(PullAnswer(shown, left)))
    else:
        render.print_text("\n".join(str(directory / each.path) for each in files))
