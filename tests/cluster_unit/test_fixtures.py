"""What the cluster tests' fixtures promise about themselves: an end, and nothing left of what did not come up."""

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tests.e2e import conftest, intercepting
from tests.e2e.conftest import Laptop


def test_fixtures_that_do_not_end_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conftest, "FIXTURE_SECONDS", 0.1)
    former = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)[0]
    with (
        pytest.raises(pytest.fail.Exception, match=r"no end of the fixtures' setup within 0\.1 s"),
        conftest._limited("setup"),
    ):
        signal.pause()
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    assert signal.getsignal(signal.SIGALRM) == former[0]
    assert former[1] - 10 < left <= former[1], "the test's own limit goes on"


@dataclass(frozen=True)
class FakeLaptop(Laptop):
    """Its commands succeed or fail as told, and are written down."""

    fails: str = ""
    said: list[str] = field(default_factory=list)

    def run(
        self, *argv: str, timeout: float = 60, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        assert (timeout > 0, environment) == (True, None)
        self.said.append(" ".join(argv[1:3]))
        return subprocess.CompletedProcess(argv, int(argv[1] == self.fails), json.dumps({"state": "active"}), "")


def commands(laptop: FakeLaptop, raising: Sequence[type[Exception]] = ()) -> list[str]:
    with intercepting.intercepted(laptop, "mesh", "svc/b", "default"):
        for each in raising:
            raise each
    return laptop.said


def test_an_intercept_is_left_however_it_went() -> None:
    assert commands(FakeLaptop()) == ["mesh svc/b", "leave svc/b"]
    for laptop, raising in ((FakeLaptop(fails="mesh"), ()), (FakeLaptop(), (AssertionError,))):
        with pytest.raises(AssertionError):
            commands(laptop, raising)
        assert laptop.said == ["mesh svc/b", "leave svc/b"]


def test_a_local_program_that_does_not_get_ready_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intercepting, "_START_SECONDS", 0.2)
    monkeypatch.setattr(Laptop, "command", lambda *_: ["sleep", "600"])
    began = time.monotonic()
    with pytest.raises(pytest.fail.Exception, match="it did not listen"):
        intercepting.LocalProgram(Laptop())
    assert time.monotonic() - began < 20
