"""``meshdev connect``: start session and helper, report progress, return once connected."""

import contextlib
import os
from dataclasses import replace
from typing import Annotated, Final

import typer

from meshdev.cli import api, bastion, options, render
from meshdev.cli.disconnect import disconnect
from meshdev.cli.follow import Follower
from meshdev.cli.launch import Processes
from meshdev.cli.optional_value import command_class
from meshdev.cli.options import Format
from meshdev.cli.progress import ProgressView, progress_view
from meshdev.cli.signals import ENDING, Signals
from meshdev.cli.status_text import status_text
from meshdev.config import MAX_CARRIERS
from meshdev.errors import AlreadyConnectedError, Cancelled, ConfigError, IsolationError, MeshdevError, UsageError
from meshdev.state import Paths
from meshdev.telemetry import endpoint
from meshdev.wire.message import dump
from meshdev.wire.session_api import AskedCarrier, ConnectOptions, Status, StatusRequest

EXAMPLE: Final = """\b
Examples:
  meshdev connect
  meshdev connect --context dev -n team-1
  meshdev connect --socks
  meshdev connect --also 10.20.0.0/16 --never 10.20.30.0/24
"""

_SOCKS: Final = "127.0.0.1:1080"
COMMAND: Final = command_class({"--socks": _SOCKS})

#: How long a session that has undone everything may take to end.
_END_SECONDS: Final = 5.0


@options.bundled
def command(
    *,
    namespace: options.Namespace = None,
    connection: options.Connection,
    carrier: Annotated[AskedCarrier, typer.Option("--carrier", help="How packets pass the API server.")] = "auto",
    carriers: Annotated[int, typer.Option("--carriers", min=1, max=MAX_CARRIERS, hidden=True)] = 2,
    also: Annotated[
        list[str] | None, typer.Option("--also", metavar="CIDR", help="Route this range, too. Repeatable.")
    ] = None,
    never: Annotated[
        list[str] | None, typer.Option("--never", metavar="CIDR", help="Never route this range. Repeatable.")
    ] = None,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="Replace a running traffic-manager of another version.")
    ] = False,
    unguarded: Annotated[
        bool, typer.Option("--unguarded", help="Connect without nftables; pods may then reach ports of this machine.")
    ] = False,
    socks: Annotated[
        str | None,
        typer.Option(
            "--socks",
            metavar="[HOST:]PORT",
            help=f"Serve a SOCKS5 and HTTP proxy to the cluster instead, without root. Default: {_SOCKS}.",
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            "--metrics-port",
            metavar="PORT",
            min=1,
            max=65535,
            help="Serve Prometheus metrics at 127.0.0.1:PORT/metrics.",
        ),
    ] = None,
    otlp: Annotated[
        str | None,
        typer.Option(
            "--otlp",
            metavar="URL",
            help="Send spans of your intercepts' requests to this OTLP receiver, such as http://localhost:4318.",
        ),
    ] = None,
    otlp_logs: Annotated[bool, typer.Option("--otlp-logs", help="Send logs there, too.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Enable debug logging in the session.")] = False,
    output: options.Output = Format.TEXT,
) -> None:
    """Connect this machine to a cluster.

    Its Services, pods and names are reachable from this machine until `meshdev disconnect`.

    Only the helper needs root; sudo asks for it. With --socks no root is needed, and nothing on this machine changes.
    """
    wanted = replace(
        connection.wanted(namespace),
        carrier=carrier,
        carriers=carriers,
        also=options.ranges("--also", also or []),
        never=options.ranges("--never", never or []),
        upgrade=upgrade,
        unguarded=unguarded,
        debug=debug,
        socks=options.listen_address("--socks", socks),
        isolated=socks is not None,
        metrics_port=metrics_port,
        otlp=_receiver(otlp, logs=otlp_logs),
        otlp_logs=otlp_logs,
    )
    if wanted.isolated:
        _check_isolation()
    connect(Paths.locate(), wanted, output)


def connect(paths: Paths, wanted: ConnectOptions, output: Format) -> None:
    """Connect, or find the same connection, and report it. Raises AlreadyConnectedError for another one."""
    found = lock_or_status(paths)
    if isinstance(found, Status):
        _check_same(found, wanted)
        _check_metrics(found, wanted)
        _check_socks(found, wanted)
        _check_otlp(found, wanted)
        _answer(found, output, _already(found))
        return
    with Signals() as signals, contextlib.closing(progress_view()) as progress:
        status = start(paths, found, wanted, signals, progress)
        progress.close()
        if signals.take() & ENDING:
            disconnect(paths)
            raise Cancelled("interrupted; everything is undone")
        _answer(status, output, status_text(status))


def lock_or_status(paths: Paths) -> int | Status:
    """The lock, taken for :func:`start`; or the status of the connection that there is, once it is not connecting."""
    paths.prepare()
    while (lock := paths.take_lock()) is None:
        existing = _existing(paths)
        if existing is not None:
            return existing
    return lock


def start(paths: Paths, lock: int, wanted: ConnectOptions, signals: Signals, progress: ProgressView) -> Status:
    """Connect. *lock* is closed in any case. Raises what went wrong, or Cancelled; then everything is undone."""
    try:
        with (
            bastion.logged_in(wanted.ssh, paths, signals, progress) as jump,
            contextlib.closing(Processes(paths, lock, jump, isolated=wanted.isolated)) as processes,
        ):
            return Follower(paths, processes, signals, progress).run(wanted)
    finally:
        os.close(lock)


