"""No value of a credential is seen anywhere: in no output of a command, no log, metric or span, and not on the page."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from meshdev.config import METRICS_PORT
from tests.cluster.manifests import HTTP, App
from tests.e2e import workloads
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.credentials import Credential, credentials
from tests.e2e.intercepting import LocalProgram, in_pod, local
from tests.e2e.terminal import TerminalCommand, on_terminal
from tests.e2e.test_dashboard import Dashboard, Page
from tests.e2e.test_inspect import Inspect, inspecting
from tests.e2e.workloads import GRPC

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

NAMESPACE: Final = "secrets"
TARGET: Final = "deployment/b"
PORT: Final = 19193
OTLP_PORT: Final = 19194
#: What is claimed: a header that is no credential, and one that is, whose value its holder has typed.
CLAIM: Final = {"a": "1", "x-claimed-token": "typed-by-the-holder"}
APP: Final = App("b", ("--name=b", "--port=8080", f"--grpc-port={GRPC.container}"), (HTTP, GRPC), 1)
KINDS: Final = credentials("X-Claimed-Token")
BEGIN: Final = Credential("begin", ())
_OTLP: Final = ("--otlp", f"http://127.0.0.1:{OTLP_PORT}", "--otlp-logs")
#: Of the answers of the local program.
ANSWERED: Final = Credential("answered", ("0123456789abcdef-answered-secret",))

Json = dict[str, Any]

#: Asks for [HTTP/2?, target, headers], and does not care for the answers. So slowly that all of it is seen for a moment
#: where only the last few requests are.
_ASK: Final = """
import contextlib, grpc, json, socket, sys, time
channel = grpc.insecure_channel(f"b:{sys.argv[2]}")
for http2, target, headers in json.loads(sys.argv[1]):
    time.sleep(0.04)
    if http2:
        metadata = [(name.lower(), value) for name, value in headers.items()]
        with contextlib.suppress(grpc.RpcError):
            channel.unary_unary(target)(b"", metadata=metadata, timeout=8)
        continue
    lines = "".join(f"{name}: {value}\\r\\n" for name, value in headers.items())
    with socket.create_connection(("b", 80), 8) as connection:
        connection.sendall(f"GET {target} HTTP/1.1\\r\\nHost: b\\r\\nConnection: close\\r\\n{lines}\\r\\n".encode())
        while connection.recv(65536):
            pass
"""

#: A local program whose answers have credentials.
_ANSWER: Final = f"""
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(302)
        for name, value in (("Set-Cookie", "session={{}}"), ("Location", "/?token={{}}"), ("X-Auth-Token", "{{}}")):
            self.send_header(name, value.format({ANSWERED.parts[0]!r}))
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("", 8080), Handler)
print("it: ready", flush=True)
server.serve_forever()
"""

#: Receives spans and logs (OTLP/HTTP), and keeps them as they came: texts in protobuf are readable.
_RECEIVE: Final = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open({folder!r} + self.path.replace("/", "-"), "ab") as file:
            file.write(str(self.headers).encode() + body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", {port}), Handler)
print("it: ready", flush=True)
server.serve_forever()
"""

#: What tells requests from each other.
_FIRST: Final = re.compile(r"/?[a-z0-9_-]*")
_WHOLE_LOG: Final = "from meshdev.state import Paths; print(Paths.locate().log.read_text(errors='replace'))"


def requests(kinds: Sequence[Credential]) -> Iterator[tuple[bool, str, dict[str, str]]]:
    """Each claimed and unclaimed, by HTTP/1 and HTTP/2."""
    for kind in kinds:
        for http2 in (False, True) if kind.http2 else (False,):
            for claim in ({}, CLAIM) if kind.claimed else ({},):
                target = f"http://{kind.authority}{kind.path}" if kind.authority else f"{kind.path}{kind.target}"
                yield http2, target, {**kind.headers, **claim}


def ask(*kinds: Credential) -> None:
    in_pod(NAMESPACE, _ASK, json.dumps(list(requests(kinds))), str(GRPC.container))


