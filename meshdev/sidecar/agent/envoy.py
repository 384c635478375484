"""Envoy's process: started, its output read, its admin socket asked, ended.

Importing http.client for the answers takes the agent 1.0 MiB (of 34, mostly gRPC) and 8 ms.
"""

import asyncio
import contextlib
import http.client
import io
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from meshdev.errors import ClusterError
from meshdev.sidecar.agent import child
from meshdev.sidecar.agent.settings import Settings
from meshdev.sidecar.envoy import access_log, stats
from meshdev.sidecar.envoy.bootstrap import Start, bootstrap, command, heap_within
from meshdev.sidecar.envoy.stats import Stats

log = logging.getLogger(__name__)

BINARY: Final = "envoy"
#: More workers than that cost memory and win nothing for one pod.
_MOST_WORKERS: Final = 2
#: Version 1 of cgroups writes the largest number of pages for "none".
_NO_LIMIT: Final = 1 << 50
_ASK_SECONDS: Final = 5.0
_END_SECONDS: Final = 2.0


class Envoy:
    """One Envoy at a time. *hold* are descriptors that it inherits, only to keep them open as long as it runs."""

    def __init__(self, settings: Settings, binary: str = BINARY, hold: tuple[int, ...] = ()) -> None:
        self._settings = settings
        self._hold = hold
        self._binary = binary
        self._folder = private_folder()
        self._process: asyncio.subprocess.Process | None = None

    @property
    def folder(self) -> str:
        """Of its sockets: nobody else may enter it."""
        return str(self._folder)

    @property
    def secrets_path(self) -> Path:
        """Where it asks for its key and certificates."""
        return self._folder / "secrets"

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Of the process that is there."""
        return self._process.pid if self._process is not None and self.running else None

    async def run(self, started: Callable[[], None], ended: Callable[[], None]) -> None:
        """Start it and return when it has ended; *ended* is called at once. Cancelling leaves it running."""
        start = Start(
            node=self._settings.uid,
            manager=self._settings.manager,
            port=self._settings.port,
            admin=str(self._admin),
            secrets=str(self.secrets_path),
            heap=heap_within(memory_limit()),
        )
        workers = min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
        try:
            with _in_memory(json.dumps(bootstrap(start))) as config:
                self._process = await child.start(
                    # Of /dev Envoy reads no other path (InstanceImplPosix::illegalPath).
                    command(self._binary, f"/dev/fd/{config}", workers),
                    env=child.environment(),
                    pass_fds=(*self._hold, config),
                )
        except OSError as error:
            raise ClusterError(f"Envoy cannot be started: {error}") from error
        child.first_to_die(self._process.pid)
        started()
        reading = asyncio.ensure_future(child.log_lines("envoy", self._process.stderr))
        try:
            code = await self._process.wait()
            ended()
            log.warning("Envoy ended with %d", code)
            await reading
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def stats(self) -> Stats:
        """What it counted. Raises ClusterError."""
        found = stats.read(await self._ask("GET", stats.TARGET))
        if found.intercepts:
            stats.read_times(await self._ask("GET", stats.TIMES), found)
        return found

    async def drain(self, *, on: bool) -> None:
        """Ask every client to come again on another connection: Connection: close, GOAWAY. Raises ClusterError."""
        await self._ask("POST", "/healthcheck/fail" if on else "/healthcheck/ok")

    async def record(self, *, on: bool) -> None:
        """Send a record of every request that ends from now on to the manager, or none. Raises ClusterError."""
        await self._ask("POST", access_log.target(watched=on))

    def kill(self) -> None:
        """At once; :meth:`run` ends then. Nothing where it is not there."""
        if self._process is not None:
            child.kill(self._process)

    async def end(self) -> None:
        """Stop it: connections that are open are closed."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await child.ended(process, _END_SECONDS)

    def close(self) -> None:
        """Remove the folder of the sockets."""
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _admin(self) -> Path:
        return self._folder / "admin"

    async def _ask(self, method: str, target: str) -> str:
        request = f"{method} {target} HTTP/1.1\r\nHost: envoy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                reader, writer = await asyncio.open_unix_connection(str(self._admin))
                try:
                    writer.write(request.encode("ascii"))
                    answer = await reader.read()
                finally:
                    writer.close()
        except OSError as error:  # TimeoutError is one
            raise ClusterError(f"Envoy does not answer: {error}") from error
        return body_of(answer, target)


@contextlib.contextmanager
def _in_memory(text: str) -> Iterator[int]:
    """The descriptor of a file that has no name: there may be no folder in which Envoy could read one."""
    config = os.memfd_create("config")
    try:
        os.fchmod(config, 0o600)
        with open(config, "w", encoding="utf-8", closefd=False) as file:
            file.write(text)
        yield config
    finally:
        os.close(config)


def memory_limit(cgroups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """The memory limit of this container in bytes, None where it has none (cgroups(7): version 2, then version 1)."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = int((cgroups / name).read_text())
        except (OSError, ValueError):  # not that version; "max"
            continue
        if limit < _NO_LIMIT:
            return limit
    return None


def private_folder(preferred: Sequence[Path] = (Path("/tmp"), Path("/dev"))) -> Path:  # noqa: S108 -- a 0700 one inside
    """A new folder of mode 0700, in the first of *preferred* that can be written. Raises ClusterError.

    In a container whose root file system is read-only that is /dev: a tmpfs of this container alone (OCI runtime
    specification, "Default Filesystems"), while the pod's containers share /dev/shm.
    """
    trouble = ""
    for parent in preferred:
        try:
            return Path(tempfile.mkdtemp(prefix="meshdev-", dir=parent))
        except OSError as error:
            trouble = f"{parent}: {error.strerror}"
    raise ClusterError(f"the sidecar finds no place for its files: {trouble}")


class _Received:
    """What a connection brought until its end, for http.client."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


def body_of(answer: bytes, target: str) -> str:
    """The body of an HTTP answer. Raises ClusterError where it is incomplete, or is no 200."""
    response = http.client.HTTPResponse(_Received(answer))  # type: ignore[arg-type] # it asks for makefile alone
    try:
        response.begin()
        body = response.read()
    except http.client.HTTPException as error:
        raise ClusterError(f"Envoy's answer to {target} cannot be read: {error!r}") from error
    if response.status != http.client.OK:
        raise ClusterError(f"Envoy refused {target}: {response.status} {response.reason}")
    return body.decode("utf-8", "replace")
