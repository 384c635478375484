"""The supervision of a project as a state machine: what happened goes in, what is to be done comes out.

Starting: a process starts once all that it depends on is ready and their intercepts are up; an intercept begins once
the processes that serve it are ready. When all are, the project is up. What fails before that ends everything; what
fails later is reported, and the rest stays.

Ending is the reverse: intercepts are left first, while the programs that serve them still answer; then processes end,
each after those that depend on it, by SIGTERM and, when their time is over, SIGKILL.

Nothing is waited for here: :meth:`ProjectSupervisor.due` is when :meth:`ProjectSupervisor.tick` has something to do.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal

from meshdev.project.model import CompletedReady, Project, ProjectProcess

#: Of a process that exits again and again: the first pause, the longest, and the time of running that makes it forget.
FIRST_BACKOFF: Final = 0.5
LONGEST_BACKOFF: Final = 30.0
FORGET_AFTER: Final = 60.0

ProjectPhase = Literal["starting", "up", "ending", "ended"]
ProcessPhase = Literal["waiting", "running", "ready", "backoff", "completed", "failed", "stopping", "stopped"]
ProjectInterceptPhase = Literal["waiting", "opening", "up", "lost", "leaving", "left"]
#: What leaving the intercepts may take before their processes end nevertheless: a sidecar drains for up to 25 s.
LEAVE_SECONDS: Final = 40.0

EndCause = Literal["asked", "failed", "over"]


@dataclass(frozen=True)
class StartProcess:
    """Start it, watch for its readiness, and report its exit; to the machine it runs from now on."""

    name: str


@dataclass(frozen=True)
class StopProcess:
    """Send SIGTERM to all of its process group, or SIGKILL; the exit is reported when none of it is left."""

    name: str
    kill: bool = False


@dataclass(frozen=True)
class OpenIntercept:
    """Ask the session for it, and report when it is up or has ended."""

    name: str


@dataclass(frozen=True)
class LeaveIntercept:
    """Ask the session to end it, and report the end."""

    name: str


@dataclass(frozen=True)
class Mention:
    """A line for people."""

    text: str


@dataclass(frozen=True)
class BecameUp:
    """All is ready."""


Action = StartProcess | StopProcess | OpenIntercept | LeaveIntercept | Mention | BecameUp


@dataclass
class _ProcessState:
    spec: ProjectProcess
    phase: ProcessPhase = "waiting"
    was_ready: bool = False
    started: float = 0.0
    exits: int = 0
    deadline: float | None = None
    """When it is to be ready, to be started again or to be killed, by its phase."""

    @property
    def alive(self) -> bool:
        return self.phase in {"running", "ready", "stopping"}

    @property
    def over(self) -> bool:
        return self.phase in {"completed", "failed", "stopped"}


@dataclass
class ProjectSupervisor:
    """One run of a project. Methods return what is to be done, in that order."""

    project: Project
    phase: ProjectPhase = "starting"
    cause: EndCause | None = None
    """Why it ends: somebody asked, something failed, or no process is left."""
    failures: list[str] = field(default_factory=list)
    """What failed, or ended unasked; the first one is why it was given up, where it was."""

    def __post_init__(self) -> None:
        self._processes = {each.name: _ProcessState(each) for each in self.project.processes}
        self._intercepts: dict[str, ProjectInterceptPhase] = {each.name: "waiting" for each in self.project.intercepts}
        self._asked = False
        self._hurry = False
        self._leave_by: float | None = None
        self._actions: list[Action] = []

    # -- what happens --------------------------------------------------------------------------------------------------

    def start(self, now: float) -> list[Action]:
        """Begin."""
        return self._advanced(now)

    def ready(self, name: str, now: float) -> list[Action]:
        """A process is ready. One that is no longer asked for is not."""
        process = self._processes[name]
        if process.phase == "running":
            self._became_ready(process, now)
        return self._advanced(now)

    def exited(self, name: str, code: int, now: float) -> list[Action]:
        """A process has exited (128 + n by signal n), and nothing of its group is left."""
        process = self._processes[name]
        if self.phase in {"ending", "ended"}:
            process.phase, process.deadline = "stopped", None
        else:
            self._exited(process, code, now)
        return self._advanced(now)

    def not_started(self, name: str, why: str, now: float) -> list[Action]:
        """A process could not be started; it is not tried again."""
        self._failed(self._processes[name], f"process {name} cannot be started: {why}")
        return self._advanced(now)

    def intercept_up(self, name: str, now: float) -> list[Action]:
        """It is up."""
        if self._intercepts[name] == "opening":
            self._intercepts[name] = "up"
        return self._advanced(now)

    def intercept_ended(self, name: str, why: str, now: float) -> list[Action]:
        """It is no more: it was left, or failed with *why*."""
        if self.phase in {"ending", "ended"}:
            self._intercepts[name] = "left"
            return self._advanced(now)
        self._intercepts[name] = "lost"
        self._fail(f"intercept {name}: {why}")
        return self._advanced(now)

    def stop(self, now: float) -> list[Action]:
        """Somebody wants the end; asked for once more, it waits for nothing."""
        self._hurry |= self._asked
        self._asked = True
        self._end("asked")
        return self._advanced(now)

    def tick(self, now: float) -> list[Action]:
        """Time has passed."""
        for process in self._processes.values():
            if process.deadline is not None and now >= process.deadline:
                self._too_late(process, now)
        if self._leave_by is not None and now >= self._leave_by:
            self._give_up_leaving()
        return self._advanced(now)

    def due(self) -> float | None:
        """When the next tick is needed."""
        deadlines = (self._leave_by, *(each.deadline for each in self._processes.values()))
        return min((each for each in deadlines if each is not None), default=None)

    def phases(self) -> dict[str, dict[str, str]]:
        """How all stand, for whoever asks."""
        return {
            "processes": {name: each.phase for name, each in self._processes.items()},
            "intercepts": dict(self._intercepts),
        }

    # -- what follows --------------------------------------------------------------------------------------------------

    def _advanced(self, now: float) -> list[Action]:
        """Do what has become possible; return all that has been decided since the last call."""
        if self.phase in {"starting", "up"}:
            self._go_on(now)
        if self.phase == "ending":
            self._go_back(now)
        actions, self._actions = self._actions, []
        return actions

    def _go_on(self, now: float) -> None:
        for process in self._processes.values():
            if process.phase == "waiting" and all(self._satisfied(name) for name in process.spec.depends_on):
                self._start(process, now)
        for name, phase in self._intercepts.items():
            if phase == "waiting" and all(self._processes[each].was_ready for each in self.project.servers(name)):
                self._intercepts[name] = "opening"
                self._actions.append(OpenIntercept(name))
        if self.phase == "starting" and self._all_up():
            self.phase = "up"
            self._actions.append(BecameUp())
        if self.phase == "up" and self._nothing_left():
            self._end("failed" if self.failures else "over")

    def _go_back(self, now: float) -> None:
        for name, phase in self._intercepts.items():
            if phase in {"opening", "up"}:
                self._intercepts[name], self._leave_by = "leaving", now + LEAVE_SECONDS
                self._actions.append(LeaveIntercept(name))
            elif phase == "waiting":
                self._intercepts[name] = "left"
        if self._hurry or all(phase in {"left", "lost"} for phase in self._intercepts.values()):
            self._stop_processes(now)
        left = self._hurry or "leaving" not in self._intercepts.values()
        if left:
            self._leave_by = None
        if left and all(process.over for process in self._processes.values()):
            self.phase = "ended"

    def _give_up_leaving(self) -> None:
        self._leave_by = None
        for name, phase in self._intercepts.items():
            if phase == "leaving":
                self._intercepts[name] = "left"
                self._fail(f"intercept {name} was not undone in {LEAVE_SECONDS:g} s; the session goes on undoing it")

    def _stop_processes(self, now: float) -> None:
        for process in self._processes.values():
            if process.phase in {"waiting", "backoff"}:
                process.phase, process.deadline = "stopped", None
        for process in self._processes.values():
            if process.phase in {"running", "ready"} and (self._hurry or not self._needed(process.spec.name)):
                process.phase, process.deadline = "stopping", now + process.spec.stop_seconds
                self._actions.append(StopProcess(process.spec.name))
            if process.phase == "stopping" and self._hurry and process.deadline is not None:
                process.deadline = None
                self._actions.append(StopProcess(process.spec.name, kill=True))

    def _needed(self, name: str) -> bool:
        """Whether one that depends on it is still alive."""
        return any(each.alive and name in each.spec.depends_on for each in self._processes.values())

    def _satisfied(self, name: str) -> bool:
        """Whether what depends on it may start."""
        process = self._processes[name]
        return process.was_ready and all(self._intercepts[each] == "up" for each in process.spec.serves)

    def _all_up(self) -> bool:
        return all(each.was_ready for each in self._processes.values()) and all(
            phase == "up" for phase in self._intercepts.values()
        )

    def _nothing_left(self) -> bool:
        """Whether there is nothing to stay for: its services have all ended, and no other program serves intercepts."""
        services = [each for each in self._processes.values() if not isinstance(each.spec.ready, CompletedReady)]
        return (
            bool(services)
            and all(each.over for each in services)
            and all(self.project.servers(name) for name, phase in self._intercepts.items() if phase == "up")
        )

    def _start(self, process: _ProcessState, now: float) -> None:
        process.phase, process.started, process.deadline = "running", now, now + process.spec.ready_seconds
        self._actions.append(StartProcess(process.spec.name))
        if process.spec.ready is None:
            self._became_ready(process, now)

    def _became_ready(self, process: _ProcessState, now: float) -> None:
        process.phase, process.deadline = "ready", None
        if process.spec.ready is not None and not process.was_ready:
            self._actions.append(Mention(f"{process.spec.name} is ready after {now - process.started:.1f} s"))
        process.was_ready = True

    def _exited(self, process: _ProcessState, code: int, now: float) -> None:
        name, restart = process.spec.name, process.spec.restart
        ended = f"process {name} exited with {code}"
        if code == 0 and isinstance(process.spec.ready, CompletedReady):
            self._became_ready(process, now)
        if restart == "always" or (restart == "on-failure" and code != 0):
            process.exits = 0 if now - process.started >= FORGET_AFTER else process.exits + 1
            pause = min(FIRST_BACKOFF * 2 ** max(process.exits - 1, 0), LONGEST_BACKOFF)
            process.phase, process.deadline = "backoff", now + pause
            self._actions.append(Mention(f"{ended}; it starts again in {pause:g} s"))
        elif code == 0 and process.was_ready:
            process.phase, process.deadline = "completed", None
            self._actions.append(Mention(ended))
        else:
            self._failed(process, ended if process.was_ready else f"{ended} before it was ready")

    def _too_late(self, process: _ProcessState, now: float) -> None:
        name = process.spec.name
        if process.phase == "backoff":
            self._start(process, now)
            return
        process.deadline = None
        if process.phase == "stopping":
            self._actions.append(Mention(f"process {name} did not end in {process.spec.stop_seconds:g} s: killing it"))
            self._actions.append(StopProcess(name, kill=True))
        elif process.phase == "running" and self.phase != "ending":
            self._fail(f"process {name} is not ready after {process.spec.ready_seconds:g} s: {process.spec.ready}")

    def _failed(self, process: _ProcessState, why: str) -> None:
        process.phase, process.deadline = "failed", None
        if self.phase in {"starting", "up"}:
            self._fail(why)

    def _fail(self, why: str) -> None:
        """Before it is up, everything fails with it."""
        self.failures.append(why)
        self._actions.append(Mention(why))
        if self.phase == "starting":
            self._end("failed")

    def _end(self, cause: EndCause) -> None:
        if self.phase in {"starting", "up"}:
            self.phase, self.cause = "ending", cause


def plan(project: Project) -> Iterable[StartProcess | OpenIntercept]:
    """What `up` does, in order: the machine itself, run on a day on which all goes well at once."""
    machine = ProjectSupervisor(project)
    waiting = list(machine.start(0.0))
    while waiting:
        action = waiting.pop(0)
        match action:
            case StartProcess(name):
                yield action
                done = isinstance(next(each for each in project.processes if each.name == name).ready, CompletedReady)
                waiting += machine.exited(name, 0, 0.0) if done else machine.ready(name, 0.0)
            case OpenIntercept(name):
                yield action
                waiting += machine.intercept_up(name, 0.0)
            case _:
                pass
