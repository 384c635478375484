"""`python -m tests.cluster.sample`: run the services that the flags ask for, and drain on SIGTERM."""

import argparse
import signal
import socket
import time

from tests.cluster.sample import bulk, udp
from tests.cluster.sample.app import App
from tests.cluster.sample.grpc_echo import GrpcServer
from tests.cluster.sample.http1 import Server
from tests.cluster.sample.listeners import Listener

#: So long a client that keeps its connection has to ask once more and be told that it ends.
_LAST_REQUEST_SECONDS = 2.5
_DRAIN_SECONDS = 3.5


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.sample", description=__doc__)
    parser.add_argument("--name", required=True, help="what this service calls itself in its answers")
    parser.add_argument("--next", default="", help="URL of the service that GET / calls")
    parser.add_argument("--host", default="", help="listen address of --port; default: every address")
    parser.add_argument("--port", type=int, action="append", default=[], help="HTTP and WebSocket; repeatable")
    parser.add_argument("--udp-port", type=int, help="UDP echo")
    parser.add_argument("--tcp-first-port", type=int, help="TCP that greets with hello")
    parser.add_argument("--grpc-port", type=int, help="gRPC echo")
    parser.add_argument("--bulk", action="store_true", help=f"ports {min(bulk.HANDLERS)}–{max(bulk.HANDLERS)}")
    return parser.parse_args()


def _greet(connection: socket.socket) -> None:
    connection.sendall(b"hello\n")
    while data := connection.recv(65536):
        connection.sendall(data)


def main() -> None:
    """Start, wait for the signal, drain."""
    options = _arguments()
    # Kept for sigwait: a handler runs in the main thread only, which a signal that another thread took does not wake.
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    server = Server(App(options.name, options.next))
    listeners = [Listener(port, server.serve, options.host) for port in options.port]
    if options.bulk:
        listeners += [Listener(port, handler) for port, handler in bulk.HANDLERS.items()]
    if options.tcp_first_port:
        listeners.append(Listener(options.tcp_first_port, _greet))
    if options.udp_port:
        udp.start(options.udp_port, options.name)
    grpc_server = GrpcServer(options.grpc_port, options.name) if options.grpc_port else None
    print(f"{options.name}: ready", flush=True)
    signal.sigwait(signals)
    for listener in listeners:
        listener.stop_accepting()
    server.drain()
    if grpc_server is not None:
        grpc_server.drain(_DRAIN_SECONDS)
    if not _idle(listeners, _LAST_REQUEST_SECONDS):
        server.close_waiting()
        _idle(listeners, _DRAIN_SECONDS)
    if grpc_server is not None:
        grpc_server.wait()


def _idle(listeners: list[Listener], seconds: float) -> bool:
    """Wait until there are no connections."""
    end = time.monotonic() + seconds
    return all(listener.wait_idle(max(0.0, end - time.monotonic())) for listener in listeners)


if __name__ == "__main__":
    main()
