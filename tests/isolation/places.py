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
