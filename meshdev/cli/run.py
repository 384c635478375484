"""``meshdev run``: connect and intercept while one program runs, and exit with its code."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from meshdev.cli import api, names, options, render, uplink
from meshdev.cli.attach import AttachedIntercepts, intercepts
from meshdev.cli.child import Child, not_run, why_not
from meshdev.cli.connect import check_cluster, check_programs
from meshdev.cli.connected import Here, connected, connected_alone
from meshdev.cli.signals import Ended
from meshdev.cli.via import Via, choose, proxied
from meshdev.cli.waiting import NOT_READY, NOTHING, WaitFor, wait_target
from meshdev.errors import AlreadyConnectedError, Cancelled, MeshdevError, UsageError
from meshdev.isolation import probing
from meshdev.state import Paths
from meshdev.wire.session_api import ConnectOptions, Status
from meshdev.wire.session_intercepts import InterceptRequest

EXAMPLE: Final = """\b
Examples:
  meshdev run -- curl http://b/
  meshdev run --mesh deployment/b --header a=1 --port 8080:http -- ./test.sh
  meshdev run --proxy deployment/b --env-from deployment/b -- ./b
  meshdev run --wait-for http://b/ready --wait-timeout 2m -- pytest
"""

#: meshdev itself failed; the other codes are the program's.
FAILED: Final = 125


@options.bundled
def command(
    program: Annotated[list[str], typer.Argument(metavar="-- CMD ARGS...", help="Program and its arguments.")],
    *,
    targets: options.Targets,
    namespace: options.TargetNamespace = None,
    match: options.Conditions,
    how: options.Intercepting,
    env_from: Annotated[
        str | None,
        typer.Option(
            "--env-from",
            metavar="TARGET",
            help="Give the program the environment variables of a workload.",
            autocompletion=names.targets,
        ),
    ] = None,
    container: options.Container = None,
    connection: options.Connection,
    by: Annotated[Via, typer.Option("--via", help="How the program reaches the cluster.")] = Via.AUTO,
    wait_for: Annotated[
        list[str] | None,
        typer.Option(
            "--wait-for",
            metavar="URL|HOST:PORT",
            help="Start the program once this answers, or takes connections. Repeatable.",
        ),
    ] = None,
    wait_timeout: Annotated[
        str, typer.Option("--wait-timeout", metavar="TIME", help="Time limit of --wait-for, such as 30s.")
    ] = "60s",
) -> None:
    """Run a program with a connection and intercepts, then undo both.

    Where this machine allows it, the program has a network of its own, and needs no root.

    The exit code is the program's; 125 if meshdev failed, 126 or 127 if the program cannot be run.

    The program's input and output are untouched; meshdev reports progress on standard error.
    """
    from meshdev.cli import intercepting  # noqa: PLC0415 -- a run without intercepts need not wait for it

    if any(match.values()) and not any(mode.needs_match for mode, _ in targets):
        raise UsageError("a match needs --mesh", hint="for instance: --mesh deployment/b")
    if how.ports and not targets:
        raise UsageError("--port needs --proxy or --mesh")
    if container and not env_from:
        raise UsageError("--container needs --env-from")
    ready = WaitFor(
        tuple(str(wait_target(each)) for each in wait_for or ()), options.period("--wait-timeout", wait_timeout)
    )
    asked = [intercepting.request(mode, target, how, namespace=namespace, match=match) for mode, target in targets]
    paths, environment = Paths.locate(), None
    if env_from and not why_not(program[0]):
        from meshdev.cli import workload_program  # noqa: PLC0415 -- the Kubernetes client: here only

        environment = workload_program.environment(paths, connection, namespace, env_from, container)
    raise Ended(run(paths, connection.wanted(), asked, program, environment, by, ready))


def run(
    paths: Paths,
    wanted: ConnectOptions,
    asked: Sequence[InterceptRequest],
    program: Sequence[str],
    environment: Mapping[str, str] | None = None,
    by: Via = Via.AUTO,
    ready: WaitFor = NOTHING,
) -> int:
    """The exit code of *program*, after everything has been undone. Raises what went wrong before it was started.

    *environment* is the program's where it is not ours.
    """
    if reason := why_not(program[0]):
        _say(f"cannot run {program[0]}: {reason[1]}")
        return reason[0]
    code: int | None = None
    try:
        with _connected(paths, wanted, by) as here:
            with intercepts(here.paths, here.signals, here.progress) as them:
                for request in asked:
                    them.open(request)
                    if them.interrupted:
                        raise Cancelled("interrupted; everything is undone")
                here.progress.close()
                code, lost = _run(program, them, here, environment, ready)
            here.progress.close()
    except MeshdevError as error:
        if code is None:
            raise
        _say(error.message, error.hint)  # the program has run: report what could not be undone
        return code or FAILED
    if here.lost:
        _say("the connection was lost while the program ran")
    return code or (FAILED if lost or here.lost else 0)


@contextmanager
def _connected(paths: Paths, wanted: ConnectOptions, by: Via) -> Iterator[Here]:
    """By the way that fits this machine, which is said."""
    choice = choose(by, _connected_to(paths, wanted), probing.probe)
    if choice.via is Via.ROOTLESS:
        others = uplink.find()
        _say(f"{choice}; {uplink.describe(others)}")
        with connected_alone(paths, wanted) as here, uplink.running(others, here.helper) as problem:
            if problem:
                _say(problem)
            yield here
        return
    _say(str(choice))
    with connected_alone(paths, wanted, proxy=True) if choice.by_proxy else connected(paths, wanted, _check) as here:
        yield here


def _check(status: Status, wanted: ConnectOptions) -> None:
    check_programs(status)
    check_cluster(status, wanted)


def _connected_to(paths: Paths, wanted: ConnectOptions) -> str | None:
    """The cluster that this machine is connected to, where that is the one that is wanted."""
    found = api.find(paths)
    if found is None:
        return None
    if found.status is None:  # it hangs, or is about to end: connecting says so
        return found.name
    try:
        _check(found.status, wanted)
    except AlreadyConnectedError:
        return None
    return found.status.context or "a cluster"


def _run(
    program: Sequence[str], them: AttachedIntercepts, here: Here, environment: Mapping[str, str] | None, ready: WaitFor
) -> tuple[int, bool]:
    """The program's exit code, and whether an intercept was lost meanwhile."""
    here.signals.catch(signal.SIGQUIT)
    if ready.targets:
        code, _ = _until_ended(_start(ready.command(_proxy(here)), here, None), them)
        if code:
            return FAILED if code == NOT_READY else code, False
    try:
        child = _start(program, here, environment)
    except OSError as error:
        _say(f"cannot run {program[0]}: {error.strerror}")
        return not_run(error), False
    return _until_ended(child, them)


