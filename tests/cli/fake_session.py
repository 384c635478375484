"""A session that only speaks: the real protocol on the real descriptors, driven by the plan in $FAKE_SESSION.

It writes what happens to it, a word a line, to ``trace`` in the connection's folder. Where the plan says ``hold``, it
stays at that word until the test says ``go`` (a file in that folder), or until somebody ends it.

Intercepts are states of a few words, too: they come up after a step, and the files ``count``, ``lose`` and ``end`` in
that folder make them tell a count, fail, or go as after somebody else's ``leave``.
"""

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from meshdev.errors import Cancelled, InterceptError, ManagerError, MeshdevError, SudoError
from meshdev.state import Paths
from meshdev.wire.access import AccessRecord
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.session_api import (
    ConnectOptions,
    DisconnectRequest,
    Done,
    Event,
    Failed,
    Status,
    Step,
    Wait,
    encode_answer,
    encode_event,
    encode_request,
    parse_request,
)
from meshdev.wire.session_dashboard import DashboardRequest
from meshdev.wire.session_inspect import InspectedRequest, InspectRequest, Requests
from meshdev.wire.session_intercepts import (
    InterceptRequest,
    InterceptStatus,
    LeaveRequest,
    Left,
    Live,
    LocalPort,
    Up,
)
from tests.cli import fake_dashboard

INSPECTED = InspectedRequest(
    "default",
    "deployment/b",
    "b-1",
    AccessRecord(
        time=1_795_000_000_123_456,
        source=IPv4Address("10.244.0.7"),
        port=8080,
        protocol="HTTP/1.1",
        served_by="original",
        duration=3_400,
        method="GET",
        authority="b",
        path="/api?token=***",
        status=200,
        response_bytes=12,
        reason="a=2, not a=1",
    ),
    "deployment/a",
)


@dataclass
class Plan:
    """What to do, when, and what to do wrong."""

    steps: int = 2
    step_seconds: float = 0.05
    step_before_helper: bool = True
    fail_after: int = -1
    crash_after: int = -1
    undo_seconds: float = 0.1
    deaf: bool = False
    done_when_cancelled: bool = False
    start_seconds: float = 0.0
    #: A word of the trace: ``start`` (before it listens or reads), ``options``, ``step0`` …
    hold: str = ""
    #: It fails only when another command waits for it.
    fail_heard: bool = False
    status: dict[str, Any] = field(default_factory=dict)
    #: Intercepts of this target are refused.
    refuse: str = ""
    #: Intercepts stop before they are up, at the trace ``asked``, until the test says ``go``.
    hold_intercepts: bool = False
    #: What leaving takes; a negative time is for ever.
    leave_seconds: float = 0.05
    leave_fails: bool = False


@dataclass
class Intercept:
    """One stream."""

    client: socket.socket
    request: InterceptRequest
    state: InterceptStatus | None = None

    def say(self, event: Event) -> None:
        with contextlib.suppress(OSError):  # it may have been killed
            self.client.sendall(encode_event(event))


def hung_up(client: socket.socket) -> bool:
    if not select.select([client], [], [], 0)[0]:
        return False
    with contextlib.suppress(ConnectionResetError):  # a client that left something unread (unix(7))
        return not client.recv(4096)
    return True


