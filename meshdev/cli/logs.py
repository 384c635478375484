"""``meshdev logs``: what session, helper, manager and sidecars have written, and write."""

import contextlib
import json
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Annotated, Final

import typer

from meshdev.cli import api, log_request, names, options, render
from meshdev.cli.log_request import COMPONENTS
from meshdev.cli.options import Format
from meshdev.cli.signals import ENDING
from meshdev.errors import MeshdevError, UsageError
from meshdev.intercept.target import parse_target
from meshdev.state import Paths
from meshdev.text import visible
from meshdev.wire.log_lines import LogLine
from meshdev.wire.message import dump

EXAMPLE: Final = """\b
Examples:
  meshdev logs
  meshdev logs deployment/b --follow
  meshdev logs --component manager --component session --since 10m
  meshdev logs --component manager --previous
  meshdev logs -o json | jq -r .line
"""


@options.bundled
def command(
    *,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[TARGET]",
            help="Workload whose sidecars to show, such as deployment/b.",
            autocompletion=names.targets,
        ),
    ] = None,
    components: Annotated[
        list[str] | None,
        typer.Option(
            "--component",
            metavar="|".join(COMPONENTS),
            help="What to show. Repeatable. Default: session and helper, and the manager while connected; with TARGET, "
            "its sidecars.",
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes from now on.")] = False,
    tail: Annotated[
        int,
        typer.Option("--tail", metavar="LINES", min=-1, help="Lines of each log to show, from its end; -1 for all."),
    ] = -1,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="Show only lines newer than 5s, 2m or 3h.")
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Begin each line with its time, in UTC.")] = False,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Show the instance before the last restart of each container.")
    ] = False,
    namespace: options.TargetNamespace = None,
    manager_namespace: options.ManagerNamespace = None,
    cluster: options.ClusterFlags,
    output: options.Output = Format.TEXT,
) -> None:
    """Show logs of meshdev.

    Those of this machine are there without a connection, too, and need no root. Logs of containers are read through
    the Kubernetes API with your own rights. Each line begins with what wrote it.
    """
    import asyncio  # noqa: PLC0415 -- and the next: 0.5 s that the other commands need not pay

    from meshdev.cli import log_sources  # noqa: PLC0415 -- as above
    from meshdev.kube.logs import WantedLines  # noqa: PLC0415 -- as above

    if previous and follow:
        raise UsageError("--previous and --follow exclude each other", hint="choose one")
    if target is not None:
        parse_target(target)
    paths = Paths.locate()
    found = api.find(paths)
    status = found.status if found else None
    request = log_sources.LogRequest(
        paths,
        log_request.components(
            log_request.parsed(components or ()), target, connected=status is not None, previous=previous
        ),
        WantedLines(None if tail < 0 else tail, options.period("--since", since or "0") or None, previous),
        cluster.options(namespace),
        status,
        chosen=bool(cluster.kubeconfig or cluster.context),
        target=target,
        manager_namespace=options.not_empty("--manager-namespace", manager_namespace),
        tolerant=not components and target is None,
    )
    shown = log_sources.show(request, _printer(output, timestamps=timestamps), Notes(), follow=follow)
    asyncio.run(_until_signal(shown) if follow else shown)


async def _until_signal(shown: Coroutine[None, None, None]) -> None:
    """As `inspect --follow` ends: whoever follows ends it by a signal, and that is no error."""
    import asyncio  # noqa: PLC0415 -- see above

    task = asyncio.ensure_future(shown)
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task


class Notes:
    """What could not be read, on stderr; the same again and again only once."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, error: MeshdevError) -> None:
        """One of it."""
        if error.message != self._last:
            self._last = error.message
            print(f"note: {render.indented(error.message)}", file=sys.stderr, flush=True)


def _printer(output: Format, *, timestamps: bool) -> Callable[[LogLine], None]:
    """How a line is shown."""
    if output is Format.JSON:
        return lambda line: print(json.dumps(dump(line)), flush=True)
    if timestamps:
        return lambda line: print(f"{visible(line.source)} │ {line.time or '-'} {visible(line.line)}", flush=True)
    return lambda line: print(f"{visible(line.source)} │ {visible(line.line)}", flush=True)
