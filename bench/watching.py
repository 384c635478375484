"""``meshdev inspect`` beside a load: what it costs to be watched."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.target import NAMESPACE, until

_COMMAND: Final = (str(Path(sys.executable).with_name("meshdev")), "inspect", "--all", "--follow", "-o", "json")
#: The end of a watch passes session, manager and agent; none of them says so. (It takes milliseconds.)
_SETTLE_SECONDS: Final = 0.5


class Inspecting:
    """It runs; ``lines`` are the requests that it has shown."""

    def __init__(self) -> None:
        self.lines = 0

    def count(self, process: "subprocess.Popen[bytes]") -> None:
        """Until it ends."""
        if process.stdout is not None:
            for _ in process.stdout:
                self.lines += 1


@contextmanager
def inspecting(workload: str, press: Callable[[], object]) -> Iterator[Inspecting]:
    """Requests of *workload* are shown inside; *press* makes some, so that this can be seen."""
    found = Inspecting()
    command = (*_COMMAND, f"deployment/{workload}", "-n", NAMESPACE)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        counting = threading.Thread(target=found.count, args=(process,), daemon=True)
        counting.start()
        try:

            def begun() -> bool:
                press()
                return found.lines > 0

            until("requests are shown", begun)
            yield found
        finally:
            process.terminate()
            counting.join()
    time.sleep(_SETTLE_SECONDS)
