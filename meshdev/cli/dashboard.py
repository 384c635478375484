"""``meshdev dashboard``: a page with the topology, requests, intercepts and health of the connection."""

import contextlib
import os
import sys
from typing import Annotated, Final

import typer

from meshdev.cli import api, options, render
from meshdev.cli.event_stream import events
from meshdev.cli.options import Format
from meshdev.cli.signals import Signals
from meshdev.errors import TunnelError
from meshdev.state import Paths
from meshdev.wire.message import dump
from meshdev.wire.session_dashboard import DashboardRequest, DashboardServed
from meshdev.wire.session_intercepts import Left

EXAMPLE: Final = """\b
Examples:
  meshdev dashboard
  meshdev dashboard --port 8888 --no-browser
  meshdev dashboard --no-browser -o json | jq -r .url
"""


def command(
    *,
    port: Annotated[
        int | None, typer.Option("--port", metavar="PORT", min=1, max=65535, help="Local port. Default: a free one.")
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the URL and open nothing.")] = False,
    output: options.Output = Format.TEXT,
) -> None:
    """Show services, requests, intercepts and health in the browser.

    The page is served at 127.0.0.1 until Ctrl-C, to whoever has the URL. Requests are recorded while it is open.
    """
    paths = Paths.locate()
    if api.find(paths) is None:
        raise TunnelError("there is no connection, so there is nothing to show", hint="meshdev connect")
    with Signals() as signals, contextlib.ExitStack() as stack:
        for event in events(paths, DashboardRequest(port), signals):
            match event:
                case DashboardServed(url):
                    _print(url, output)
                    if not no_browser and _has_display():
                        from meshdev.cli import browser  # noqa: PLC0415 -- other commands open none

                        stack.enter_context(browser.opened(paths, url))
                case Left():
                    print("note: the session has ended, and the dashboard with it", file=sys.stderr, flush=True)
                case _:
                    pass


def _has_display() -> bool:
    """Whether a browser would show anything; without a display it would take over the terminal."""
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _print(url: str, output: Format) -> None:
    if output is Format.JSON:
        render.print_json(dump(DashboardServed(url)))
    else:
        print(url)
    sys.stdout.flush()
    if sys.stderr.isatty():
        print("Ctrl-C ends it.", file=sys.stderr, flush=True)
