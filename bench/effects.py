"""How long it takes until something that changed takes effect, as a client sees it that asks every pod all the time.

A local program counts from the moment in which its port is opened or about to be closed. A match that is added counts
from the moment in which its Lease is seen, since the manager is told right after that was made; one that is withdrawn
from the moment in which the session is told. It ends with the first right answer after the last wrong one of the pod
that was last.
"""

import random
import select
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from queue import Queue
from typing import Final, Literal

from bench import target
from bench.client import Asking, asked, effect, now, wrong
from bench.figures import Figure
from bench.target import INTERCEPTED, LOCAL, NAMESPACE, ORIGINAL, PORT_FLAG
from bench.ways import meshdev
from meshdev.cli.attach import LEAVE_SECONDS, Stream
from meshdev.state import Paths
from meshdev.wire.modes import MESH
from meshdev.wire.session_intercepts import InterceptRequest
from tests.cluster.sample.app import App
from tests.cluster.sample.http1 import Server
from tests.cluster.sample.listeners import Listener

_PAUSE_SECONDS: Final = 0.004
#: Between two changes, and so much more by chance: nothing shall be in step with what looks at it.
_APART_SECONDS: Final = 0.35
_CHANCE_SECONDS: Final = 0.1
_UP_SECONDS: Final = 20.0

#: A connection that the kernel has taken and the program has not, when it closes its port, is reset: so it is with
#: every server that stops, and nobody knows whether the request was read. Such failures are told apart.
_CAUGHT: Final = "failed of those under way when it went down"

#: (when, until when, who answers then)
Change = tuple[float, float, str]


class LocalProgram:
    """B': the sample, in this process, so that the moment in which its port opens and closes is known."""

    def __init__(self) -> None:
        self._server = Server(App(LOCAL))
        self._listener: Listener | None = None
        self.start()

    def start(self) -> None:
        """It listens when this returns."""
        self._listener = Listener(INTERCEPTED, self._server.serve)

    def stop(self) -> None:
        """It refuses when this returns; what it has taken is answered."""
        if self._listener is not None:
            self._listener.stop_accepting()
            self._listener = None


def of_local_program(workload: str, program: LocalProgram, times: int) -> dict[str, Figure]:
    """It goes down and comes up that many times."""
    flags = ("-n", NAMESPACE, "-H", "a=1", "--port", PORT_FLAG, "--detach")
    meshdev("mesh", f"deployment/{workload}", *flags)
    addresses = [(pod.address, INTERCEPTED) for pod in target.pods(workload)]
    with asked(addresses, (("a", "1"),), keep=True, pause=_PAUSE_SECONDS) as asking:
        asking.wait(LOCAL, now())
        moments: list[tuple[float, str]] = []
        for _ in range(times):
            moments.append((now(), ORIGINAL))
            program.stop()
            _some_time()
            program.start()
            moments.append((now(), LOCAL))
            _some_time()
        end = now()
    meshdev("leave", f"deployment/{workload}", "-n", NAMESPACE)
    changes = _changes(moments, end)
    ends = [since for since, _, wanted in changes if wanted == ORIGINAL]
    caught = [row for row in asking.rows if any(row.start < moment < row.end for moment in ends)]
    return {
        "local program down, ms": _figure(asking, changes, ORIGINAL),
        "local program up, ms": _figure(asking, changes, LOCAL),
        _CAUGHT: Figure([wrong(caught).total()], len(caught)),
    }


def of_matches(workload: str, times: int) -> dict[str, Figure]:
    """A second match comes and goes that many times."""
    flags = ("-n", NAMESPACE, "-H", "a=1", "--port", PORT_FLAG, "--detach")
    meshdev("mesh", f"deployment/{workload}", *flags)
    addresses = [(pod.address, INTERCEPTED) for pod in target.pods(workload)]
    request = InterceptRequest(
        target=f"deployment/{workload}",
        namespace=NAMESPACE,
        mode=MESH,
        headers=("x=2",),
        ports=(PORT_FLAG,),
    )
    took: list[float] = []
    with asked(addresses, (("x", "2"),), keep=True, pause=_PAUSE_SECONDS) as asking, _leases() as made:
        asking.wait(ORIGINAL, now())
        moments: list[tuple[float, str]] = []
        for _ in range(times):
            since = now()
            stream = Stream(Paths.locate(), request)
            _read_until("up", stream, _UP_SECONDS)
            took.append(now() - since)
            moments.append((made.get(timeout=_UP_SECONDS), LOCAL))
            _some_time()
            moments.append((now(), ORIGINAL))
            stream.leave()
            _read_until("over", stream, LEAVE_SECONDS)
            stream.close()
            _some_time()
        end = now()
    meshdev("leave", f"deployment/{workload}", "-n", NAMESPACE)
    changes = _changes(moments, end)
    return {
        "match added, ms": _figure(asking, changes, LOCAL),
        "match withdrawn, ms": _figure(asking, changes, ORIGINAL),
        "match added, all of it, s": Figure(took),
    }


def _some_time() -> None:
    time.sleep(_APART_SECONDS + random.random() * _CHANCE_SECONDS)  # noqa: S311 -- no secret


def _changes(moments: Sequence[tuple[float, str]], end: float) -> list[Change]:
    ends = [*(moment for moment, _ in moments[1:]), end]
    return [(since, until, wanted) for (since, wanted), until in zip(moments, ends, strict=True)]


def _figure(asking: Asking, changes: Sequence[Change], wanted: str) -> Figure:
    """The slowest pod of each change to *wanted*. One without an effect counts with all the time it had, and as wrong.

    Requests that meet the next change are told there.
    """
    figure = Figure()
    for since, until, now_wanted in changes:
        if now_wanted != wanted:
            continue
        taken = [effect(asking.rows, to, since, until, wanted) for to in range(asking.addresses)]
        figure.values.append(max((until - since if each is None else each) * 1e3 for each in taken))
        rows = [row for row in asking.rows if since <= row.start and row.end < until]
        figure.requests += len(rows)
        figure.wrong += wrong(rows)
        for to, seconds in enumerate(taken):
            if seconds is None:
                answers = Counter(row.said[:40] for row in rows if row.to == to)
                figure.wrong[f"no effect, answers were {dict(answers)}"] += 1
    return figure


def _read_until(state: Literal["up", "over"], stream: Stream, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not (stream.over or (state == "up" and stream.status is not None)):
        if stream.error is not None:
            raise stream.error
        ready, _, _ = select.select([stream], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError("the session did not answer")
        stream.read()


@contextmanager
def _leases() -> Iterator[Queue[float]]:
    """When a Lease was seen to be made, for each that was."""
    words = '{.type}{"\\n"}'
    command = ("kubectl", "-n", NAMESPACE, "get", "leases", "--watch-only", "--output-watch-events", "-o")
    made: Queue[float] = Queue()
    with subprocess.Popen((*command, f"jsonpath={words}"), stdout=subprocess.PIPE, text=True) as process:
        reader = threading.Thread(target=_note_leases, args=(process.stdout or (), made), daemon=True)
        reader.start()
        time.sleep(1.0)  # kubectl does not tell when it begins to watch
        try:
            yield made
        finally:
            process.terminate()
            reader.join(5)


def _note_leases(lines: Iterable[str], made: Queue[float]) -> None:
    for line in lines:
        if line.strip() == "ADDED":
            made.put(now())
