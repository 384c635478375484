"""The rest of the network for a program in namespaces of its own: by pasta or slirp4netns, where one is installed.

Both carry its connections out of its network by sockets of this user in the machine's own. The cluster's routes are
more specific than the default route that they make there.
"""

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from meshdev.isolation import linux

#: From its start to a default route; both take some 30 ms.
_READY_SECONDS: Final = 3.0
_LOOK_SECONDS: Final = 0.01
_END_SECONDS: Final = 2.0
#: Of what it prints: more than a reason takes.
_READ: Final = 1 << 16
#: /proc/net/route: interface, destination; the default route's is zero.
_DEFAULT_ROUTE: Final = "00000000"
#: RFC 5737's second range for documentation: nobody's cluster or office has it. slirp4netns makes one of its own.
_RANGE: Final = "198.51.100.0/24"


@dataclass(frozen=True, slots=True)
class Uplink:
    """A program that provides it."""

    name: str
    path: str

    def command(self, pid: int) -> list[str]:
        """What to run for the namespaces of process *pid*, in the foreground.

        No port of the machine leads inside, and none of its loopback is reached from there.
        """
        user, net = f"/proc/{pid}/ns/user", f"/proc/{pid}/ns/net"
        if self.name == "pasta":
            closed = [word for flag in ("-t", "-u", "-T", "-U") for word in (flag, "none")]
            return [self.path, "-f", "-q", "--config-net", "--no-map-gw", *closed, "--userns", user, "--netns", net]
        own = ["--configure", "--disable-host-loopback", "--disable-dns", f"--cidr={_RANGE}"]
        return [self.path, *own, f"--userns-path={user}", "--netns-type=path", net, "uplink0"]


def find() -> Uplink | None:
    """The one that is installed; pasta first, which is faster."""
    for name in ("pasta", "slirp4netns"):
        if path := shutil.which(name):
            return Uplink(name, path)
    return None


def describe(uplink: Uplink | None) -> str:
    """How other networks are reached, for people."""
    if uplink is None:
        return "other networks are out of its reach: install pasta (package passt) or slirp4netns"
    return f"other networks by {uplink.name}"


@contextmanager
def running(uplink: Uplink | None, pid: int) -> Iterator[str | None]:
    """Other networks are reachable in the namespaces of *pid* inside; what went wrong with that, if something did."""
    if uplink is None:
        yield None
        return
    with tempfile.TemporaryFile() as output:  # a pipe would be full some day: nobody reads it while the program runs
        process = subprocess.Popen(
            uplink.command(pid),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=output,
            cwd="/",
            start_new_session=True,  # Ctrl-C is the program's; it may need this to end well
            preexec_fn=linux.end_with_parent,  # noqa: PLW1509 -- one function of libc, and no threads here
        )
        with _ended(process):
            problem = _wait(process, Path(f"/proc/{pid}/net/route"), output)
            yield f"{uplink.name} does not provide other networks: {problem}" if problem else None


@contextmanager
def _ended(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """When the context is left it has ended."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: "subprocess.Popen[bytes]", routes: Path, output: IO[bytes]) -> str | None:
    """Until there is a default route; why there is none. Neither program says in the same way when it is ready."""
    end = time.monotonic() + _READY_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if any(line.split()[1:2] == [_DEFAULT_ROUTE] for line in routes.read_text().splitlines()):
                return None
        if process.poll() is not None:
            return _last_line(output) or f"it ended with {process.returncode}"
        time.sleep(_LOOK_SECONDS)  # /proc has no event for a route
    return f"there is no default route after {_READY_SECONDS:.0f} s"


def _last_line(output: IO[bytes]) -> str:
    output.seek(0)
    return output.read(_READ).decode(errors="replace").strip().rpartition("\n")[2]
