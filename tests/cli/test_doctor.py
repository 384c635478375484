"""How ``doctor`` looks and ends."""

import io

import pytest

from meshdev.cli.doctor_text import Look, rendered
from meshdev.doctor.verdicts.finding import Examined, failed, ok, skipped, warning
from tests.cli.conftest import Commands

FOUND = (
    Examined("kubeconfig", "Cluster", ok("context c")),
    Examined("clock", "Cluster", warning("90 s behind \x1b[31m", "timedatectl set-ntp true")),
    Examined("tun", "This machine", failed("/dev/net/tun does not exist", "sudo modprobe tun")),
    Examined("dnat", "This machine", skipped("root alone")),
)


class Terminal(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def terminal(encoding: str) -> Terminal:
    return Terminal(io.BytesIO(), encoding=encoding)


def test_in_a_pipe_it_is_plain_and_nothing_is_wrapped() -> None:
    assert rendered(FOUND, Look.of(io.StringIO())) == (
        "Cluster\n"
        "  ok      kubeconfig  context c\n"
        "  warning clock       90 s behind \\x1b[31m\n"
        "                        > timedatectl set-ntp true\n"
        "\n"
        "This machine\n"
        "  failed  tun         /dev/net/tun does not exist\n"
        "                        > sudo modprobe tun\n"
        "  skipped dnat        root alone\n"
        "\n"
        "1 ok, 1 warning, 1 failed, 1 skipped"
    )


def test_on_a_terminal_it_has_signs_colors_and_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    text = rendered([Examined("tun", "This machine", failed("word " * 20))], Look.of(terminal("utf-8")))
    assert "\x1b[31m✗\x1b[0m tun  word word" in text
    assert max(map(len, text.splitlines()[2:])) <= 60
    assert text.splitlines()[2].startswith(" " * 9 + "word")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colors_can_be_turned_off(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert "\x1b" not in rendered(FOUND, Look.of(terminal("utf-8")))


def test_a_terminal_that_has_no_signs_gets_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert rendered(FOUND, Look.of(terminal("ascii"))).isascii()


def test_without_a_kubeconfig_it_says_so_and_examines_the_rest(meshdev: Commands) -> None:
    ran = meshdev("doctor", "--kubeconfig", "/nowhere", "-o", "json")
    assert ran.code == 1
    found = {each["check"]: each for each in ran.json()}
    assert all(each.keys() == {"check", "state", "detail", "hint"} for each in found.values())
    assert found["kubeconfig"]["state"] == "failed"
    assert "/nowhere" in found["kubeconfig"]["detail"]
    assert found["api-server"]["state"] == "skipped"
    assert found["connection"]["state"] == "ok"
    assert {each["state"] for each in found.values()} <= {"ok", "warning", "failed", "skipped"}
    assert not [each for each in found.values() if "internal error" in each["detail"]]
