"""A project at work: carries out what :class:`ProjectSupervisor` decides, and reports to it what happens."""

import contextlib
import os
import selectors
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from meshdev.cli import intercept_text
from meshdev.cli.attach import Stream
from meshdev.cli.project_api import ProjectListener
from meshdev.cli.project_output import ProjectOutput
from meshdev.cli.signals import Signals
from meshdev.errors import MeshdevError, ProcessError
from meshdev.processes.group import ProcessGroup
from meshdev.processes.guard import ProcessGuard
from meshdev.processes.probe import ReadinessProbe, listens
from meshdev.project.model import HttpReady, LogReady, Project, ProjectProcess, TcpReady
from meshdev.project.planning import digests
from meshdev.project.supervising import (
    LEAVE_SECONDS,
    Action,
    BecameUp,
    LeaveIntercept,
    Mention,
    OpenIntercept,
    ProjectSupervisor,
    StartProcess,
    StopProcess,
)
from meshdev.state import Paths
from meshdev.wire.project_api import ProjectStatus
from meshdev.wire.session_api import Note, Step, Wait

#: Beyond the times of its parts, what undoing a project may take.
_SLACK_SECONDS: Final = 15.0
#: Of what an ended process has printed: all that a pipe holds (pipe(7)). A process that has left its group, with that
#: pipe, may print without end.
_LAST_READS: Final = 16


