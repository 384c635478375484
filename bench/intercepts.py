"""All figures of intercepts, in one connection of laptop 1."""

from contextlib import ExitStack
from typing import Final

from rich.console import Console

from bench import effects, entering, target, through, ways
from bench.figures import Figure

#: Effects are told by their median and worst of so many.
TIMES: Final = 20
_SLICE_SECONDS: Final = 0.5
#: Short turns and many of them: what else happens on the machine meets both ways alike.
_TURNS: Final = 2
_THROUGH: Final = "through"
_EFFECTS: Final = "effects"


def run(rounds: int, console: Console) -> dict[str, Figure]:
    """Each workload meets its first sidecar when it is measured."""
    entered = [f"enter-{number}" for number in range(1, rounds + 1)]
    with ExitStack() as stack:
        console.print("intercepts: the workloads come")
        stack.enter_context(target.namespace(*((name, 2) for name in (*entered, _EFFECTS)), (_THROUGH, 1)))
        stack.callback(ways.meshdev, "disconnect")
        ways.meshdev(
            "uninstall", "--force"
        )  # sidecars run the manager's image: that of these sources, not an older one
        ways.meshdev("connect")
        program = effects.LocalProgram()
        stack.callback(program.stop)
        console.print(f"intercepts: from the command to the first request, {rounds} times cold and warm")
        entering_ = entering.measure(entered)
        console.print("intercepts: requests per second, bare and through the sidecar in turn")
        through_ = through.measure(_THROUGH, _TURNS * rounds, _SLICE_SECONDS)
        console.print(f"intercepts: the local program goes down and comes up {TIMES} times")
        flips = effects.of_local_program(_EFFECTS, program, TIMES)
        console.print(f"intercepts: a match comes and goes {TIMES} times")
        matches = effects.of_matches(_EFFECTS, TIMES)
        return {**entering_, **flips, **matches, **through_, "image unpacked, MB": Figure([target.image_mb()])}
