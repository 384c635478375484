"""nginx in the network of a pod, and requests from the network of another: by wrk, or one with a large body.

The sample and :mod:`bench.pressing` are Python, so that their own time hides some of a proxy's. These two hide little.
"""

import re
import resource
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from bench import inside, tools
from bench.client import Pressed
from bench.target import listening, until

#: Two of the pod's ports that nobody declared; only the first is intercepted.
INTERCEPTED: Final = 8090
BARE: Final = 8091
#: As long as "original", the sample's answer.
ANSWER: Final = "original"
BODY: Final = "/body"
BODY_BYTES: Final = 1_000_000_000
_SECONDS: Final = 60.0
_CONFIGURATION: Final = """
daemon off; master_process off; pid {folder}/pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_requests 1000000000; sendfile on; tcp_nodelay on; default_type text/plain;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder}; uwsgi_temp_path {folder};
  scgi_temp_path {folder};
  server {{
    {listen}
    location / {{ return 200 "{answer}"; }}
    location {body} {{ root {folder}; }}
  }}
}}
"""
_FIGURES: Final = {
    "per_second": re.compile(r"Requests/sec:\s+([\d.]+)"),
    "requests": re.compile(r"(\d+) requests in"),
    "p50": re.compile(r"50%\s+([\d.]+)(us|ms|s)\b"),
    "p99": re.compile(r"99%\s+([\d.]+)(us|ms|s)\b"),
}
_SOCKET_ERRORS: Final = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)")
_OTHER_STATUS: Final = re.compile(r"Non-2xx or 3xx responses: (\d+)")
_PER_MS: Final = {"us": 1000.0, "ms": 1.0, "s": 0.001}


@contextmanager
def server(pid: int, ports: Sequence[int] = (INTERCEPTED, BARE)) -> Iterator[int]:
    """It listens on *ports* in the network of *pid* as long as the context lasts: its own process."""
    with TemporaryDirectory(prefix="bench-nginx-") as name:
        folder = Path(name)
        file = folder / BODY.lstrip("/")
        with file.open("wb") as body_:
            body_.truncate(BODY_BYTES)
        _cache(file)
        listen = " ".join(f"listen 0.0.0.0:{port} backlog=1024;" for port in ports)
        text = _CONFIGURATION.format(folder=folder, listen=listen, answer=ANSWER, body=BODY)
        (folder / "nginx.conf").write_text(text)
        argv = (tools.nginx(), "-e", "stderr", "-p", name, "-c", "nginx.conf")
        with subprocess.Popen(inside.command(pid, *argv)) as process:
            try:
                until("nginx listens", lambda: listening(pid, ports) or process.poll() is not None)
                yield process.pid
            finally:
                process.terminate()


def _cache(file: Path) -> None:
    """Read it once: the first who does waits for the kernel's pages."""
    buffer = bytearray(1 << 20)
    with file.open("rb", buffering=0) as stream:
        while stream.readinto(buffer):
            pass


def press(pid: int, address: tuple[str, int], connections: int, seconds: int) -> Pressed:
    """As many requests as possible, by wrk in the network of *pid*."""
    program, environment = tools.wrk()
    before = _children_seconds()
    argv = (program, "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "http://{}:{}/".format(*address))
    done = subprocess.run(
        inside.command(pid, *argv), capture_output=True, text=True, check=True, env=environment, timeout=_SECONDS
    )
    return parse(done.stdout, (_children_seconds() - before) / seconds)


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def parse(text: str, cores: float) -> Pressed:
    """What wrk printed; it took so many *cores*. Raises ValueError where a figure is missing; wrk tells no answers."""
    found = {name: pattern.search(text) for name, pattern in _FIGURES.items()}
    figures: dict[str, float] = {}
    for name, match in found.items():
        if match is None:
            raise ValueError(f"wrk told no {name}: {text}")
        figures[name] = float(match[1]) / (_PER_MS[match[2]] if match.re.groups > 1 else 1)
    wrong: dict[str, int] = {}
    if sockets := _SOCKET_ERRORS.search(text):
        kinds = zip(("connect", "read", "write", "timeout"), sockets.groups(), strict=True)
        wrong = {f"{kind} errors": int(count) for kind, count in kinds if int(count)}
    if status := _OTHER_STATUS.search(text):
        wrong["another status"] = int(status[1])
    requests, errors = int(figures["requests"]), sum(wrong.values())
    return Pressed(requests, errors, wrong, {}, figures["per_second"], figures["p50"], figures["p99"], cores)


def body(pid: int, address: tuple[str, int]) -> float:
    """MB/s of one large body, fetched from the network of *pid*."""
    buffer = memoryview(bytearray(1 << 20))
    with inside.connect(pid, address, _SECONDS) as sock:
        since = time.perf_counter()
        sock.sendall(f"GET {BODY} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n".encode())
        got = 0
        while count := sock.recv_into(buffer):
            got += count
        seconds = time.perf_counter() - since
    if got < BODY_BYTES:
        raise ConnectionError(f"{got} of {BODY_BYTES} bytes arrived")
    return got / seconds / 1e6
