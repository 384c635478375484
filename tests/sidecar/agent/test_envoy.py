"""What the agent hears of its Envoy's process; the program here is a script."""

import asyncio
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from meshdev.errors import ClusterError
from meshdev.sidecar.agent.child import first_to_die, raise_limits
from meshdev.sidecar.agent.envoy import Envoy, body_of, memory_limit, private_folder
from meshdev.sidecar.agent.settings import Settings

SETTINGS = Settings("b-1", "uid", "default", IPv4Address("127.0.0.1"), "127.0.0.1", 15010)


def script(folder: Path, *commands: str) -> str:
    path = folder / "envoy"
    path.write_text("#!/bin/sh\n" + "\n".join(commands) + "\n")
    path.chmod(0o755)
    return str(path)


async def run(folder: Path, *commands: str) -> None:
    """Until the script has ended."""
    envoy = Envoy(SETTINGS, script(folder, *commands))
    try:
        async with asyncio.timeout(20):
            await envoy.run(started=lambda: None, ended=lambda: None)
    finally:
        await envoy.end()
        envoy.close()


async def test_its_words_are_logged_unless_they_quote_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await run(tmp_path, "printf '%s\\n' 'one -----BEGIN PRIVATE KEY-----\\nMIGH two' >&2", "echo three >&2")
    assert "envoy: (a line that quotes a private key)" in caplog.text
    assert "envoy: three" in caplog.text
    assert "MIGH" not in caplog.text


async def test_its_words_are_printable(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They may hold what a client sent."""
    await run(tmp_path, "printf 'one \\033[2Jtwo\\rthree\\n' >&2")
    assert "envoy: one ?[2Jtwo three" in caplog.text


async def test_a_line_without_end_holds_up_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = "head -c 300000 /dev/zero | tr '\\0' x; echo end"
    await run(tmp_path, f"{{ echo one; {long}; echo two; }} >&2", long)
    assert "envoy: one" in caplog.text
    assert "envoy: two" in caplog.text
    assert "xxx" not in caplog.text


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"memory.max": "402653184\n"}, 402653184),
        ({"memory.max": "max\n"}, None),
        ({"memory/memory.limit_in_bytes": "402653184\n"}, 402653184),
        ({"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ({}, None),
    ],
)
def test_the_memory_limit_of_its_container(tmp_path: Path, files: dict[str, str], limit: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory_limit(tmp_path) == limit


def test_its_files_go_where_something_can_be_written_and_nobody_else_reads_them(tmp_path: Path) -> None:
    found = private_folder((tmp_path / "read-only", Path("/proc"), tmp_path))
    assert found.parent == tmp_path
    assert found.stat().st_mode & 0o777 == 0o700
    with pytest.raises(ClusterError, match="no place for its files"):
        private_folder((Path("/proc"),))


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4\r\n two\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\none two",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\none two",
    ],
)
def test_answers_of_the_admin_socket(answer: bytes) -> None:
    assert body_of(answer, "/stats") == "one two"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "cannot be read"),
        (b"nonsense\r\n\r\n", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\none two", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\none", "cannot be read"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxy\r\none", "cannot be read"),
        (b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "refused /stats: 404 Not Found"),
    ],
)
def test_answers_that_are_none(answer: bytes, error: str) -> None:
    with pytest.raises(ClusterError, match=error):
        body_of(answer, "/stats")


def oom_score_adj() -> str:
    return Path("/proc/self/oom_score_adj").read_text()


async def test_it_is_the_first_to_die_and_the_agent_is_not(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = oom_score_adj()
    raise_limits()
    wait = "until [ $(cat /proc/$$/oom_score_adj) = 1000 ]; do sleep 0.01; done; echo first >&2"
    await run(tmp_path, wait)
    assert "envoy: first" in caplog.text
    assert oom_score_adj() == own


def test_who_cannot_be_the_first_to_die_is_told(caplog: pytest.LogCaptureFixture) -> None:
    first_to_die(1 << 22)  # no process has this number: proc_sys_kernel(5), pid_max
    assert "oom_score_adj of process 4194304 stays as it is" in caplog.text
