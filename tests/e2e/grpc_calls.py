"""Every kind of gRPC call: ``python -m tests.e2e.grpc_calls serve NAME ADDRESS``, and ``… ask ADDRESS [KEY=VALUE]``.

``ask`` prints one line of JSON: what each kind of call gave, and which names answered. The same server gives the same
whatever is in between, so nothing in it depends on time or on who answered. Messages are bytes as they are.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc

SERVICE: Final = "protocols.Calls"
MESSAGES: Final = 50
LARGE: Final = 30 << 20
SECONDS: Final = 20.0
DEADLINE_SECONDS: Final = 0.4
#: Each side asks the other whether it is still there so often, and gives up after so long.
PING_SECONDS: Final = 0.3
#: Longer than several pings and their limit.
SILENT_SECONDS: Final = 2.0
OPTIONS: Final = (
    *(("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)),
    *(("grpc.keepalive_time_ms", int(PING_SECONDS * 1000)), ("grpc.keepalive_timeout_ms", 1000)),
    *(("grpc.keepalive_permit_without_calls", 1), ("grpc.http2.max_pings_without_data", 0)),
    *(("grpc.http2.min_ping_interval_without_data_ms", 50), ("grpc.http2.min_recv_ping_interval_without_data_ms", 50)),
)
FAILURE: Final = "it is not there: 100 % ünï"


class Calls:
    """What a server does. It keeps which calls ended before their answer."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._ended: list[str] = []
        self._news = threading.Condition()

    def handlers(self) -> grpc.GenericRpcHandler:
        kinds = {
            "Unary": grpc.unary_unary_rpc_method_handler(self._named(lambda request, _: request)),
            "Many": grpc.unary_stream_rpc_method_handler(self._named(self._many)),
            "Sum": grpc.stream_unary_rpc_method_handler(self._named(self._sum)),
            "Echo": grpc.stream_stream_rpc_method_handler(self._named(lambda requests, _: (yield from requests))),
            "Fail": grpc.unary_unary_rpc_method_handler(self._named(self._fail)),
            "Never": grpc.unary_unary_rpc_method_handler(self._named(self._never)),
            "Endless": grpc.unary_stream_rpc_method_handler(self._named(self._endless)),
            "Ended": grpc.unary_unary_rpc_method_handler(self._named(self._wait_ended)),
        }
        return grpc.method_handlers_generic_handler(SERVICE, kinds)

    def _named(self, behaviour: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def call(request: Any, context: Any) -> Any:
            context.send_initial_metadata((("name", self._name),))
            return behaviour(request, context)

        return call

    def _many(self, request: bytes, context: Any) -> Iterator[bytes]:
        context.set_trailing_metadata((("last-bin", b"\0\xff"), ("last", "a")))
        for number in range(MESSAGES):
            yield b"%s %d" % (request, number)

    def _sum(self, requests: Iterator[bytes], _: Any) -> bytes:
        return str(sum(map(len, requests))).encode()

    def _fail(self, _: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("why", "b"),))
        context.abort(grpc.StatusCode.NOT_FOUND, FAILURE)
        raise AssertionError("unreachable")

    def _never(self, request: bytes, context: Any) -> bytes:
        self._remember(request, context).wait(SECONDS)
        return b""

    def _endless(self, request: bytes, context: Any) -> Iterator[bytes]:
        ended = self._remember(request, context)
        yield b"first"
        ended.wait(SECONDS)

    def _remember(self, request: bytes, context: Any) -> threading.Event:
        """It is set at the end of the call, which is known to :meth:`_wait_ended` then."""
        event, left = threading.Event(), context.time_remaining()
        limited = left is not None and left < SECONDS / 2

        def ended() -> None:
            with self._news:
                self._ended.append(f"{request.decode()}{', whose deadline is known' if limited else ''}")
                self._news.notify_all()
            event.set()

        if not context.add_callback(ended):
            ended()
        return event

    def _wait_ended(self, request: bytes, _: Any) -> bytes:
        """Whether those calls have ended, as soon as they have."""
        wanted = request.decode()
        with self._news:
            self._news.wait_for(lambda: any(each.startswith(wanted) for each in self._ended), SECONDS / 2)
            return json.dumps([each for each in self._ended if each.startswith(wanted)]).encode()


def serve(name: str, address: str) -> None:
    """Until the end of the input."""
    server = grpc.server(ThreadPoolExecutor(32), options=OPTIONS)
    server.add_generic_rpc_handlers((Calls(name).handlers(),))
    assert server.add_insecure_port(address)
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(None).wait()


