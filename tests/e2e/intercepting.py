"""Intercepts in tests: B' on a laptop, the commands, and requests from inside the cluster and from a laptop."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, Final

import pytest

from tests.e2e.conftest import CHECKOUT, Laptop, until
from tests.e2e.workloads import CLIENT

A1: Final = {"a": "1"}
LOCAL: Final = "local-b"
_START_SECONDS: Final = 30.0

Headers = Mapping[str, str]
#: (status, body); status 0: no answer, and why.
Answer = tuple[int, str]

#: Reads a list of [url, headers]; prints the answers. Every request has a connection of its own.
_ASK: Final = """
import http.client, json, sys, urllib.parse
for url, headers in json.loads(sys.argv[1]):
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=8)
    try:
        connection.request("GET", (parts.path or "/") + f"?{parts.query}" * bool(parts.query), headers=headers)
        answer = connection.getresponse()
        print(json.dumps([answer.status, answer.read().decode()]))
    except (OSError, http.client.HTTPException) as error:
        print(json.dumps([0, repr(error)]))
    connection.close()
"""


def ask(namespace: str, *requests: tuple[str, Headers]) -> list[Answer]:
    """Ask from the namespace's client, one after the other."""
    said = in_pod(namespace, _ASK, json.dumps(requests))
    return [(status, body) for status, body in map(json.loads, said.splitlines())]


def in_pod(namespace: str, script: str, *arguments: str, timeout: float = 60) -> str:
    """Run Python in the namespace's client; what it prints."""
    command = ("kubectl", "-n", namespace, "exec", CLIENT, "--", "python3", "-c", script, *arguments)
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster", *command],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def begun_in_pod(namespace: str, script: str, *arguments: str) -> Iterator[IO[str]]:
    """Python in the namespace's client, running; what it prints."""
    command = ("kubectl", "-n", namespace, "exec", CLIENT, "--", "python3", "-c", script, *arguments)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", *command],
        cwd=CHECKOUT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def curl(laptop: Laptop, url: str, headers: Headers | None = None) -> str:
    """Ask from the laptop; what was answered, whatever its status."""
    given = [word for name, value in (headers or {}).items() for word in ("-H", f"{name}: {value}")]
    return laptop.ok("curl", "-sS", "--max-time", "8", *given, url)


class LocalProgram:
    """The sample on a laptop, with these flags: B'. Or a program of one's own that says when it is ready, too."""

    def __init__(self, laptop: Laptop, *flags: str, program: str = "") -> None:
        self._laptop = laptop
        self._command = ("python", *(("-c", program) if program else ("-m", "tests.cluster.sample")), *flags)
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        """Begin; it listens when this returns."""
        process = self._process = self._laptop.start(*self._command)
        assert process.stdout is not None
        limit = threading.Timer(_START_SECONDS, process.kill)  # the line is empty then
        limit.start()
        line = process.stdout.readline()
        limit.cancel()
        if not line.endswith(": ready\n"):
            process.kill()
            process.wait(15)
            pytest.fail(f"it did not listen within {_START_SECONDS:g} s, or at all: {line!r}")
        threading.Thread(target=process.stdout.read, daemon=True).start()

    def stop(self) -> None:
        """As a well-behaved program ends: it refuses, answers what it has, and goes."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(15)
            self._process = None


@contextmanager
def local(laptop: Laptop, *flags: str, name: str = LOCAL) -> Iterator[LocalProgram]:
    """B' while the block runs; on port 8080 by default."""
    program = LocalProgram(laptop, f"--name={name}", *(flags or ("--port=8080",)))
    try:
        yield program
    finally:
        program.stop()


def up(laptop: Laptop, mode: str, target: str, namespace: str, *flags: str) -> dict[str, Any]:
    """Intercept and return; what the command says about it."""
    said = laptop.meshdev(mode, target, "-n", namespace, *flags, "--detach", "-o", "json")
    answer: dict[str, Any] = json.loads(said)
    assert answer["state"] == "active", answer
    return answer


@contextmanager
def intercepted(laptop: Laptop, mode: str, target: str, namespace: str, *flags: str) -> Iterator[dict[str, Any]]:
    """Intercepted while the block runs; not afterwards, though it had not come up in time."""
    try:
        answer = up(laptop, mode, target, namespace, *flags)
    except BaseException:
        laptop.run("meshdev", "leave", target, "-n", namespace)  # which fails where nothing of it is left
        raise
    try:
        yield answer
    finally:
        laptop.meshdev("leave", target, "-n", namespace)


def refused(laptop: Laptop, *arguments: str, timeout: float = 60) -> tuple[int, dict[str, str]]:
    """A command that must fail: its exit code and its error."""
    done = laptop.run("meshdev", *arguments, "-o", "json", timeout=timeout)
    assert done.returncode != 0, done.stdout
    error: dict[str, str] = json.loads(done.stdout)["error"]
    return done.returncode, error


def listed(laptop: Laptop, *arguments: str) -> list[dict[str, Any]]:
    """``meshdev list -o json``."""
    answer: list[dict[str, Any]] = json.loads(laptop.meshdev("list", *arguments, "-o", "json"))
    return answer


def counts(laptop: Laptop, target: str) -> dict[str, int]:
    """What the session counts for its intercept of *target*."""
    (found,) = (each for each in laptop.status()["intercepts"] if each["target"] == target)
    answer: dict[str, int] = found["counts"]
    return answer


def answers(namespace: str, url: str, headers: Headers, wanted: Sequence[str], seconds: float = 10) -> None:
    """Wait until the client is answered one of *wanted*."""
    until(f"{url} {headers} is answered by {wanted}", lambda: ask(namespace, (url, headers))[0][1] in wanted, seconds)
