"""Peers that mean harm, or do not know better: at the manager's tunnel, and at the port where sidecars come.

The first run in the manager's own pod, where its code is, as somebody with a port-forward could; the others in any
pod of the cluster.
"""

import json
import subprocess
import sys
from typing import Any, Final

from meshdev.config import CONTROL_PORT, MANAGER_NAME
from tests.e2e import pods
from tests.e2e.conftest import CHECKOUT
from tests.e2e.intercepting import in_pod

#: A session of its own; ``say(frame)`` and ``hear(seconds)``.
TUNNEL: Final = """
import contextlib, json, random, secrets, socket, struct, sys, time
from meshdev.config import ADDRESS_POOLS, OLDEST_PROTOCOL, PROTOCOL, TUNNEL_PORT
from meshdev.wire import control, frames
from meshdev.wire.intercepts import AgentKeys, Intercept, Local, Withdraw

arguments = json.loads(sys.argv[1])
dice = random.Random(4)

class Session:
    def __init__(self):
        self.sock = socket.create_connection(("127.0.0.1", TUNNEL_PORT), 5)
        self.decoder = frames.FrameDecoder()
        self.say(control.encode(control.Hello(
            oldest=OLDEST_PROTOCOL, newest=PROTOCOL, session=secrets.token_hex(16), secret=secrets.token_hex(16),
            holder="stranger@elsewhere", offload=0, pools=ADDRESS_POOLS)))
        self.welcome = next(each for each in self.hear(3) if isinstance(each, control.Welcome))

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

"""

#: ``call(method, token, messages, seconds)``: what a stream gave, and how it ended.
SIDECAR: Final = """
import json, sys, threading, time
import grpc

manager, token, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
AGENT = "/meshdev.v2.Agent/Session"

def text(number, value):
    data = value.encode()
    return bytes([number << 3 | 2, len(data)]) + data

def discovery(uid, kind):
    \"\"\"A DiscoveryRequest, by hand: node (2) with its id (1), type_url (4).\"\"\"
    node = text(1, uid)
    return bytes([2 << 3 | 2, len(node)]) + node + text(4, "type.googleapis.com/envoy.config." + kind)

def call(method, token, messages, seconds):
    metadata = (("x-meshdev-token", token),) if token else ()
    over = threading.Event()
    def say():
        yield from messages
        over.wait(seconds)
    heard = []
    with grpc.insecure_channel(manager) as channel:
        stream = channel.stream_stream(method)(say(), metadata=metadata, timeout=seconds)
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


def as_a_sidecar(namespace: str, script: str, token: str = "", **arguments: Any) -> Any:
    """Run *script* behind :data:`SIDECAR` in the namespace's client; the JSON it prints."""
    manager = f"{manager_pod()['status']['podIP']}:{CONTROL_PORT}"
    return json.loads(in_pod(namespace, SIDECAR + script, manager, token, json.dumps(arguments)))
