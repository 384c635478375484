"""Peers that show, or say, what is somebody else's: certificates, proofs, the place of an agent or of a session."""

import asyncio
import base64
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import IO, Final

from meshdev.kube.attestation import Attested
from tests.e2e import networks, pods, strangers
from tests.e2e.conftest import CHECKOUT
from tests.sidecar.agent.attesting_session import attested

#: ``try_handshake(address, port, name, key, certificate, copied)``: whether the server began to answer, and whether it
#: let us through. *key* and *certificate* are PEM or None; *copied* (DER) is shown in place of the certificate. TLS
#: 1.2, in which a client is through only when the server has looked at its certificate, and which shows it in the
#: clear. Needs nothing but Python.
HANDSHAKE: Final = '''
import base64, json, os, socket, ssl, sys

def lengthened(data):
    return len(data).to_bytes(3, "big") + data

def flight(data, copied):
    """With the copied certificate in our message of type 11 (RFC 5246, section 7.4.2), a record of its own."""
    out = b""
    while data:
        size = int.from_bytes(data[3:5], "big")
        head, body, data = data[:5], data[5:5 + size], data[5 + size:]
        if copied and head[0] == 22 and body[0] == 11:
            body = b"\\x0b" + lengthened(lengthened(lengthened(copied)))
            head = head[:3] + len(body).to_bytes(2, "big")
        out += head + body
    return out

def try_handshake(address, port, name, key=None, certificate=None, copied=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    if key:
        descriptor = os.memfd_create("pem")
        os.write(descriptor, (key + certificate).encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        os.close(descriptor)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    answered = False
    try:
        with socket.create_connection((address, port), 3) as sock:
            sock.settimeout(3)
            while True:
                try:
                    tls.do_handshake()
                    return [answered, True]
                except ssl.SSLWantReadError:
                    sock.sendall(flight(outgoing.read(), copied))
                data = sock.recv(65536)
                if not data:
                    return [answered, False]
                answered = answered or data[0] == 22
                incoming.write(data)
    except (ssl.SSLError, ConnectionResetError, BrokenPipeError):
        return [answered, False]
'''

#: Behind those of strangers. ``receive_all(vouching, hello, proofs, seconds)``: all that the agent with the key of
#: *vouching* and its Envoy are sent when they do what they should, and the agent consents to *proofs*.
RECEIVE: Final = """
import base64, queue
from envoy.config.listener.v3 import listener_pb2
from envoy.service.discovery.v3 import discovery_pb2
from meshdev.sidecar.envoy.protos import CLUSTERS, ENDPOINTS, LISTENERS, ROUTES

def one_more(answers):
    # None at its end, and after the time that it has.
    try:
        return next(answers, None)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, error
        return None

def receive_all(vouching, hello, proofs, seconds):
    over, said, asked = threading.Event(), queue.SimpleQueue(), queue.SimpleQueue()
    def agent_messages():
        port = agent.PodPort(8080)
        yield json.dumps({"hello": hello}).encode()
        for each in (agent.Consents(tuple(proofs)), agent.Listen({port: 15801}, "/tmp/meshdev-x"),
                     agent.State(redirected=(port,))):
            yield agent.encode(each)
        over.wait(seconds)
    def envoy_messages():
        for kind in (CLUSTERS, LISTENERS):
            first = discovery_pb2.DiscoveryRequest(type_url=kind)
            first.node.id = hello["uid"]
            yield first.SerializeToString()
        while (request := asked.get()) is not None:
            yield request.SerializeToString()
    def follow_agent():
        shown = vouching.key, vouching.certificate
        with channel(vouching.authority, shown) as line:
            answers = line.stream_stream(AGENT)(agent_messages(), timeout=seconds)
            while (each := one_more(answers)) is not None:
                said.put(each)
    thread = threading.Thread(target=follow_agent)
    thread.start()
    heard = []
    while not heard or b'"certificate"' not in heard[-1]:
        heard.append(said.get(timeout=seconds))
    names = {LISTENERS: (), CLUSTERS: ()}
    with channel(vouching.authority, (vouching.key, vouching.certificate)) as line:
        answers = line.stream_stream(ADS)(envoy_messages(), timeout=seconds / 2)
        while (data := one_more(answers)) is not None:
            heard.append(data)
            answer = discovery_pb2.DiscoveryResponse.FromString(data)
            took = dict(type_url=answer.type_url, response_nonce=answer.nonce, version_info=answer.version_info)
            asked.put(discovery_pb2.DiscoveryRequest(resource_names=names.get(answer.type_url, ()), **took))
            if answer.type_url == LISTENERS and answer.resources:
                found = [listener_pb2.Listener.FromString(each.value).name for each in answer.resources]
                names[ROUTES] = [each.replace("listener", "routes", 1) for each in found]
                asked.put(discovery_pb2.DiscoveryRequest(type_url=ROUTES, resource_names=names[ROUTES]))
    asked.put(None)
    over.set()
    thread.join()
    while not said.empty():
        heard.append(said.get())
    return [each.decode("latin-1") for each in heard]
"""

