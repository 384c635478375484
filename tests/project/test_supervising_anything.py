"""The supervision of a project, whatever happens in whichever order: nothing is left at its end."""

from collections.abc import Callable, Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.project.model import Project, Readiness, Restart
from meshdev.project.supervising import (
    LEAVE_SECONDS,
    Action,
    LeaveIntercept,
    OpenIntercept,
    ProjectSupervisor,
    StartProcess,
    StopProcess,
)
from tests.project.test_supervising import CHECKED, ONCE, process, project


@st.composite
def projects(draw: st.DrawFn) -> Project:
    intercepts = [f"i{number}" for number in range(draw(st.integers(0, 3)))]
    names = [f"p{number}" for number in range(draw(st.integers(0, 4)))]
    made = []
    for number, name in enumerate(names):
        before = st.lists(st.sampled_from(names[:number]), unique=True) if number else st.just([])
        serves = st.lists(st.sampled_from(intercepts), unique=True) if intercepts else st.just([])
        ready: Readiness | None = draw(st.sampled_from([None, CHECKED, ONCE]))
        restart: Restart = draw(st.sampled_from(["never", "on-failure"] if ready is ONCE else ["never", "always"]))
        made.append(process(name, *draw(before), serves=" ".join(draw(serves)), ready=ready, restart=restart))
    return project(*made, intercepts=" ".join(intercepts))


class World:
    """What the machine's actions do, and what can happen next."""

    def __init__(self, wanted: Project) -> None:
        self.project = wanted
        self.machine = ProjectSupervisor(wanted)
        self.now = 0.0
        self.alive: set[str] = set()
        self.open: set[str] = set()
        self.have_been_up: set[str] = set()
        self.leaving: dict[str, float] = {}
        self.hurried = False
        self.done(self.machine.start(0))

    def done(self, actions: list[Action]) -> None:
        specs = {each.name: each for each in self.project.processes}
        for action in actions:
            match action:
                case StartProcess(name):
                    assert name not in self.alive, "it runs already"
                    assert self.machine.phase in {"starting", "up", "ending"}
                    for other in specs[name].depends_on:
                        assert set(specs[other].serves) <= self.have_been_up, "what it depends on has its intercepts up"
                    self.alive.add(name)
                case StopProcess(name, kill):
                    assert name in self.alive
                    if not kill and not self.hurried:
                        assert not self.open - self.late(), "intercepts are left first"
                        assert not any(name in specs[each].depends_on for each in self.alive), "dependents end first"
                case OpenIntercept(name):
                    assert name not in self.open
                    self.open.add(name)
                case LeaveIntercept(name):
                    assert name in self.open
                    self.leaving[name] = self.now
                case _:
                    pass

    def late(self) -> set[str]:
        """Intercepts that are not waited for any more."""
        return {name for name in self.open if self.now - self.leaving.get(name, self.now) >= LEAVE_SECONDS}

    def events(self) -> Iterator[Callable[[], list[Action]]]:
        machine, now = self.machine, self.now
        for name in sorted(self.alive):
            yield lambda name=name: self.exit(name, 0)  # type: ignore[misc]  # a lambda with a default
            yield lambda name=name: self.exit(name, 1)  # type: ignore[misc]  # the same
            yield lambda name=name: machine.ready(name, now)  # type: ignore[misc]  # the same
        for name in sorted(self.open):
            yield lambda name=name: self.came_up(name)  # type: ignore[misc]  # the same
            yield lambda name=name: self.ended(name)  # type: ignore[misc]  # the same
        yield lambda: machine.tick(now)

    def exit(self, name: str, code: int) -> list[Action]:
        self.alive.remove(name)
        return self.machine.exited(name, code, self.now)

    def came_up(self, name: str) -> list[Action]:
        self.have_been_up.add(name)
        return self.machine.intercept_up(name, self.now)

    def ended(self, name: str) -> list[Action]:
        self.open.remove(name)
        return self.machine.intercept_ended(name, "it failed", self.now)


@settings(max_examples=300, deadline=None)
@given(projects(), st.lists(st.tuples(st.integers(0, 30), st.floats(0, 20)), max_size=40), st.booleans())
def test_whatever_happens_it_ends_with_nothing_left(
    wanted: Project, happening: list[tuple[int, float]], hurry: bool
) -> None:
    world = World(wanted)
    for choice, pause in happening:
        world.now += pause
        events = list(world.events())
        world.done(events[choice % len(events)]())
    world.done(world.machine.stop(world.now))
    if hurry:
        world.hurried = True
        world.done(world.machine.stop(world.now))
    for _ in range(100):  # those that are told to end do so
        if world.machine.phase == "ended":
            break
        for name in sorted(world.open):
            world.done(world.ended(name))
        for name in sorted(world.alive):
            if world.machine.phases()["processes"][name] == "stopping":
                world.done(world.exit(name, 143))
        world.now += 100
        world.done(world.machine.tick(world.now))
    assert world.machine.phase == "ended"
    assert world.alive == set()
    assert hurry or world.open == world.late()
    assert world.machine.due() is None
