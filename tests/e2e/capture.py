"""Record what passes a node's network while something happens, and look for plaintext in it."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.cluster import addresses, kinds
from tests.cluster.state import State
from tests.e2e.captured import Ending, frames, readable, streams
from tests.e2e.conftest import CHECKOUT

#: Of one node, in bytes and seconds. A record that reaches either proves nothing, and fails.
LIMIT: Final = 64 << 20
SECONDS: Final = 60.0
_END_SECONDS: Final = 20.0


@dataclass
class Capture:
    """What was recorded, once the block of :func:`captured` has ended."""

    recorded: list[bytes] = field(default_factory=list)

    def readable(self, *markers: bytes) -> dict[bytes, list[str]]:
        """Which of the markers were sent in the clear, and between whom; empty: none, anywhere."""
        return readable(self.recorded, markers)

    def streams(self) -> dict[str, bytes]:
        """The bytes of each TCP direction, ``CLIENT:PORT → SERVER:PORT``."""
        return streams(self.recorded)


@contextmanager
def captured(seconds: float = SECONDS, limit: int = LIMIT) -> Iterator[Capture]:
    """All frames on every interface of every node but lo: pods' own, the bridge, cables to other nodes and laptops.

    Connections have to begin inside the block: of an older one the beginning is missing. Fails if anything may be
    missing at the end. The nodes' processes talk to etcd on lo, in the clear: that is not recorded.
    """
    capture = Capture()
    kind = kinds.running(State.load().facts)
    assert kind is not None
    with tempfile.TemporaryDirectory(prefix="meshdev-capture-") as folder, ExitStack() as stack:
        sniffers = [
            stack.enter_context(_sniffer(node.number, Path(folder) / node.name, seconds, limit))
            for node in addresses.nodes(kind)
        ]
        yield capture
        for path, sniffer in sniffers:
            said, _ = sniffer.communicate(timeout=_END_SECONDS)  # closes its stdin
            ending = Ending(**json.loads(said))
            assert ending.complete, f"the record of {path.name} is not complete: {ending}"
            capture.recorded += frames(path.read_bytes())


@contextmanager
def _sniffer(number: int, path: Path, seconds: float, limit: int) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    sniffer = (sys.executable, "-m", "tests.e2e.sniffer", str(path), str(seconds), str(limit))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", "node", "--node", str(number), "--", *sniffer],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield path, process
        finally:
            process.kill()