class ProjectRun:
    """One run: :meth:`start`, :meth:`turn` until :attr:`ended`, and in any case :meth:`close`."""

    def __init__(
        self,
        session: Paths,
        project: Project,
        environments: Mapping[str, Mapping[str, str]],
        output: ProjectOutput,
        *,
        lock: int,
        listener: socket.socket,
    ) -> None:
        """*session*: the connection's files. *environments* by the processes' names. *lock* is held, *listener*
        listens; both are of this project.
        """
        self.supervisor = ProjectSupervisor(project)
        self.up = False
        """It has become up."""
        self.errors: dict[str, MeshdevError] = {}
        """What ended intercepts, by their names."""
        self.asked_down = False
        """Another command has ended it."""
        self._project = project
        self._session = session
        self._environments = environments
        self._output = output
        self._specs = {process.name: process for process in project.processes}
        self._requests = {intercept.name: intercept.request for intercept in project.intercepts}
        self._digests = tuple(digests(project).items())
        self._groups: dict[str, ProcessGroup] = {}
        self._probes: dict[str, ReadinessProbe] = {}
        self._watched: dict[str, bytes] = {}
        self._streams: dict[str, Stream] = {}
        self._seen: set[str] = set()
        self._selector = selectors.DefaultSelector()
        self._actions: deque[Action] = deque()
        self._acting = False
        self._guard = ProcessGuard(lock)
        self._listener = ProjectListener(listener, self._selector, self.status, self._down)

    @property
    def ended(self) -> bool:
        """Nothing of it is left."""
        return self.supervisor.phase == "ended"

    def status(self) -> ProjectStatus:
        """For others."""
        phases = self.supervisor.phases()
        return ProjectStatus(
            phase=self.supervisor.phase,
            pid=os.getpid(),
            undo_s=LEAVE_SECONDS + sum(each.stop_seconds for each in self._project.processes) + _SLACK_SECONDS,
            digests=self._digests,
            processes=tuple(phases["processes"].items()),
            intercepts=tuple(phases["intercepts"].items()),
        )

    def failure(self) -> MeshdevError:
        """What failed first, as an error."""
        first = self.supervisor.failures[0]
        for name, error in self.errors.items():
            if first == f"intercept {name}: {error.message}":
                return error
        return ProcessError(first, hint="what it printed stands above, after its name.")

    def start(self) -> None:
        """Begin."""
        self._do(self.supervisor.start(time.monotonic()))

    def stop(self) -> None:
        """Somebody wants the end; for the second time, at once."""
        if self.supervisor.phase in {"starting", "up"}:
            self._output.say("ending all of it")
        self._do(self.supervisor.stop(time.monotonic()))

    def turn(self, signals: Signals) -> set[int]:
        """Wait for the next event and process it; return the signals received."""
        received: set[int] = set()
        with self._reading(signals):
            for key, _ in self._selector.select(self._patience()):
                if key.data is not None:
                    key.data()
            received = signals.take()
        for probe in list(self._probes.values()):
            probe.tick()
        for name, group in list(self._groups.items()):
            self._look_at(name, group)
        self._do(self.supervisor.tick(time.monotonic()))
        self._listener.changed()
        return received

    def close(self) -> None:
        """Whatever is left is ended; nothing is left when this returns."""
        for probe in self._probes.values():
            probe.close()
        for stream in self._streams.values():
            stream.close()
        self._listener.close()
        self._guard.close(lambda: [each.exit_code() for each in self._groups.values()])
        for group in self._groups.values():
            group.close()
        self._selector.close()

    @contextmanager
    def _reading(self, signals: Signals) -> Iterator[None]:
        """Also wake up for signals: a process in the background has others than the one that it comes from."""
        self._selector.register(signals, selectors.EVENT_READ)
        try:
            yield
        finally:
            self._selector.unregister(signals)

    def _patience(self) -> float | None:
        due = [self.supervisor.due(), *(each.due() for each in self._groups.values())]
        due += [probe.due() for probe in self._probes.values()]
        soonest = min((each for each in due if each is not None), default=None)
        return None if soonest is None else max(0.0, soonest - time.monotonic())

    def _do(self, actions: list[Action]) -> None:
        """In the order of decisions: what follows from one of them comes after those that were made with it."""
        self._actions += actions
        if self._acting:
            return
        self._acting = True
        while self._actions:
            self._act(self._actions.popleft())
        self._acting = False

    def _act(self, action: Action) -> None:
        match action:
            case StartProcess(name):
                self._start(self._specs[name])
            case StopProcess(name, kill):
                self._forget_readiness(name)
                if name in self._groups:
                    self._groups[name].signal(kill=kill)
            case OpenIntercept(name):
                self._open(name)
            case LeaveIntercept(name):
                self._leave(name)
            case Mention(text):
                self._output.say(text)
            case BecameUp():
                self.up = True

    def _down(self) -> None:
        self.asked_down = self.supervisor.phase in {"starting", "up"}
        self.stop()

    # -- processes -----------------------------------------------------------------------------------------------------

    def _start(self, spec: ProjectProcess) -> None:
        now = time.monotonic()
        ready = spec.ready
        if isinstance(ready, HttpReady | TcpReady) and listens(ready.host, ready.port):
            why = f"another program listens on {ready.host}:{ready.port} already"
            self._do(self.supervisor.not_started(spec.name, why, now))
            return
        try:
            group = ProcessGroup(
                spec.command,
                directory=spec.directory,
                env=self._environments[spec.name],
                stop_seconds=spec.stop_seconds,
                guard=self._guard,
            )
        except OSError as error:
            why = f"{error.filename or spec.command[0]}: {error.strerror}"
            self._do(self.supervisor.not_started(spec.name, why, now))
            return
        self._groups[spec.name] = group
        self._selector.register(group, selectors.EVENT_READ, lambda: self._read(spec.name, group))
        match ready:
            case HttpReady(host, port, path):
                self._probe(spec.name, host, port, path)
            case TcpReady(host, port):
                self._probe(spec.name, host, port, None)
            case LogReady():
                self._watched[spec.name] = b""
            case _:
                pass

    def _probe(self, name: str, host: str, port: int, path: str | None) -> None:
        self._probes[name] = ReadinessProbe(self._selector, host, port, path, lambda: self._became_ready(name))

    def _became_ready(self, name: str) -> None:
        self._forget_readiness(name)
        self._do(self.supervisor.ready(name, time.monotonic()))

    def _forget_readiness(self, name: str) -> None:
        if probe := self._probes.pop(name, None):
            probe.close()
        self._watched.pop(name, None)

    def _read(self, name: str, group: ProcessGroup) -> bool:
        """Whether there may be more."""
        data = group.read()
        if data is None:
            self._selector.unregister(group)
            return False
        if not data:
            return False
        self._output.printed(name, data)
        self._look_for_line(name, data)
        return True

    def _look_for_line(self, name: str, data: bytes) -> None:
        ready = self._specs[name].ready
        if name in self._watched and isinstance(ready, LogReady):
            wanted = ready.text.encode()
            found = self._watched[name] + data
            self._watched[name] = found[-len(wanted) :]
            if wanted in found:
                self._became_ready(name)

    def _look_at(self, name: str, group: ProcessGroup) -> None:
        code = group.exit_code()
        if code is None:
            return
        registered = group in (key.fileobj for key in self._selector.get_map().values())
        for _ in range(_LAST_READS):
            if not (registered and self._read(name, group)):
                break
        with contextlib.suppress(KeyError):
            self._selector.unregister(group)
        group.close()
        self._output.ended(name)
        del self._groups[name]
        self._forget_readiness(name)
        self._do(self.supervisor.exited(name, code, time.monotonic()))

    # -- intercepts ----------------------------------------------------------------------------------------------------

    def _open(self, name: str) -> None:
        try:
            stream = Stream(self._session, self._requests[name])
        except MeshdevError as error:
            self._intercept_ended(name, error)
            return
        self._streams[name] = stream
        self._selector.register(stream, selectors.EVENT_READ, lambda: self._on_intercept(name, stream))

    def _leave(self, name: str) -> None:
        if stream := self._streams.get(name):
            stream.leave()

    def _on_intercept(self, name: str, stream: Stream) -> None:
        for event in stream.read():
            if isinstance(event, Step | Note | Wait):
                self._output.show(f"intercept {name}", event)
        if stream.status and name not in self._seen:
            self._seen.add(name)
            self._output.say(f"intercept {name} is up: {intercept_text.line(stream.status)}")
            if (trial := intercept_text.trial(stream.status, stream.request)) is not None:
                self._output.say(f"try it: {trial}")
            self._do(self.supervisor.intercept_up(name, time.monotonic()))
        if stream.over:
            self._selector.unregister(stream)
            del self._streams[name]
            stream.close()
            self._intercept_ended(name, stream.error)

    def _intercept_ended(self, name: str, error: MeshdevError | None) -> None:
        if error:
            self.errors[name] = error
        why = error.message if error else "another command has ended it"
        self._do(self.supervisor.intercept_ended(name, why, time.monotonic()))
