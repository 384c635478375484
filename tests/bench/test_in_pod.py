"""The programs that run in a pod, here against the sample on loopback."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from bench import asking, calling, pressing
from tests.cluster.sample.app import App
from tests.cluster.sample.grpc_echo import SERVICE
from tests.cluster.sample.http1 import Server
from tests.cluster.sample.listeners import Listener


@pytest.fixture
def port() -> Iterator[int]:
    listener = Listener(0, Server(App("b")).serve, "127.0.0.1")
    yield listener.port
    listener.stop_accepting()


def run(program: str, *arguments: str, said: str = "") -> list[Any]:
    """As it is in a pod: its text alone."""
    command = (sys.executable, "-c", Path(program).read_text(), *arguments)
    done = subprocess.run(command, input=said, capture_output=True, text=True, check=True, timeout=20)
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("keep", [True, False])
def test_everybody_is_asked_until_the_end_of_the_input(port: int, *, keep: bool) -> None:
    plan = {"to": [["127.0.0.1", port], ["127.0.0.1", 1]], "headers": [["a", "1"]], "keep": keep, "pause": 0.01}
    since = time.monotonic()
    command = (sys.executable, "-c", Path(asking.__file__).read_text(), json.dumps(plan))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = [json.loads(process.stdout.readline()) for _ in range(10)]
        rest, _ = process.communicate(timeout=20)
    rows = [*first, *map(json.loads, rest.splitlines())]
    assert {row[3] for row in rows if row[0] == 0} == {"b"}
    assert all(row[3].startswith("!ConnectionRefusedError") for row in rows if row[0] == 1)
    assert {row[0] for row in rows} == {0, 1}
    assert all(since < row[1] <= row[2] for row in rows)


def test_as_many_requests_as_possible_and_at_a_rate(port: int) -> None:
    work = {"to": ["127.0.0.1", port], "headers": [], "connections": 4, "seconds": 0.3}
    most, some = run(pressing.__file__, said="".join(json.dumps({**work, "rate": rate}) + "\n" for rate in (0, 100)))
    for came in (most, some):
        assert came["errors"] == 0
        assert came["said"] == {"b": came["requests"]}
        assert 0 < came["p50_ms"] <= came["p99_ms"]
    assert most["requests"] > 60
    assert 20 <= some["requests"] <= 40


def test_as_many_calls_of_grpc_as_possible() -> None:
    server = grpc.server(ThreadPoolExecutor(4))
    echo = grpc.unary_unary_rpc_method_handler(lambda request, _context: request)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Unary": echo}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        (came,) = run(calling.__file__, said=json.dumps({"to": ["127.0.0.1", port], "connections": 4, "seconds": 0.3}))
    finally:
        server.stop(0).wait()
    assert came["errors"] == 0
    assert came["said"] == {"original": came["requests"]}
    assert came["requests"] > 60
    assert 0 < came["p50_ms"] <= came["p99_ms"]
