"""The supervision of a project: each decision."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from meshdev.project.model import (
    CompletedReady,
    LogReady,
    Project,
    ProjectIntercept,
    ProjectProcess,
    Readiness,
    Restart,
)
from meshdev.project.supervising import (
    Action,
    BecameUp,
    LeaveIntercept,
    Mention,
    OpenIntercept,
    ProjectSupervisor,
    StartProcess,
    StopProcess,
    plan,
)
from meshdev.wire.modes import PROXY
from meshdev.wire.session_api import ConnectOptions
from meshdev.wire.session_intercepts import InterceptRequest

CHECKED = LogReady("listening")
ONCE = CompletedReady()


def process(
    name: str,
    *depends_on: str,
    serves: str = "",
    ready: Readiness | None = CHECKED,
    restart: Restart = "never",
) -> ProjectProcess:
    return ProjectProcess(
        name=name,
        command=(name,),
        directory="/",
        serves=tuple(serves.split()),
        depends_on=depends_on,
        ready=ready,
        restart=restart,
    )


def project(*processes: ProjectProcess, intercepts: str = "") -> Project:
    asked = [ProjectIntercept(name, InterceptRequest(target=f"svc/{name}", mode=PROXY)) for name in intercepts.split()]
    return Project(ConnectOptions(), tuple(asked), processes)


def words(actions: list[Action]) -> list[str]:
    """Actions as short texts; reports begin with #."""
    return [_word(action) for action in actions]


def _word(action: Action) -> str:
    match action:
        case StartProcess(name):
            return f"start {name}"
        case StopProcess(name, kill):
            return f"{'kill' if kill else 'stop'} {name}"
        case OpenIntercept(name):
            return f"open {name}"
        case LeaveIntercept(name):
            return f"leave {name}"
        case Mention(text):
            return f"# {text}"
        case BecameUp():
            return "up"


SHOP = project(
    process("migrate", ready=ONCE),
    process("b", "migrate", serves="b"),
    process("web", "b", ready=None),
    intercepts="b c",
)


def up() -> ProjectSupervisor:
    machine = ProjectSupervisor(SHOP)
    machine.start(0)
    machine.exited("migrate", 0, 1)
    machine.ready("b", 2)
    machine.intercept_up("b", 3)
    machine.intercept_up("c", 3)
    assert machine.phase == "up"
    return machine


def test_each_starts_when_what_it_needs_is_there() -> None:
    machine = ProjectSupervisor(SHOP)
    assert words(machine.start(0)) == ["start migrate", "open c"]
    assert words(machine.intercept_up("c", 0)) == []
    assert words(machine.exited("migrate", 0, 1.5)) == [
        "# migrate is ready after 1.5 s",
        "# process migrate exited with 0",
        "start b",
    ]
    assert words(machine.ready("b", 2)) == ["# b is ready after 0.5 s", "open b"]
    assert machine.phase == "starting"
    assert words(machine.intercept_up("b", 3)) == ["start web", "up"]
    assert (machine.phase, machine.failures) == ("up", [])


def test_the_plan_is_the_order_of_a_good_day() -> None:
    assert words(list(plan(SHOP))) == ["start migrate", "open c", "start b", "open b", "start web"]
    assert list(plan(project())) == []


def test_the_end_is_the_reverse_and_intercepts_are_left_first() -> None:
    machine = up()
    assert words(machine.stop(4)) == ["leave b", "leave c"]
    assert words(machine.intercept_ended("b", "left", 5)) == []
    assert words(machine.intercept_ended("c", "left", 5)) == ["stop web"], "b is needed by web"
    assert words(machine.exited("web", 143, 6)) == ["stop b"]
    assert machine.phase == "ending"
    assert words(machine.exited("b", 0, 7)) == []
    assert (machine.phase, machine.cause, machine.failures) == ("ended", "asked", [])


def test_one_that_does_not_end_is_killed_when_its_time_is_over() -> None:
    machine = up()
    machine.stop(4)
    machine.intercept_ended("b", "left", 5)
    machine.intercept_ended("c", "left", 5)
    assert machine.due() == 15
    assert words(machine.tick(14.9)) == []
    assert words(machine.tick(15)) == ["# process web did not end in 10 s: killing it", "kill web"]
    assert machine.due() is None


def test_an_intercept_that_is_not_undone_is_not_waited_for_without_end() -> None:
    machine = up()
    machine.stop(4)
    machine.intercept_ended("c", "left", 5)
    assert machine.due() == 44
    assert words(machine.tick(44)) == [
        "# intercept b was not undone in 40 s; the session goes on undoing it",
        "stop web",
    ]


def test_a_second_wish_for_the_end_waits_for_nothing() -> None:
    machine = up()
    machine.stop(4)
    assert words(machine.stop(5)) == ["stop b", "kill b", "stop web", "kill web"]
    machine.exited("web", 137, 6)
    machine.exited("b", 137, 6)
    assert machine.phase == "ended"


def test_the_first_wish_for_the_end_while_a_failure_is_undone_waits_for_that() -> None:
    machine = ProjectSupervisor(project(process("a", serves="a"), process("b", ready=None), intercepts="a c"))
    machine.start(0)
    machine.exited("a", 1, 1)
    assert words(machine.stop(2)) == []
    assert words(machine.stop(3)) == ["stop b", "kill b"]