class FakeSession:
    """One run."""

    def __init__(self, folder: Path, progress: int, helper: int) -> None:
        self.paths = Paths(folder)
        self.plan = Plan(**json.loads(os.environ.get("FAKE_SESSION", "{}")))
        self.progress = socket.socket(fileno=progress)
        self.helper = socket.socket(fileno=helper)
        self.listener = socket.socket(socket.AF_UNIX)
        self.options = ConnectOptions()
        self.state = "connecting"
        self.greeted = False
        self.waiting: list[socket.socket] = []
        self.intercepts: list[Intercept] = []
        self.detached: list[InterceptStatus] = []
        self.mute: list[socket.socket] = []
        self.looking: list[socket.socket] = []

    def trace(self, word: str) -> None:
        with (self.paths.directory / "trace").open("a") as file:
            file.write(word + "\n")

    def run(self) -> None:
        self.trace(f"start {os.getpid()}")
        if self.plan.hold == "start":
            self.until_hung_up()
        time.sleep(self.plan.start_seconds)
        self.paths.socket.unlink(missing_ok=True)
        self.listener.bind(str(self.paths.socket))
        self.listener.listen()
        line = self.progress.makefile("rb").readline()
        if not line:
            self.undo("cancelled")
        self.options = ConnectOptions.parse(line)
        self.trace(f"options {line.decode().strip()}")
        self.hold("options")
        for number in range(self.plan.steps):
            if number or not self.plan.step_before_helper:
                self.wait(lambda: self.greeted)
            self.pause(self.plan.step_seconds)
            if number == self.plan.crash_after:
                sys.exit(3)
            if number == self.plan.fail_after:
                self.wait(lambda: self.waiting or not self.plan.fail_heard)
                self.fail(Failed.of(ManagerError("the pod does not start: CrashLoopBackOff", hint="look at its log")))
            self.tell(Step(f"step{number}", f"value {number}", 0.05))
            self.tell(Wait("for the next"))
            self.trace(f"step{number}")
            self.hold(f"step{number}")
        self.wait(lambda: self.greeted)
        self.connected()
        self.wait(lambda: False)

    def connected(self) -> None:
        self.state = "connected"
        self.tell(Done(self.status()))
        for client in self.waiting:
            client.sendall(encode_answer(self.status()))
            client.close()

    def status(self) -> Status:
        values: dict[str, Any] = {
            "context": self.options.context or "dev",
            "namespace": self.options.namespace or "default",
        }
        values["intercepts"] = (*self.detached, *(one.state for one in self.intercepts if one.state))
        return Status(**{"state": self.state, **values, "session_pid": os.getpid(), **self.plan.status})

    def tell(self, event: Event) -> None:
        self.progress.sendall(encode_event(event), socket.MSG_NOSIGNAL)

    def pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() >= end)

    def hold(self, word: str) -> None:
        if self.plan.hold == word:
            self.wait((self.paths.directory / "go").exists)

    def until_hung_up(self) -> None:
        poll = select.poll()
        poll.register(self.progress, select.POLLRDHUP)
        assert poll.poll(10_000)

    def wait(self, until: Any) -> None:
        """Serve everybody until it is so."""
        while not until():
            sockets = [self.listener, self.helper, *([] if self.state == "connected" else [self.progress])]
            self.look_after_intercepts()
            self.look_after_those_who_look()
            for ready in select.select(sockets, [], [], 0.02)[0]:
                if ready is self.listener:
                    self.serve(self.listener.accept()[0])
                elif ready is self.helper:
                    self.hear_helper()
                elif not ready.recv(4096):
                    self.on_cancel()

    def on_cancel(self) -> None:
        if self.plan.deaf:
            self.trace("deaf")
            time.sleep(60)
        if self.plan.done_when_cancelled:
            self.connected()
        else:
            self.undo("cancelled")

    def hear_helper(self) -> None:
        data = self.helper.recv(65536)
        if not data and self.greeted:
            self.undo("helper gone")
        elif not data and select.select([self.progress], [], [], 0)[0]:
            self.on_cancel()  # whoever cancels ends the helper too, after the word to us
        elif not data:
            self.fail(Failed.of(SudoError("the helper ended before it said anything")))
        elif b'"error"' in data:
            self.fail(Failed(**json.loads(data)["error"], exit_code=51))
        else:
            self.greeted = True

    def serve(self, client: socket.socket) -> None:
        request = parse_request(client.recv(1 << 20))
        if isinstance(request, InterceptRequest):
            self.intercept(Intercept(client, request))
            return
        if isinstance(request, LeaveRequest):
            client.sendall(encode_answer(self.leave(request)))
            client.close()
            return
        if isinstance(request, DisconnectRequest):
            self.trace("disconnect")
            for one in list(self.intercepts):
                self.end(one, Failed.of(Cancelled("disconnected")))
            self.undo_only()
            client.sendall(encode_answer(None))
            sys.exit(0)
        if isinstance(request, InspectRequest):
            self.inspect(client, request)
            return
        if isinstance(request, DashboardRequest):
            fake_dashboard.serve(client, request, self.trace, self.said)
            return
        if request.settled and self.state == "connecting":
            self.waiting.append(client)
            return
        client.sendall(encode_answer(self.status()))
        client.close()

    def inspect(self, client: socket.socket, request: InspectRequest) -> None:
        """One request, and the end of the stream; or, of one that follows, until its client is gone."""
        self.trace(f"asked {json.dumps(json.loads(encode_request(request)))}")
        claimed = replace(INSPECTED, record=replace(INSPECTED.record, intercept="0" * 32, path="/mine"))
        found = (INSPECTED, claimed) if request.last else (INSPECTED,)
        with contextlib.suppress(BrokenPipeError):  # the command was interrupted meanwhile
            client.sendall(encode_event(Requests(found, 2)))
        if request.follow:
            self.looking.append(client)
        else:
            client.sendall(encode_event(Left()))
            client.close()

    def look_after_those_who_look(self) -> None:
        for client in list(self.looking):
            if hung_up(client):
                self.looking.remove(client)
                client.close()
                self.trace("nobody looks any more")

    # -- intercepts ------------------------------------------------------------------------------------------------

    def intercept(self, one: Intercept) -> None:
        self.trace(f"asked {json.dumps(json.loads(encode_request(one.request)))}")
        self.intercepts.append(one)
        if one.request.target == self.plan.refuse:
            self.end(one, Failed.of(InterceptError("jane@host has it since 5 min: a=1", hint="--takeover")))
        else:
            one.say(Step("target", f"{one.request.target}, 2 pods", 0.01))

    def look_after_intercepts(self) -> None:
        for one in list(self.intercepts):
            if not self.plan.hold_intercepts or self.said("go"):
                self.bring_up(one)
            if one in self.intercepts and hung_up(one.client):
                self.trace("hung up")
                time.sleep(max(self.plan.leave_seconds, 0))
                if self.plan.leave_seconds < 0:
                    self.intercepts.remove(one)
                    self.mute.append(one.client)
                elif self.plan.leave_fails:
                    self.end(one, Failed.of(MeshdevError("the Lease is still there")))
                else:
                    self.end(one, Left() if one.state else Failed.of(Cancelled("cancelled")))
            elif one.state and self.said("lose"):
                self.end(one, Failed.of(InterceptError("taken over by jane@host")))
            elif one.state and self.said("end"):
                self.end(one, Left())
            elif one.state and self.said("count") and not one.state.counts.matched:
                one.state = replace(one.state, counts=InterceptCounts(matched=3), notes=("1 older connection",))
                one.say(Live(one.state))

    def bring_up(self, one: Intercept) -> None:
        if one.state:
            return
        kind, _, name = one.request.target.partition("/")
        mesh = one.request.mode.needs_match
        one.state = InterceptStatus(
            id="0" * 32,
            target=f"{'deployment' if kind in ('deploy', 'svc') else kind}/{name}",
            namespace=one.request.namespace or "default",
            mode=one.request.mode,
            match=", ".join(one.request.headers) if mesh else "all traffic",
            ports=("8080:80/http",),
            strategy="ephemeral",
            state="active",
            fallback=one.request.fallback,
            detached=one.request.detach,
            acked=2,
            total=2,
            counts=InterceptCounts(),
            local=(LocalPort(8080, "tcp", up=False),),
            notes=(),
            age_s=0.5,
            url=f"http://{name}.{one.request.namespace or 'default'}/",
        )
        self.trace("up")
        one.say(Up(one.state))
        if one.request.detach:
            self.intercepts.remove(one)
            self.detached.append(one.state)
            one.client.close()

    def end(self, one: Intercept, event: Event) -> None:
        self.trace(f"ended {one.request.target}")
        self.intercepts.remove(one)
        one.say(event)
        one.client.close()

    def leave(self, request: LeaveRequest) -> tuple[str, ...]:
        self.trace(f"leave {request.target}")
        left, self.detached = self.detached, []
        return tuple(f"{each.target} in namespace {each.namespace}" for each in left)

    def said(self, word: str) -> bool:
        return (self.paths.directory / word).exists()

    # -- the end ---------------------------------------------------------------------------------------------------

    def fail(self, failed: Failed) -> None:
        self.undo_only()
        self.tell(failed)
        sys.exit(1)

    def undo(self, why: str) -> None:
        self.trace(why)
        self.undo_only()
        sys.exit(0)

    def undo_only(self) -> None:
        time.sleep(self.plan.undo_seconds)
        self.trace("undone")


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--progress", "--helper", "--lock"):
        parser.add_argument(flag, type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    os.set_inheritable(given.lock, False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    FakeSession(given.folder, given.progress, given.helper).run()


if __name__ == "__main__":
    main()
