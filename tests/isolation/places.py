"""A process that stands for the helper in a network of its own, programs that join it, and users without rights."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
#: nobody, where the tests run as root.
USER: Final = 65534 if os.geteuid() == 0 else os.geteuid()
GROUP: Final = 65534 if os.geteuid() == 0 else os.getegid()
#: For programs of util-linux.
AS_USER: Final = ("setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups") if os.geteuid() == 0 else ()
CONTENT: Final = "nameserver 10.96.0.10\nsearch default.svc.cluster.local\n"
DEADLINE: Final = 30.0

#: Before commands: places like containers.
WITHOUT_USER_NAMESPACES: Final = (
    *("unshare", "-Ur", "sh", "-c"),
    *('echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"', "sh"),
)
WITHOUT_DEVICE: Final = ("unshare", "-Urm", "sh", "-c", 'mount -t tmpfs none /dev/net && exec "$@"', "sh")
#: A filter that refuses unshare(2), as those of container runtimes do (seccomp(2), linux/filter.h).
FILTER: Final = """
import ctypes, errno, os, struct
number = {"x86_64": 272, "aarch64": 97}[os.uname().machine]
code = b"".join(struct.pack("=HBBI", *each) for each in (
    (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | errno.EPERM), (0x06, 0, 0, 0x7FFF0000)))
class Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_char_p))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
assert libc.prctl(22, 2, ctypes.byref(Program(4, code))) == 0, ctypes.get_errno()  # PR_SET_SECCOMP
"""

_HOLD: Final = """
import sys
from pathlib import Path
from meshdev.isolation.own import enter_own_network
enter_own_network(Path(sys.argv[1]))
print("there", flush=True)
sys.stdin.read()
"""
_JOIN: Final = """
import sys
from meshdev.isolation.joining import start_inside
sys.exit(start_inside(int(sys.argv[1]), sys.argv[2:]).wait())
"""


def python(code: str, *arguments: str) -> list[str]:
    """The command of a program in text, which has meshdev."""
    return [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}", *arguments]


def run(command: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=DEADLINE)


def joined(pid: int, *words: str) -> list[str]:
    """The command that starts a program in the network of *pid*."""
    return python(_JOIN, str(pid), *words)


@dataclass(frozen=True)
class Place:
    """A network of one's own, held by a process."""

    pid: int
    prefix: Sequence[str]
    """Before commands, so that they run as its user."""

    def output(self, *words: str) -> str:
        """What a program in there prints. It must succeed."""
        return run([*self.prefix, *joined(self.pid, *words)]).stdout

    def outcome(self, *words: str) -> subprocess.CompletedProcess[str]:
        """How a program in there ends."""
        return run([*self.prefix, *joined(self.pid, *words)], check=False)


@contextmanager
def place(folder: Path, prefix: Sequence[str] = AS_USER, outside: Sequence[str] = ()) -> Iterator[Place]:
    """Hold a network of that user's own; *outside*: how to get where the machine is."""
    folder.mkdir(exist_ok=True)
    file = folder / "resolv.conf"
    file.write_text(CONTENT)
    for path in (folder, file):
        os.chown(path, *((USER, GROUP) if prefix else (-1, -1)))
    prefix = [*outside, *prefix]
    with subprocess.Popen(
        [*prefix, *python(_HOLD, str(file))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "there\n"
        try:
            yield Place(holder.pid, prefix)
        finally:
            holder.stdin.close()