#: Behind those of strangers. ``claiming(spec, request, proof, pod, uid)``: a session that claims this, and its id.
CLAIMING: Final = """
import base64

def claiming(spec, request, proof, pod, uid):
    peer, id = Session(), json.loads(spec)["id"]
    peer.say(control.encode(Intercept(id=id, spec=spec, order=1)))
    found = AttestedAgent(base64.b64decode(request), proof, pod, uid)
    peer.say(control.encode(Agents(id=id, part=0, agents=(found,), order=2)))
    peer.say(control.encode(Local(id=id, remote=8080, protocol="tcp", up=True, order=3)))
    return peer, id

def states(heard, id):
    return [[each.id == id, each.state] for each in heard if isinstance(each, control.Report)]

"""

_REPORTED: Final = """
peers = {what: claiming(*claim) for what, claim in arguments["claims"].items()}
time.sleep(2)
print(json.dumps({what: states(peer.hear(0.3), id) for what, (peer, id) in peers.items()}))
"""


def shown(spec: str, found: Attested, pod: pods.Pod) -> tuple[str, ...]:
    """Arguments for ``claiming``."""
    request = base64.b64encode(found.request).decode()
    return spec, request, found.proof, pod["metadata"]["name"], pod["metadata"]["uid"]


def reported(pod: pods.Pod, claims: dict[str, tuple[str, Attested]]) -> dict[str, list[list[object]]]:
    """By name: the reports that a session gets that claims the spec with request and proof, as those of *pod*.

    Of each whether it is about that claim, and the state.
    """
    every = {what: shown(spec, found, pod) for what, (spec, found) in claims.items()}
    told: dict[str, list[list[object]]] = strangers.at_the_tunnel(CLAIMING + _REPORTED, claims=every)
    return told


_MANAGER: Final = """
import base64
print(json.dumps(base64.b64encode(Session().manager()).decode()))
"""


def manager_certificate() -> bytes:
    """As every session learns it (DER)."""
    return base64.b64decode(strangers.at_the_tunnel(_MANAGER))


def pose_as_session(pod: pods.Pod, manager: bytes) -> Attested:
    """What a process in the pod gets that attests the agent, and names that certificate as the manager's."""
    place = partial(networks.inside, networks.of_pod(pod))
    return asyncio.run(attested(pods.announcement(pod).port, pod["metadata"]["uid"], manager, place=place))


#: Takes all ports that a sidecar's agent may be assigned and is attested there as its agent would be; says then which
#: ports the manager wants of it, again and again.
_THIEF: Final = """
import asyncio, contextlib, json, sys
from ipaddress import IPv4Address
from meshdev.sidecar.agent.attesting import AttestationListener
from meshdev.sidecar.agent.control import Control
from meshdev.sidecar.agent.own_key import make_key
from meshdev.sidecar.agent.settings import Settings
from meshdev.sidecar.agent.trust import new_identity
from meshdev.wire.agent import Want
from meshdev.wire.attestation import ASSIGNED_PORTS
pod, uid, namespace, address, manager, port = sys.argv[1:]
def told(message):
    if isinstance(message, Want):
        print(json.dumps([str(each.port) for each in message.ports]), flush=True)
async def serve():
    identity = new_identity(make_key())
    settings = Settings(pod, uid, namespace, IPv4Address(address), manager, int(port))
    control = Control(settings, identity, on_message=told, on_lost=lambda: print("lost", flush=True), states=list)
    async with contextlib.AsyncExitStack() as stack:
        for assigned in ASSIGNED_PORTS:
            await stack.enter_async_context(AttestationListener(uid, identity, assigned).serving())
        print("listening", flush=True)
        await control.run()
asyncio.run(serve())
"""


@contextmanager
def thief(pod: pods.Pod, port: int) -> Iterator[IO[str]]:
    """A process in the pod that took its agent's port first, and comes to the manager's *port*; what it says."""
    metadata, pid = pod["metadata"], next(iter(pods.processes(pod)))
    manager = strangers.manager_pod()["status"]["podIP"]
    who = (metadata["name"], metadata["uid"], metadata["namespace"], pod["status"]["podIP"], manager, str(port))
    command = ("nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", _THIEF, *who)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "listening\n"
            yield process.stdout
        finally:
            process.kill()