def logs() -> Iterator[tuple[str, str]]:
    """Of the manager's containers, and of the sidecar."""
    for pod in json.loads(kubectl("-n", NAMESPACE, "get", "pods", "-o", "json"))["items"]:
        name, spec = pod["metadata"]["name"], pod["spec"]
        ours = spec.get("ephemeralContainers", [])
        if pod["metadata"].get("labels", {}).get("app.kubernetes.io/name") == "meshdev-traffic-manager":
            ours = spec["containers"]
        for container in ours:
            log = kubectl("-n", NAMESPACE, "logs", name, "-c", container["name"])
            yield f"log of {name} {container['name']}", log


def metrics(laptop: Laptop) -> Iterator[tuple[str, str]]:
    """Of both endpoints."""
    curl = ("curl", "-sS", "--fail", "--max-time", "8")
    address = kubectl(
        "-n", NAMESPACE, "get", "pod", laptop.status()["manager"]["pod"], "-o", "jsonpath={.status.podIP}"
    )
    yield "metrics of the manager", laptop.ok(*curl, f"http://{address}:{METRICS_PORT}/metrics")
    yield "metrics of the session", laptop.ok(*curl, f"http://127.0.0.1:{PORT}/metrics")


def commands(laptop: Laptop) -> Iterator[tuple[str, str]]:
    """What commands print that end by themselves."""
    for words in (("status",), ("list",), ("inspect",), ("inspect", "--all")):
        for output in ("text", "json"):
            yield f"{words} as {output}", laptop.meshdev(*words, "-o", output)


def reported(found: Iterable[Json]) -> set[tuple[str, bool, bool]]:
    """Path, whether it was HTTP/2, and whether it was claimed."""
    return {
        (_FIRST.match(each["path"])[0], each["protocol"] == "gRPC", each["intercept"] is not None)  # type: ignore[index]  # it always matches
        for each in list(found)
    }


def expected(kinds: Sequence[Credential]) -> set[tuple[str, bool, bool]]:
    return {
        (kind.path, http2, claimed)
        for kind in kinds
        for http2 in ((False, True) if kind.http2 else (False,))
        for claimed in ((False, True) if kind.claimed else (False,))
    }


class ShownPage(Page):
    """What the dashboard's page is sent."""

    @property
    def shown(self) -> list[Json]:
        return [each for _, each in list(self.requests)]


@contextmanager
def page(laptop: Laptop) -> Iterator[ShownPage]:
    served = Dashboard(laptop)
    try:
        with closing(ShownPage(served)) as browser:
            yield browser
    finally:
        assert served.stop() == 0


@contextmanager
def claimed(laptop: Laptop) -> Iterator[TerminalCommand]:
    """An intercept whose command stays on a terminal, and whose programs answer with credentials."""
    conditions = [word for name, value in CLAIM.items() for word in ("-H", f"{name}={value}")]
    with (
        workloads.namespace(NAMESPACE, *workloads.of(APP, NAMESPACE)),
        laptop.connected("-n", NAMESPACE, "--metrics-port", str(PORT), *_OTLP),
        local(laptop, f"--grpc-port={GRPC.container}", "--port=8081"),
        ExitStack() as stack,
    ):
        stack.callback(LocalProgram(laptop, program=_ANSWER).stop)
        with on_terminal(laptop, "meshdev", "mesh", TARGET, *conditions) as attached:
            until("it is up", lambda: "Ctrl-C ends it" in attached.seen, 60)
            yield attached


@contextmanager
def receiving(laptop: Laptop, folder: Path) -> Iterator[Callable[[], dict[str, str]]]:
    """What was sent by OTLP, by its path, as text."""
    program = LocalProgram(laptop, program=_RECEIVE.format(folder=f"{folder}/otlp", port=OTLP_PORT))
    try:
        yield lambda: {each.name: each.read_bytes().decode("latin-1") for each in folder.glob("otlp-*")}
    finally:
        program.stop()