class Asking:
    """The calls of one channel, and who answered them."""

    def __init__(self, channel: grpc.Channel, metadata: tuple[tuple[str, str], ...], mark: str) -> None:
        self._channel = channel
        self._given = {"metadata": metadata, "timeout": SECONDS}
        self._mark = mark
        self.names: set[str] = set()

    def unary(self, message: bytes, method: str = "Unary", **given: Any) -> Any:
        answer, call = self._method("unary_unary", method).with_call(message, **{**self._given, **given})
        self._note(call)
        return answer

    def many(self) -> Any:
        call = self._method("unary_stream", "Many")(b"m", **self._given)
        found = [each.decode() for each in call]
        self._note(call)
        return found, sorted((key, str(value)) for key, value in call.trailing_metadata())

    def sum(self) -> Any:
        answer, call = self._method("stream_unary", "Sum").with_call(iter([b"x" * 10_000] * MESSAGES), **self._given)
        self._note(call)
        return answer.decode()

    def echo(self) -> Any:
        """Each message is sent only when the one before has come back."""
        came = threading.Semaphore(1)

        def messages() -> Iterator[bytes]:
            for number in range(MESSAGES):
                assert came.acquire(timeout=SECONDS)
                yield b"%d" % number

        call, found = self._method("stream_stream", "Echo")(messages(), **self._given), []
        for each in call:
            found.append(each.decode())
            came.release()
        self._note(call)
        return found

    def silent(self) -> Any:
        """A stream on which nothing is said but pings, then a word each way."""
        go = threading.Event()

        def messages() -> Iterator[bytes]:
            yield b"before"
            go.wait(SECONDS)
            yield b"after"

        call = self._method("stream_stream", "Echo")(messages(), **self._given)
        before = next(call)
        time.sleep(SILENT_SECONDS)  # this is what is tried: that nothing ends meanwhile
        go.set()
        return [before.decode(), *(each.decode() for each in call)]

    def large(self) -> Any:
        message = bytes(range(256)) * (LARGE >> 8)
        return self.unary(message) == message

    def fails(self) -> Any:
        try:
            return self.unary(b"", "Fail").decode()
        except grpc.RpcError as error:
            trailing = sorted((key, str(value)) for key, value in error.trailing_metadata())
            return error.code().name, error.details(), trailing

    def deadline(self) -> Any:
        started = time.monotonic()
        try:
            self.unary(f"deadline {self._mark}".encode(), "Never", timeout=DEADLINE_SECONDS)
        except grpc.RpcError as error:
            in_time = DEADLINE_SECONDS <= time.monotonic() - started + 0.05 < DEADLINE_SECONDS + 2
            return error.code().name, in_time, self._ended(f"deadline {self._mark}")
        return "it was answered"

    def cancelled(self) -> Any:
        call = self._method("unary_stream", "Endless")(f"cancelled {self._mark}".encode(), **self._given)
        first = next(call).decode()
        call.cancel()
        return first, call.code().name, self._ended(f"cancelled {self._mark}")

    def _ended(self, wanted: str) -> list[str]:
        return [each.replace(self._mark, "") for each in json.loads(self.unary(wanted.encode(), "Ended"))]

    def _method(self, kind: str, name: str) -> Any:
        return getattr(self._channel, kind)(f"/{SERVICE}/{name}")

    def _note(self, call: Any) -> None:
        self.names |= {value for key, value in call.initial_metadata() if key == "name"}


def ask(address: str, *metadata: str) -> dict[str, Any]:
    """All kinds of calls, on one channel."""
    pairs = tuple((key, value) for key, _, value in (word.partition("=") for word in metadata))
    with grpc.insecure_channel(address, options=OPTIONS) as channel:
        calls = Asking(channel, pairs, str(time.monotonic_ns()))
        found = {
            "unary": calls.unary(b"\0\xffhello").hex(),
            "server stream": calls.many(),
            "client stream": calls.sum(),
            "both stream": calls.echo(),
            "30 MB": calls.large(),
            "pings": calls.silent(),
            "status": calls.fails(),
            "deadline": calls.deadline(),
            "cancelled": calls.cancelled(),
            "unary again": calls.unary(b"again").decode(),
        }
        return {"names": sorted(calls.names), "found": found}


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "serve":
        serve(*arguments)
    else:
        print(json.dumps(ask(*arguments)))
