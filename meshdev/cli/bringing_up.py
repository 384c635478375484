"""How ``up`` goes: whether the project is up already, what is connected, what is waited for, what the end means."""

import contextlib
import os
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from meshdev.cli import background, connect, render
from meshdev.cli.api import wait_gone
from meshdev.cli.child import Child, not_run, why_not
from meshdev.cli.connected import connected
from meshdev.cli.options import Format
from meshdev.cli.project_api import ProjectClient, listen
from meshdev.cli.project_env import environments
from meshdev.cli.project_files import ProjectFile
from meshdev.cli.project_output import ProjectOutput
from meshdev.cli.run import FAILED
from meshdev.cli.signals import ENDING, Signals
from meshdev.cli.supervised import ProjectRun
from meshdev.errors import AlreadyConnectedError, AlreadyUpError, Cancelled, MeshdevError, ProcessError
from meshdev.project import planning
from meshdev.project.model import Project
from meshdev.state import Paths
from meshdev.wire.answers import PlanAnswer, UpAnswer
from meshdev.wire.message import dump
from meshdev.wire.project_api import ProjectStatus
from meshdev.wire.session_api import ConnectOptions, Status

#: Between two looks at a project that is ending, or was killed and has processes left.
_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True)
class UpRequest:
    """What was asked for on the command line."""

    file: ProjectFile
    project: Project
    detach: bool
    program: Sequence[str]
    output: Format


@dataclass(frozen=True)
class HeldProject:
    """What one run has for itself: its *own* files, their *lock*, its socket; and the files of the *session*."""

    session: Paths
    own: Paths
    lock: int
    listener: socket.socket


def bring_up(file: ProjectFile, project: Project, *, detach: bool, program: Sequence[str], output: Format) -> int:
    """The exit code, after the end; or, detached, once all is up. Raises what went wrong; all is undone then."""
    wanted = UpRequest(file, project, detach, program, output)
    if program and (reason := why_not(program[0])):
        print(f"meshdev: cannot run {render.printable(program[0])}: {reason[1]}", file=sys.stderr)
        return reason[0]
    paths = Paths.locate()
    paths.prepare()
    own = file.paths(paths)
    own.prepare()
    while (lock := own.take_lock()) is None:
        if (there := _running(own)) is not None:
            return _already(wanted, there)
        wait_gone(own, _LOOK_SECONDS)
    own.write_lock(lock, os.getpid())
    try:
        with contextlib.closing(listen(own)) as listener:
            return _connected(wanted, HeldProject(paths, own, lock, listener))
    finally:
        os.close(lock)


def _connected(wanted: UpRequest, held: HeldProject) -> int:
    """The same, with the project's lock, and its socket listening."""
    env = environments(held.session, wanted.project)
    with connected(held.session, wanted.project.connection, _check_connection) as here:
        here.progress.close()
        reports = background.fork(held.own.log) if wanted.detach else None
        if isinstance(reports, background.BackgroundFollower):
            here.ours = False
            reports.wait(here.signals)
            _say_detached(wanted, held)
            return 0
        if reports is None:
            outcome = _Bringing(wanted, held, env, here.signals, None).run()
        else:
            held.own.write_lock(held.lock, os.getpid())
            with Signals() as signals:  # those of this process: the others are shared with the one that waits
                outcome = _Bringing(wanted, held, env, signals, reports).run()
    if reports is not None:  # now that all is undone; nobody reads it where it was up before
        reports.failed(outcome.error or Cancelled("interrupted; everything is undone"))
    return outcome.exit_code(connection_lost=here.lost)


def _say_detached(wanted: UpRequest, held: HeldProject) -> None:
    there = _status(held.own)
    if there is None:
        raise ProcessError("it ended as soon as it was up", hint=f"its log: {held.own.log}")
    if wanted.output is Format.JSON:
        render.print_json(dump(_answer(wanted.file, there, changed=True)))
    else:
        render.print_text(f"Up in the background (pid {there.pid}), log: {held.own.log}")
        render.print_text(f"`meshdev down -f {wanted.file.typed}` ends it")


def show_plan(file: ProjectFile, project: Project, output: Format) -> None:
    """Print what `up` would do; nothing is touched."""
    there = _status(file.paths(Paths.locate()))
    changes = planning.differences(dict(there.digests), planning.digests(project)) if there else []
    if output is Format.JSON:
        state = there.phase if there else "down"
        render.print_json(dump(PlanAnswer(str(file.path), state, tuple(changes), planning.steps(project))))
        return
    if there is None:
        render.print_text("\n".join(planning.lines(project)))
    elif changes:
        render.print_text("\n".join([f"It is up (pid {there.pid}), and its file has changed since:", *changes]))
    else:
        render.print_text(f"It is up (pid {there.pid}): nothing to change")


def _check_connection(status: Status, wanted: ConnectOptions) -> None:
    """Names without a namespace are those of the connection's: it has to be the file's."""
    connect.check_programs(status)
    connect.check_cluster(status, wanted)
    if wanted.namespace and status.namespace and wanted.namespace != status.namespace:
        raise AlreadyConnectedError(
            f"connected to namespace {status.namespace}, and the file wants {wanted.namespace}",
            hint="`meshdev disconnect` ends that connection",
        )


def _running(own: Paths) -> ProjectStatus | None:
    """The project that is up, once it is no longer starting; None where it has ended or is about to."""
    try:
        client = ProjectClient(own)
    except OSError:
        return None
    with contextlib.closing(client):
        status = client.ask("settled", None)
    return status if status and status.phase == "up" else None