def _proxy(here: Here) -> str | None:
    return here.status.socks if here.isolated else None


def _start(words: Sequence[str], here: Here, environment: Mapping[str, str] | None) -> Child:
    """Start it where it reaches the cluster. Raises OSError, IsolationError."""
    if (proxy := _proxy(here)) is not None:
        return Child(words, proxied(os.environ if environment is None else environment, proxy))
    return Child(words, environment, here.helper if here.isolated else None)


def _until_ended(child: Child, them: AttachedIntercepts) -> tuple[int, bool]:
    """Its exit code, and whether an intercept was lost meanwhile."""
    lost: set[int] = set()
    while (code := child.code()) is None:
        child.give(them.turn())
        for number, stream in enumerate(them.streams):
            if stream.over and number not in lost:
                lost.add(number)
                why = stream.error.message if stream.error else "it was left"
                _say(f"the intercept of {stream.request.target} is lost: {why}")
    return code, bool(lost)


def _say(message: str, hint: str | None = None) -> None:
    """On stderr, like errors; stdout belongs to the program. That it cannot be shown does not end anything."""
    with contextlib.suppress(OSError):
        print(f"meshdev: {render.printable(message)}", file=sys.stderr, flush=True)
        if hint:
            print(render.printable(hint), file=sys.stderr, flush=True)
