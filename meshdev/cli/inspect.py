"""``meshdev inspect``: which requests came, where they went, and why."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from meshdev.cli import api, names, options, render, request_text
from meshdev.cli.event_stream import events
from meshdev.cli.options import Format
from meshdev.cli.signals import Signals
from meshdev.errors import TunnelError, UsageError
from meshdev.intercept.target import parse_target
from meshdev.state import Paths
from meshdev.wire.access import SERVED_BY, ServedBy
from meshdev.wire.session_api import Note
from meshdev.wire.session_inspect import InspectRequest, RequestFilter, Requests, parse_statuses

EXAMPLE: Final = """\b
Examples:
  meshdev inspect --follow
  meshdev inspect deployment/b --all --follow
  meshdev inspect --all --follow --status 5xx --path /api
  meshdev inspect deployment/b --all --follow -o json | jq .reason
"""

#: What is done with requests that came, and how many more there were.
_Show = Callable[[Requests], None]


@dataclass(kw_only=True, eq=False, repr=False)  # as in meshdev.cli.options
class Filters(options.Bundle):
    """Which requests to show: one of each that is given."""

    methods: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="METHOD", help="Show only requests such as POST. Repeatable."),
    ] = None
    paths: Annotated[
        list[str] | None, typer.Option("--path", metavar="PREFIX", help="Show only paths that begin so. Repeatable.")
    ] = None
    statuses: Annotated[
        list[str] | None,
        typer.Option("--status", metavar="CODE", help="Show only answers such as 404, or 5xx. Repeatable."),
    ] = None
    served_by: Annotated[
        list[str] | None,
        typer.Option("--served-by", metavar="|".join(SERVED_BY), help="Show only answers from there. Repeatable."),
    ] = None
    clients: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="CLIENT", help="Show only a workload, deployment/a, or an address. Repeatable."),
    ] = None

    def wanted(self) -> RequestFilter:
        """Checked. Raises UsageError."""
        try:
            statuses = tuple(map(parse_statuses, self.statuses or ()))
        except ValueError as error:
            raise UsageError(f"--status: {error}") from error
        answering: list[ServedBy] = [each for each in SERVED_BY if each in (self.served_by or ())]
        if len(answering) < len(set(self.served_by or ())):
            raise UsageError("--served-by takes none but " + ", ".join(SERVED_BY))
        return RequestFilter(
            methods=tuple(self.methods or ()),
            paths=tuple(self.paths or ()),
            statuses=statuses,
            served_by=tuple(answering),
            clients=tuple(self.clients or ()),
        )


@options.bundled
def command(
    *,
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[TARGET]",
            help="Workload or Service, such as deployment/b. Default: all intercepts.",
            autocompletion=names.targets,
        ),
    ] = None,
    namespace: options.TargetNamespace = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes from now on.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Include requests that nobody claimed, or that others did.")
    ] = False,
    show_secrets: Annotated[
        bool, typer.Option("--show-secrets", help="Do not mask credentials in requests of your own intercepts.")
    ] = False,
    filters: Filters,
    output: options.Output = Format.TEXT,
) -> None:
    """Show the requests that the pods of your intercepts get.

    Each with its client, its answer, where it went, and why. Requests are recorded only while somebody looks: without
    --follow it shows what others who look have seen a moment ago. Values of credentials are masked.
    """
    if target is not None:
        parse_target(target)
    request = InspectRequest(
        target=target,
        namespace=options.not_empty("--namespace", namespace),
        follow=follow,
        all=everything,
        values=show_secrets,
        filter=filters.wanted(),
    )
    with Signals() as signals, _shown(output, follow=follow) as show:
        _run(request, signals, show)


def _run(request: InspectRequest, signals: Signals, show: _Show) -> None:
    """Until the session ends it, or a signal does. Raises what the session reports."""
    paths = Paths.locate()
    if api.find(paths) is None:
        raise TunnelError("there is no connection, so nothing is intercepted", hint="meshdev connect")
    for event in events(paths, request, signals):
        match event:
            case Requests():
                show(event)
            case Note(text):
                print(f"note: {render.indented(text)}", file=sys.stderr, flush=True)
            case _:
                pass


@contextmanager
def _shown(output: Format, *, follow: bool) -> Iterator[_Show]:
    if output is Format.JSON:
        yield _print_json
    elif follow and sys.stdout.isatty():
        with _table() as show:
            yield show
    else:
        yield _Lines().print


def _print_json(found: Requests) -> None:
    for each in found.requests:
        print(json.dumps(each.as_json(), separators=(", ", ": ")))
    sys.stdout.flush()
    _note_dropped(found.dropped)


class _Lines:
    """A line a request below a line of headings."""

    def __init__(self) -> None:
        self._begun = False

    def print(self, found: Requests) -> None:
        """These, at once."""
        if not self._begun:
            self._begun = True
            print(request_text.aligned(request_text.HEADINGS))
        for each in found.requests:
            print(request_text.line(each))
        sys.stdout.flush()
        _note_dropped(found.dropped)


def _note_dropped(count: int) -> None:
    if count:
        print(f"note: {count:,} more requests were too many to show", file=sys.stderr, flush=True)


@contextmanager
def _table() -> Iterator[_Show]:
    from rich.console import Console  # noqa: PLC0415 -- and the next: 0.1 s that only a terminal needs
    from rich.live import Live  # noqa: PLC0415 -- as above

    console = Console(highlight=False)
    table = request_text.RequestTable(console)
    with Live(table, console=console, refresh_per_second=8, vertical_overflow="crop"):
        yield lambda found: table.add(found.requests, found.dropped)