def _status(own: Paths) -> ProjectStatus | None:
    """Of the project as it is now; None where it is not up, or does not answer."""
    with contextlib.suppress(OSError, TimeoutError), contextlib.closing(ProjectClient(own)) as client:
        return client.ask("status")
    return None


def _already(wanted: UpRequest, there: ProjectStatus) -> int:
    """It is up: nothing is to be done, unless the file has changed since."""
    if changes := planning.differences(dict(there.digests), planning.digests(wanted.project)):
        file = wanted.file
        down = f"meshdev down -f {file.typed}"
        raise AlreadyUpError(
            f"{file.name} is up (pid {there.pid}) and has changed since: {', '.join(changes)}",
            hint=f"`{down}` ends it; then run up again.",
        )
    if wanted.program:
        with Signals() as signals:
            return _alone(wanted.program, signals)
    if wanted.output is Format.JSON:
        render.print_json(dump(_answer(wanted.file, there, changed=False)))
    else:
        render.print_text(f"Already up (pid {there.pid}): nothing to change")
    return 0


def _alone(program: Sequence[str], signals: Signals) -> int:
    """The exit code of a program while others care for the project."""
    signals.catch(signal.SIGQUIT)
    child = _child(program)
    if isinstance(child, int):
        return child
    while (code := child.code()) is None:
        select.select([signals.fileno()], [], [])
        child.give(signals.take())
    return code


def _child(program: Sequence[str]) -> Child | int:
    """The running program, or the exit code of one that cannot be run."""
    try:
        return Child(program)
    except OSError as error:
        print(f"meshdev: cannot run {render.printable(program[0])}: {error.strerror}", file=sys.stderr)
        return not_run(error)


def _answer(file: ProjectFile, there: ProjectStatus, *, changed: bool) -> UpAnswer:
    return UpAnswer(str(file.path), there.phase, changed, there.pid, there.processes, there.intercepts)


@dataclass
class UpOutcome:
    """How a run ended, when everything is undone."""

    code: int | None = None
    """The program's, where one was run."""
    interrupted: bool = False
    error: MeshdevError | None = None
    failures: Sequence[str] = ()

    def exit_code(self, *, connection_lost: bool) -> int:
        """The command's. Raises what it failed with."""
        if self.code is not None:
            return self.code or (FAILED if self.failures or connection_lost else 0)
        if self.error:
            raise self.error
        return Cancelled.exit_code if self.interrupted else 0


class _Bringing:
    """One run, from its start to the end of all of it."""

    def __init__(
        self,
        wanted: UpRequest,
        held: HeldProject,
        env: Mapping[str, Mapping[str, str]],
        signals: Signals,
        reports: background.BackgroundReports | None,
    ) -> None:
        """*env*: of each process. *reports*: it is in the background, and somebody waits for news."""
        self._wanted = wanted
        self._held = held
        self._signals = signals
        self._reports = reports
        self._outcome = UpOutcome()
        self._child: Child | None = None
        self._announced = False
        self._asked_child = False
        project = wanted.project
        to_stderr = bool(wanted.program) or (wanted.output is Format.JSON and not reports)
        self._output = ProjectOutput(
            [process.name for process in project.processes], 2 if to_stderr else 1, limited=reports is not None
        )
        self._run = ProjectRun(held.session, project, env, self._output, lock=held.lock, listener=held.listener)

    def run(self) -> UpOutcome:
        """What it came to; nothing is left but the connection."""
        with contextlib.closing(self._run) as run:
            run.start()
            try:
                while not run.ended or self._child:
                    if run.up and not self._announced:
                        self._became_up()
                    else:
                        self._turn()
            except BaseException:  # output that cannot be written: the program must not stay behind alone
                if self._child:
                    self._child.give({signal.SIGTERM})
                raise
        self._held.own.socket.unlink(missing_ok=True)
        outcome = self._outcome
        outcome.failures = run.supervisor.failures
        if run.supervisor.cause == "failed":
            outcome.error = run.failure()
        return outcome

    def _turn(self) -> None:
        received = self._run.turn(self._signals)
        if self._child is None:
            if received & ENDING:
                self._outcome.interrupted = True
                self._run.stop()
            return
        self._child.give(received)
        if self._run.asked_down and not self._asked_child:
            self._asked_child = True
            self._child.give({signal.SIGTERM})
        if (code := self._child.code()) is not None:
            self._program_ended(code)

    def _became_up(self) -> None:
        self._announced = True
        parts = [
            (len(self._wanted.project.processes), "process", "es"),
            (len(self._wanted.project.intercepts), "intercept", "s"),
        ]
        what = ", ".join(f"{count} {name}{'' if count == 1 else more}" for count, name, more in parts if count)
        self._output.say(f"up{': ' if what else ''}{what}")
        if self._reports:
            self._reports.up()
        elif self._wanted.program:
            self._signals.catch(signal.SIGQUIT)
            child = _child(self._wanted.program)
            if isinstance(child, int):
                self._program_ended(child)
            else:
                self._child = child
        elif self._wanted.output is Format.JSON:
            render.print_json(dump(_answer(self._wanted.file, self._run.status(), changed=True)))

    def _program_ended(self, code: int) -> None:
        self._outcome.code, self._child = code, None
        self._run.stop()
