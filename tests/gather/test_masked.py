"""What looks like a credential is masked in all that is put into a bug report, and what does not stays."""

import json

import pytest

from meshdev.gather.masked import MAX_LINE, Masker
from tests.gather import planted
from tests.gather.planted import EXEC, KEY, PASSWORD, TOKEN

MASKER = Masker({TOKEN, PASSWORD, KEY, EXEC, "", "short"})


def test_credentials_in_logs_are_masked() -> None:
    lines = list(planted.log_lines())
    assert len(planted.KINDS) >= 28
    assert planted.seen_in("\n".join(lines)), "there is something to mask"
    assert [line for line in lines if planted.seen_in(MASKER.line(line))] == []
    assert planted.seen_in(MASKER.text("\n".join(lines))) == []
    assert (
        planted.seen_in(json.dumps(MASKER.value({"lines": lines, "nested": [{"line": line} for line in lines]}))) == []
    )


def test_flags_and_words_that_are_not_known() -> None:
    unknown = Masker()
    for line in (f"--token {TOKEN}", f"--token={TOKEN}", f"password {PASSWORD}1a", f"https://u:{PASSWORD}@b/"):
        assert planted.seen_in(unknown.line(f"2026-11-29 19:15:34,123 INFO a.b: {line}")) == []


@pytest.mark.parametrize(
    "line",
    [
        "2026-11-29 19:15:34,123 INFO meshdev.session.supervisor: connected to https://10.0.0.1:6443",
        "2026-11-29 19:15:34,123 WARNING meshdev.session: carrier 1 is gone",
        "2026-11-29T19:15:34.123456789Z 2026-11-29 19:15:34,123 INFO listening",
        "default via 192.0.2.1 dev eth0 proto static",
        "nameserver 192.0.2.53",
        "2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP mode DEFAULT group default",
        "the token expired",
        "",
    ],
)
def test_what_is_none_stays(line: str) -> None:
    assert MASKER.line(line) == line


def test_names_of_credentials_in_json() -> None:
    assert MASKER.value({"token": "abc", "pids": {"session": 17}, "list": [1, None, True, 1.5]}) == {
        "token": "***",
        "pids": {"session": 17},
        "list": [1, None, True, 1.5],
    }


def test_private_keys() -> None:
    key = f"-----BEGIN EC PRIVATE KEY-----\n{KEY}\n{TOKEN}\n-----END EC PRIVATE KEY-----"
    assert Masker().text(f"before\n{key}\nafter") == "before\n***\nafter"
    assert Masker().text(f"before\n-----BEGIN PRIVATE KEY-----\n{KEY}") == "before\n***"


def test_lines_have_a_limit_and_nothing_for_a_terminal() -> None:
    assert len(MASKER.line("x" * 100_000)) <= MAX_LINE
    assert MASKER.line("\x1b[31mred") == "\\x1b[31mred"
    assert MASKER.text("a\nb") == "a\nb"