def test_a_project_without_processes_is_up_with_its_intercepts() -> None:
    machine = ProjectSupervisor(project(intercepts="b"))
    assert words(machine.start(0)) == ["open b"]
    assert words(machine.intercept_up("b", 1)) == ["up"]
    empty = ProjectSupervisor(project())
    assert words(empty.start(0)) == ["up"]
    assert words(empty.stop(1)) == []
    assert empty.phase == "ended"


@dataclass
class Failing:
    """A failure of process a (serves intercept a; b waits for it) or of the intercept, before or after it is up."""

    happens: Callable[[ProjectSupervisor], list[Action]]
    why: str
    end: list[str] = field(default_factory=list)


FAILURES = {
    "exits": Failing(lambda machine: machine.exited("a", 3, 5), "process a exited with 3"),
    "cannot start": Failing(lambda machine: machine.not_started("a", "no such file", 5), "process a cannot be started"),
    "is late": Failing(lambda machine: machine.tick(60), "process a is not ready after 60 s: its output contains"),
    "exits early": Failing(lambda machine: machine.exited("a", 0, 5), "process a exited with 0 before it was ready"),
}


@pytest.mark.parametrize("failing", FAILURES.values(), ids=FAILURES)
def test_what_fails_before_it_is_up_ends_everything(failing: Failing) -> None:
    machine = ProjectSupervisor(project(process("a", serves="a"), process("b", "a"), process("c"), intercepts="a d"))
    machine.start(0)
    machine.intercept_up("d", 1)
    done = words(failing.happens(machine))
    assert done[0].startswith(f"# {failing.why}")
    assert done[1:] == ["leave d"]
    machine.intercept_ended("d", "left", 61)
    machine.exited("c", 143, 61)
    if machine.phase != "ended":  # the late one is still running
        machine.exited("a", 143, 61)
    assert (machine.phase, machine.cause) == ("ended", "failed")
    assert [each.startswith(failing.why) for each in machine.failures] == [True]


def test_an_intercept_that_is_refused_ends_everything() -> None:
    machine = ProjectSupervisor(project(process("a"), intercepts="a"))
    machine.start(0)
    assert words(machine.intercept_ended("a", "jane has it", 1)) == ["# intercept a: jane has it", "stop a"]
    assert machine.failures == ["intercept a: jane has it"]


def test_what_fails_later_is_reported_and_the_rest_stays() -> None:
    machine = ProjectSupervisor(project(process("a", serves="a"), process("b"), intercepts="a"))
    machine.start(0)
    machine.ready("b", 1)
    machine.ready("a", 1)
    machine.intercept_up("a", 2)
    assert words(machine.exited("a", 1, 3)) == ["# process a exited with 1"]
    assert words(machine.intercept_ended("a", "taken over", 4)) == ["# intercept a: taken over"]
    assert machine.phase == "up"
    assert words(machine.exited("b", 0, 5)) == ["# process b exited with 0"]
    assert (machine.phase, machine.cause) == ("ended", "failed"), "nothing was left to stay for"


def test_it_stays_for_an_intercept_that_another_program_serves() -> None:
    machine = ProjectSupervisor(project(process("a", ready=None), intercepts="b"))
    machine.start(0)
    machine.intercept_up("b", 0)
    machine.exited("a", 0, 1)
    assert machine.phase == "up"
    only_jobs = ProjectSupervisor(project(process("a", ready=ONCE)))
    only_jobs.start(0)
    only_jobs.exited("a", 0, 1)
    assert only_jobs.phase == "up"


def test_pauses_before_restarts_become_longer_and_are_forgotten() -> None:
    machine = ProjectSupervisor(project(process("a", ready=None, restart="always"), process("b", ready=None)))
    machine.start(0)
    now, pauses = 0.0, []
    for _ in range(8):
        machine.exited("a", 0, now)
        due = machine.due()
        assert due is not None
        pauses.append(due - now)
        now = due
        assert words(machine.tick(now)) == ["start a"]
    assert pauses == [0.5, 1, 2, 4, 8, 16, 30, 30]
    machine.exited("a", 0, now + 60)
    assert machine.due() == now + 60.5


@pytest.mark.parametrize(
    ("restart", "code", "phase"),
    [
        ("never", 0, "completed"),
        ("never", 1, "failed"),
        ("on-failure", 0, "completed"),
        ("on-failure", 1, "backoff"),
        ("always", 0, "backoff"),
        ("always", 1, "backoff"),
    ],
)
def test_restart_policies(restart: Restart, code: int, phase: str) -> None:
    machine = ProjectSupervisor(project(process("a", ready=None, restart=restart), process("b", ready=None)))
    machine.start(0)
    machine.exited("a", code, 1)
    assert machine.phases()["processes"]["a"] == phase
    machine.stop(2)
    machine.exited("b", 143, 2)
    assert machine.phase == "ended", "a pause is not waited for"


def test_one_that_is_started_again_has_to_get_ready_again() -> None:
    machine = ProjectSupervisor(project(process("a", restart="on-failure"), process("b", "a", ready=None)))
    machine.start(0)
    machine.exited("a", 1, 1)
    machine.tick(1.5)
    assert words(machine.ready("a", 3)) == ["# a is ready after 1.5 s", "start b", "up"]
    machine.exited("a", 1, 4)
    machine.tick(100)
    assert words(machine.tick(160)) == ["# process a is not ready after 60 s: its output contains 'listening'"]
    assert machine.phase == "up"
