"""``meshdev gather``: one archive for a bug report, without credentials."""

import sys
import time
from typing import Annotated, Final

import typer

from meshdev.cli import api, names, options, render
from meshdev.cli.options import Format
from meshdev.errors import UsageError
from meshdev.intercept.target import parse_target
from meshdev.state import Paths
from meshdev.wire.answers import GatherAnswer, MissingPart
from meshdev.wire.message import dump

EXAMPLE: Final = """\b
Examples:
  meshdev gather
  meshdev gather deployment/b -n team-1 --file report.tar.gz
"""


@options.bundled
def command(
    *,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[TARGET]",
            help="Workload whose pods to include. Default: those of your intercepts.",
            autocompletion=names.targets,
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option("--file", metavar="FILE", help="Archive to write. Default: meshdev-gather-TIME.tar.gz, here."),
    ] = None,
    namespace: options.TargetNamespace = None,
    manager_namespace: options.ManagerNamespace = None,
    cluster: options.ClusterFlags,
    output: options.Output = Format.TEXT,
) -> None:
    """Collect what a bug report needs in one archive.

    Versions, status, doctor's findings, logs, network, and meshdev's objects in the cluster; credentials are left out
    or masked. Needs no root and no connection; README.txt in it names what could not be collected, and why.
    """
    import asyncio  # noqa: PLC0415 -- and the next: 0.5 s that the other commands need not pay
    from pathlib import Path  # noqa: PLC0415 -- as above

    from meshdev.cli import gathering  # noqa: PLC0415 -- as above
    from meshdev.cli.log_sources import LogRequest  # noqa: PLC0415 -- as above
    from meshdev.gather import archive  # noqa: PLC0415 -- as above
    from meshdev.isolation.probing import probe  # noqa: PLC0415 -- as above
    from meshdev.kube.logs import WantedLines  # noqa: PLC0415 -- as above

    if target is not None:
        parse_target(target)
    path = Path(options.not_empty("--file", file) or time.strftime("meshdev-gather-%Y%m%d-%H%M%S.tar.gz"))
    if path.exists():
        raise UsageError(f"{path} exists", hint="name another file with --file")
    paths = Paths.locate()
    found = api.find(paths)
    request = LogRequest(
        paths,
        ("session", "helper", "manager", "sidecar"),
        WantedLines(),
        cluster.options(namespace),
        found.status if found else None,
        chosen=bool(cluster.kubeconfig or cluster.context),
        target=target,
        manager_namespace=options.not_empty("--manager-namespace", manager_namespace),
    )
    isolation = probe()  # in a child process, which has to be made before there are threads
    files, missing = asyncio.run(gathering.gather(request, isolation))
    archive.write(path, files, int(time.time()))
    for reason in dict.fromkeys(reason for _, reason in missing):
        parts = ", ".join(part for part, why in missing if why == reason)
        print(f"note: {parts}: {render.indented(reason)}", file=sys.stderr)
    if output is Format.JSON:
        parts_missing = tuple(MissingPart(part, reason) for part, reason in missing)
        render.print_json(dump(GatherAnswer(str(path.absolute()), parts_missing)))
    else:
        render.print_text(f"Wrote {path}\nLook through it before you publish it: README.txt says what is inside.")