def all_outputs(laptop: Laptop, folder: Path) -> tuple[dict[str, str], Inspect]:
    """What there is to see anywhere of requests with :data:`KINDS`, and what --show-secrets shows.

    Whatever else tells of requests belongs here.
    """
    outputs: dict[str, str] = {}
    own = claimable(KINDS)
    watching = ("inspect", "--all", "--follow")
    with (
        claimed(laptop) as attached,
        on_terminal(laptop, "meshdev", *watching) as table,
        inspecting(laptop, *watching[1:]) as found,
        inspecting(laptop, *watching[1:], "--show-secrets") as shown,
        page(laptop) as browser,
        receiving(laptop, folder) as sent,
    ):
        lines = laptop.start("meshdev", *watching)

        def are_reported(*kinds: Credential) -> bool:
            everywhere = all(reported(each) >= expected(kinds) for each in (found.found, shown.found, browser.shown))
            return everywhere and missing(table.seen, kinds) == missing(attached.seen, claimable(kinds)) == []

        def begun() -> bool:
            ask(BEGIN)
            return are_reported(BEGIN)

        until("requests are reported", begun, 30)
        ask(*KINDS)
        until("all are reported", lambda: are_reported(*KINDS), 20)
        until("all are sent", lambda: len(sent()) == 2 and not any(missing(text, own) for text in sent().values()), 20)
        outputs |= sent()
        outputs |= dict(commands(laptop)) | dict(metrics(laptop)) | dict(logs())
        lines.terminate()
        assert lines.stdout is not None
        outputs |= {"lines of inspect": lines.stdout.read(), "inspect as JSON": json.dumps(found.found)}
        outputs |= {"requests on the page": json.dumps(browser.requests), "the page": json.dumps(browser.newest)}
        outputs["log of the session"] = laptop.ok("python", "-c", _WHOLE_LOG)
    return outputs | {"table": table.seen, "attached": attached.seen}, shown


def claimable(kinds: Sequence[Credential]) -> list[Credential]:
    return [kind for kind in kinds if kind.claimed]


def missing(text: str, kinds: Sequence[Credential]) -> list[str]:
    """Requests of which the text says nothing."""
    return [kind.path for kind in kinds if kind.path not in text]


@pytest.mark.usefixtures("cluster")
def test_no_credential_is_seen_anywhere(laptop: Laptop, tmp_path: Path) -> None:
    assert len(KINDS) >= 20
    outputs, shown = all_outputs(laptop, tmp_path)
    seen = {
        (where, kind.name): parts
        for where, text in outputs.items()
        for kind in (*KINDS, ANSWERED)
        if (parts := kind.seen_in(text))
    }
    assert seen == {}
    for name in ("table", "lines of inspect", "inspect as JSON"):
        assert missing(outputs[name], KINDS) == [], name
    assert missing(outputs["attached"], claimable(KINDS)) == []
    assert sum(name.startswith("log of ") for name in outputs) == 5, "of tunnel, control, relay, a sidecar, the session"
    assert all(outputs.values()), [name for name, text in outputs.items() if not text]
    _would_have_been_noticed(shown)
    asked_for = [each for each in json.loads(outputs["inspect as JSON"]) if "claimed-token" in each["path"]]
    assert {(each["protocol"], each["reason"]) for each in asked_for} == {
        ("HTTP/1.1", "no header a; x-claimed-token=***, not the claimed one"),
        ("gRPC", "no header a"),  # Envoy notes no credentials
    }


def _would_have_been_noticed(shown: Inspect) -> None:
    """With --show-secrets those in targets of one's own requests are there, and no other."""
    own = json.dumps([each for each in shown.found if each["intercept"] is not None])
    others = json.dumps([each for each in shown.found if each["intercept"] is None])
    in_targets = [kind for kind in KINDS if kind.in_target and not kind.authority]
    assert [kind.name for kind in in_targets if not kind.seen_in(own)] == []
    assert [kind.name for kind in (*KINDS, ANSWERED) if kind.seen_in(others)] == []
    assert [kind.name for kind in (*KINDS, ANSWERED) if not kind.in_target and kind.seen_in(own)] == []
