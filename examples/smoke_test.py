#!/usr/bin/env python3
"""A smoke test of one service among its real neighbours. Standard library only: copy it and change what it expects.

Services a, b and c call each other in this order. The b of this checkout is started here, on port 8080; requests of
this run reach it in the cluster, everybody else's do not. ``meshdev run`` does that part, and undoes it:

    run=ci-$RANDOM
    meshdev run --mesh deployment/b --baggage run=$run --port 8080:http --no-fallback -- \\
        python3 examples/smoke_test.py $run -- python3 -m tests.cluster.sample --name new-b --next http://c/ --port 8080

What follows the second ``--`` starts the service under test. Exit code 0: all checks passed; 1: one failed.
"""

import argparse
import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

ENTRY = "http://a/"
PORT = 8080
START_SECONDS = 20.0
ANSWER_SECONDS = 10.0
#: The cluster learns within a fraction of a second that the service listens; the first question may be quicker.
SETTLE_SECONDS = 5.0


class Failed(Exception):  # noqa: N818 -- what a test does
    """One of the checks."""


def main() -> int:
    """Start the service, check, stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="the value of the baggage member `run` whose requests reach the service")
    parser.add_argument("service", nargs="+", metavar="-- SERVICE", help="the command that starts the service")
    options = parser.parse_args()
    try:
        with started(options.service):
            check(options.run)
    except Failed as failed:
        print(f"FAILED: {failed}", file=sys.stderr)
        return 1
    print("passed")
    return 0


def check(run: str) -> None:
    """The whole chain, with the service in its middle; and that nobody else is disturbed."""
    expect("a request of this run", {"baggage": f"run={run}"}, "service-a>new-b>service-c")
    expect("everybody else's request", {}, "service-a>service-b>service-c")


def expect(what: str, headers: dict[str, str], expected: str) -> None:
    """Ask until that is the answer. Raises Failed."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (answer := ask(ENTRY, headers)) != expected:
        if time.monotonic() > deadline:
            raise Failed(f"{what} is answered {answer!r}, not {expected!r}")
        time.sleep(0.1)
    print(f"ok: {what}: {answer}")


def ask(url: str, headers: dict[str, str]) -> str:
    """The body of the answer. Raises Failed."""
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 -- ENTRY, and nobody else's
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:  # noqa: S310 -- the same
            return str(answer.read().decode())
    except OSError as error:  # urllib's own errors are of this kind
        raise Failed(f"{url}: {error}") from error


@contextmanager
def started(command: Sequence[str]) -> Iterator[None]:
    """The service listens inside; it is stopped at the end. Raises Failed where it does not come up."""
    try:
        service = subprocess.Popen(command)
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror}") from error
    try:
        wait_until_it_listens(service)
        yield
    finally:
        service.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.wait(ANSWER_SECONDS)
        service.kill()
        service.wait()


def wait_until_it_listens(service: subprocess.Popen[bytes]) -> None:
    """Raises Failed."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        if (code := service.poll()) is not None:
            raise Failed(f"the service ended with {code} before it listened on port {PORT}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", PORT), 1):
            return
        if time.monotonic() > deadline:
            raise Failed(f"nothing listens on port {PORT} after {START_SECONDS:.0f} s")
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
