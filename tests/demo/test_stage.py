"""The demo's stage, with commands of this machine."""

import io
import time

import pytest
from rich.console import Console

from demo.stage import Stage, StoryError


@pytest.fixture
def told() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def stage(told: io.StringIO) -> Stage:
    return Stage((), Console(file=told, width=80, highlight=False))


def test_a_command_is_shown_and_must_do_what_the_story_says(stage: Stage, told: io.StringIO) -> None:
    stage.run("exit 0")
    stage.run("exit 3", fails=True)
    assert told.getvalue() == "dev@laptop $ exit 0\ndev@laptop $ exit 3\n"
    with pytest.raises(StoryError, match="`exit 4` ended with 4"):
        stage.run("exit 4")
    with pytest.raises(StoryError, match="`true` ended with 0"):
        stage.run("true", fails=True)


def test_an_answer_is_shown_and_what_is_ours_in_it(stage: Stage, told: io.StringIO) -> None:
    stage.ask("echo a>/dev/null; echo 'a>[b]>c'", "[b]", ours="[b]")
    assert told.getvalue().splitlines()[1:] == ["a>[b]>c", "  ▔▔▔ this one ran on the laptop"]


def test_another_answer_ends_the_story(stage: Stage) -> None:
    with pytest.raises(StoryError, match="printed 'b', not 'c'"):
        stage.ask("echo b", "c")
    with pytest.raises(StoryError, match="exit code 1"):
        stage.ask("echo c; exit 1", "c")


def test_the_second_terminal_lives_as_long_as_its_block(stage: Stage, told: io.StringIO) -> None:
    since = time.monotonic()
    with stage.second_terminal("sh -c 'echo $$: ready; exec sleep 60'", ": ready"):
        shown = told.getvalue().splitlines()[-1]
        pid = int(shown.removeprefix("│ ").removesuffix(": ready"))
        stage.run(f"kill -0 {pid}")
    stage.run(f"kill -0 {pid} 2>/dev/null", fails=True)
    assert "│ ^C" in told.getvalue()
    assert time.monotonic() - since < 10


def test_a_program_that_ends_is_not_waited_for(stage: Stage) -> None:
    with pytest.raises(StoryError, match="is not ready: no such port"), stage.second_terminal("echo no such port", "!"):
        pass