def _answer(status: Status, output: Format, text: str) -> None:
    if output is Format.JSON:
        render.print_json(dump(status))
    else:
        render.print_text(text)


def _existing(paths: Paths) -> Status | None:
    """The status of the session that has the lock, once it is no longer connecting; None when it has gone."""
    found = api.find(paths)
    if found is None:
        return None
    if found.status is None:
        raise AlreadyConnectedError(
            f"{found.name} holds the connection and does not answer ({found.why})", hint="`meshdev disconnect` ends it"
        )
    if found.status.state == "disconnected":  # everything is undone, its process is about to end
        if not api.wait_gone(paths, _END_SECONDS):
            raise AlreadyConnectedError(f"{found.name} does not end", hint="`meshdev disconnect` ends it")
        return None
    if found.status.state != "connecting":
        return found.status
    try:
        return api.ask(paths, StatusRequest(settled=True), None)
    except api.NoAnswer as error:
        raise MeshdevError(f"another connect was running and failed ({error})", hint="try again") from error


def check_cluster(status: Status, wanted: ConnectOptions) -> None:
    """Whether the connection is to the cluster that flags name; without such flags any connection is right.

    Raises AlreadyConnectedError.
    """
    if wanted.kubeconfig or wanted.context or wanted.ssh:
        _check_same(replace(status, namespace=None), wanted)


def check_programs(status: Status) -> None:
    """Whether programs of this machine reach the cluster as they are. Raises AlreadyConnectedError."""
    if status.socks is not None:
        raise AlreadyConnectedError(
            f"the connection to {_where(status)} is a proxy at {status.socks}, which programs do not use by themselves",
            hint="`meshdev disconnect` ends it",
        )


def _check_same(status: Status, wanted: ConnectOptions) -> None:
    from meshdev.kube import kubeconfig  # noqa: PLC0415 -- YAML is needed in this case only

    if wanted.ssh and wanted.ssh != status.ssh:
        raise AlreadyConnectedError(
            f"connected to {_where(status)} {f'through {status.ssh}' if status.ssh else 'without --ssh'}",
            hint="`meshdev disconnect` ends that connection",
        )
    context, namespace, server = wanted.context, wanted.namespace, None
    with contextlib.suppress(ConfigError):  # a kubeconfig that has gone meanwhile is no reason to disturb
        found = kubeconfig.load(kubeconfig.Options(wanted.kubeconfig, context, namespace))
        context, namespace, server = found.context, found.namespace, found.server
    asked = {"context": context, "namespace": namespace, "server": server}
    there = {"context": status.context, "namespace": status.namespace, "server": status.server}
    if any(value and there[key] and value != there[key] for key, value in asked.items()):
        raise AlreadyConnectedError(
            f"connected to {_where(status)} ({status.server})",
            hint="`meshdev disconnect` ends that connection",
        )


def _check_metrics(status: Status, wanted: ConnectOptions) -> None:
    port = wanted.metrics_port
    if port is not None and (status.metrics is None or f":{port}/" not in status.metrics):
        where = f"at {status.metrics}" if status.metrics else "no metrics"
        raise AlreadyConnectedError(
            f"the connection to {_where(status)} serves {where}",
            hint="`meshdev disconnect`, then connect with --metrics-port",
        )


def _check_isolation() -> None:
    """Raises IsolationError where no network of one's own can be made: nothing has been started then."""
    from meshdev.isolation import probing  # noqa: PLC0415 -- only for --socks
    from meshdev.isolation.reasons import Forbidden  # noqa: PLC0415 -- the same

    found = probing.probe()
    if isinstance(found, Forbidden):
        raise IsolationError(f"--socks needs a network of its own: {found.reason}", hint=found.hint)


def _check_socks(status: Status, wanted: ConnectOptions) -> None:
    if wanted.socks is not None and status.socks != str(wanted.socks):
        where = f"a proxy at {status.socks}" if status.socks else "no proxy"
        raise AlreadyConnectedError(
            f"the connection to {_where(status)} serves {where}",
            hint="`meshdev disconnect`, then connect with --socks",
        )


def _receiver(url: str | None, *, logs: bool) -> str | None:
    """The URL of ``--otlp``. Raises UsageError where nothing can be sent there."""
    if url is not None:
        endpoint.parse(url, logs=logs)
    elif logs:
        raise UsageError("--otlp-logs needs --otlp", hint="meshdev connect --otlp http://localhost:4318 --otlp-logs")
    return url


def _check_otlp(status: Status, wanted: ConnectOptions) -> None:
    if wanted.otlp is not None and status.otlp != wanted.otlp:
        where = f"sends spans to {status.otlp}" if status.otlp else "sends no spans"
        raise AlreadyConnectedError(
            f"the connection to {_where(status)} {where}", hint="`meshdev disconnect`, then connect with --otlp"
        )


def _already(status: Status) -> str:
    return f"Already connected to {_where(status)}" + ("" if status.state == "connected" else f" ({status.state})")


def _where(status: Status) -> str:
    return f"{status.context}" + (f", namespace {status.namespace}" if status.namespace else "")
