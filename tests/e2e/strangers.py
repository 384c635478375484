"""Peers that mean harm, or do not know better: at the manager's tunnel, and at the port where sidecars come.

They run in the manager's own pod, where its code is, as somebody with a port-forward could.
"""

import json
import re
import subprocess
import sys
from typing import Any, Final

from meshdev.config import MANAGER_NAME, RELAY_PORTS
from tests.e2e import pods
from tests.e2e.conftest import CHECKOUT

#: A session of its own; ``say(frame)`` and ``hear(seconds)``.
TUNNEL: Final = """
import atexit, contextlib, json, random, secrets, socket, struct, sys, time
from meshdev.config import ADDRESS_POOLS, OLDEST_PROTOCOL, PROTOCOL, TUNNEL_PORT
from meshdev.identity.fingerprints import fingerprint
from meshdev.wire import control, frames
from meshdev.wire.intercepts import Agents, AttestedAgent, Intercept, Issued, Local, Withdraw

arguments = json.loads(sys.argv[1])
dice = random.Random(4)

class Session:
    def __init__(self):
        self.sock = socket.create_connection(("127.0.0.1", TUNNEL_PORT), 5)
        self.decoder = frames.FrameDecoder()
        self.hello = control.encode(control.Hello(
            oldest=OLDEST_PROTOCOL, newest=PROTOCOL, session=secrets.token_hex(16), secret=secrets.token_hex(16),
            holder="stranger@elsewhere", offload=0, pools=ADDRESS_POOLS))
        self.say(self.hello)
        atexit.register(self.leave)
        self.heard = self.hear(3)
        self.welcome = next(each for each in self.heard if isinstance(each, control.Welcome))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.leave()

    def leave(self):
        \"\"\"For good, or the manager would keep its place free; on another carrier, as this one may have ended.\"\"\"
        atexit.unregister(self.leave)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", TUNNEL_PORT), 5) as sock:
            sock.sendall(self.hello + control.encode(control.Close("bye", "over")))
            while sock.recv(65536):
                pass

    def say(self, frame):
        self.sock.sendall(frame)

    def hear(self, seconds):
        end = time.monotonic() + seconds
        heard = []
        while (left := end - time.monotonic()) > 0:
            self.sock.settimeout(left)
            try:
                data = self.sock.recv(65536)
            except TimeoutError:
                break
            if not data:
                raise EOFError
            for kind, body in self.decoder.feed(memoryview(data)):
                if kind == frames.PING:
                    self.sock.sendall(frames.frame(frames.PONG, bytes(body)))
                elif kind != frames.PACKET:
                    heard.append(control.decode(kind, bytes(body)))
            if any(isinstance(each, control.Welcome) for each in heard):
                return heard
        return heard

    def manager(self):
        \"\"\"The manager's certificate.\"\"\"
        while True:
            for each in self.heard:
                if isinstance(each, control.ManagerIdentity):
                    return each.certificate
            self.heard += self.hear(0.1)

    def issued(self, request):
        \"\"\"What control issued for an agent that this session names.\"\"\"
        while True:
            for each in self.heard:
                if isinstance(each, Issued) and each.request == fingerprint(request):
                    return each.certificate
            self.heard += self.hear(0.1)

"""

#: Behind the first: a key of its own, for which a session of its own may vouch. ``Vouching()`` claims what
#: arguments["spec"] says; ``call(method, show, messages, seconds)``: what a stream gave, and how it ended.
SIDECAR: Final = """
import ssl, threading
from datetime import UTC, datetime, timedelta
import grpc
from meshdev.config import CONTROL_PORT
from meshdev.identity.edges import claim_proof, new_capability
from meshdev.identity.keys import KeyPair
from meshdev.identity.tls import pem
from meshdev.sidecar.envoy.tls import CONTROL_NAME
from meshdev.wire import agent

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
AGENT = agent.METHOD

def signed(key):
    return key.self_signed(lifetime=timedelta(hours=1), now=datetime.now(UTC))

class Vouching:
    def __init__(self, id=None):
        self.key, self.proof, self.id = KeyPair.generate(), claim_proof(new_capability()), id or secrets.token_hex(16)
        self.peer, self.over = Session(), threading.Event()
        self.authority = self.peer.manager()
        spec = arguments["spec"].replace(arguments["id"], self.id)
        self.peer.say(control.encode(Intercept(id=self.id, spec=spec, reset_older=True, order=1)))
        request = self.key.request()
        mine = AttestedAgent(request, self.proof, "b-x", "0" * 36)
        self.peer.say(control.encode(Agents(id=self.id, part=0, agents=(mine,), order=2)))
        self.peer.say(control.encode(Local(id=self.id, remote=8080, protocol="tcp", up=True, order=3)))
        self.certificate = self.peer.issued(request)
        threading.Thread(target=self._stay, daemon=True).start()

    def _stay(self):
        with contextlib.suppress(EOFError, OSError):
            while not self.over.is_set():
                self.peer.hear(0.5)

def text(number, value):
    data = value.encode()
    return bytes([number << 3 | 2, len(data)]) + data

def discovery(uid, kind):
    \"\"\"A DiscoveryRequest, by hand: node (2) with its id (1), type_url (4).\"\"\"
    node = text(1, uid)
    return bytes([2 << 3 | 2, len(node)]) + node + text(4, "type.googleapis.com/envoy.config." + kind)

def channel(authority, show):
    \"\"\"*show* is key and certificate, or None.\"\"\"
    key, certificate = (show[0].private_pem, pem(show[1]).encode()) if show else (None, None)
    credentials = grpc.ssl_channel_credentials(pem(authority).encode(), key, certificate)
    options = (("grpc.ssl_target_name_override", CONTROL_NAME), ("grpc.use_local_subchannel_pool", 1))
    return grpc.secure_channel(f"{arguments['manager']}:{CONTROL_PORT}", credentials, options=options)

def call(method, authority, show, messages, seconds):
    over, heard = threading.Event(), []
    def say():
        yield from messages
        over.wait(seconds)
    with channel(authority, show) as line:
        stream = line.stream_stream(method)(say(), timeout=seconds)
        try:
            heard.extend(stream)
            return heard, "OK"
        except grpc.RpcError as error:
            return heard, error.code().name
        finally:
            over.set()

"""


def manager_pod() -> pods.Pod:
    """The manager's, in namespace default."""
    (pod,) = pods.pods("default", f"app.kubernetes.io/name={MANAGER_NAME}")
    return pod


def relays() -> list[int]:
    """The manager's, from its nft tables."""
    ruleset = pods.inside(manager_pod(), "nft", "list", "ruleset")
    return sorted({int(number) for number in re.findall(r"\b2[0-9]{4}\b", ruleset) if int(number) in RELAY_PORTS})


def at_the_tunnel(script: str, **arguments: Any) -> Any:
    """Run *script* behind :data:`TUNNEL`; the JSON it prints."""
    argv = ["kubectl", "exec", f"deployment/{MANAGER_NAME}", "-c", "tunnel", "--", "python3", "-c"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster", *argv, TUNNEL + script, json.dumps(arguments)],
        cwd=CHECKOUT,
        text=True,
        capture_output=True,
        check=False,
        timeout=90,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def as_a_sidecar(script: str, **arguments: Any) -> Any:
    """Run *script* behind :data:`TUNNEL` and :data:`SIDECAR` in the manager's pod; the JSON it prints."""
    return at_the_tunnel(SIDECAR + script, manager=manager_pod()["status"]["podIP"], **arguments)
