"""What a project file means: a connection, intercepts and processes, as frozen values."""

from dataclasses import dataclass
from typing import Literal, get_args

from meshdev.wire.session_api import ConnectOptions
from meshdev.wire.session_intercepts import InterceptRequest

Restart = Literal["never", "on-failure", "always"]
RESTARTS: tuple[Restart, ...] = get_args(Restart)


@dataclass(frozen=True)
class HttpReady:
    """Ready once ``http://HOST:PORT/…`` answers with 2xx or 3xx; *host* is an address of this machine."""

    host: str
    port: int
    path: str

    def __str__(self) -> str:
        return f"http://{_bracketed(self.host)}:{self.port}{self.path} answers"


@dataclass(frozen=True)
class TcpReady:
    """Ready once *host* takes connections at *port*."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port} takes connections"


@dataclass(frozen=True)
class LogReady:
    """Ready once a line of its output contains *text*."""

    text: str

    def __str__(self) -> str:
        return f"its output contains {self.text!r}"


@dataclass(frozen=True)
class CompletedReady:
    """Ready once it has exited with 0: what others wait for, such as a migration."""

    def __str__(self) -> str:
        return "it has exited with 0"


Readiness = HttpReady | TcpReady | LogReady | CompletedReady


@dataclass(frozen=True)
class ProjectIntercept:
    """One intercept of the file."""

    name: str
    request: InterceptRequest


@dataclass(frozen=True, kw_only=True)
class ProjectProcess:
    """One process of the file. *command* are the words to execute, *directory* is absolute."""

    name: str
    command: tuple[str, ...]
    directory: str
    env: tuple[tuple[str, str], ...] = ()
    env_from: str | None = None
    """A workload; *env* goes before its variables."""
    serves: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    ready: Readiness | None = None
    ready_seconds: float = 60.0
    restart: Restart = "never"
    stop_seconds: float = 10.0


@dataclass(frozen=True)
class Project:
    """The whole file. Names that one part uses of another exist, and no process waits for itself."""

    connection: ConnectOptions
    intercepts: tuple[ProjectIntercept, ...]
    processes: tuple[ProjectProcess, ...]

    def servers(self, intercept: str) -> list[str]:
        """The processes that serve it."""
        return [process.name for process in self.processes if intercept in process.serves]


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
