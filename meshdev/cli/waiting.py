"""What ``run --wait-for`` waits for, and the program that does (:mod:`meshdev.cli.ready`)."""

import sys
import urllib.parse
from dataclasses import dataclass
from typing import Final

from meshdev.errors import UsageError

#: The program; here by its name, since what it imports takes long.
READY: Final = "meshdev.cli.ready"
#: Its exit code where something was not ready in time; the reason is on stderr.
NOT_READY: Final = 1


@dataclass(frozen=True, slots=True)
class WaitTarget:
    """What is waited for: *url*, or else *port* of *host*."""

    host: str
    port: int
    url: str | None = None

    def __str__(self) -> str:
        return self.url or f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def wait_target(text: str) -> WaitTarget:
    """``http://…``, ``https://…`` or ``HOST:PORT``. Raises UsageError."""
    try:
        parts = urllib.parse.urlsplit(text if "://" in text else f"//{text}")
        port = parts.port
    except ValueError:
        parts, port = urllib.parse.urlsplit(""), None
    if parts.hostname and text.isprintable() and " " not in text:
        if parts.scheme in {"http", "https"}:
            return WaitTarget(parts.hostname, port or 0, text)
        if port and not parts.scheme and parts.netloc == text and not parts.username:
            return WaitTarget(parts.hostname, port)
    raise UsageError(f"invalid --wait-for {text!r}", hint="use a URL such as http://b/ready, or HOST:PORT.")


@dataclass(frozen=True, slots=True)
class WaitFor:
    """What ``run`` waits for, one after the other, and how many seconds all of it may take."""

    targets: tuple[str, ...]
    seconds: float

    def command(self, proxy: str | None) -> list[str]:
        """The program that waits; *proxy*: host and port of the one by which the cluster is reached."""
        options = [] if proxy is None else ["--proxy", proxy]
        return [sys.executable, "-P", "-m", READY, *options, f"{self.seconds:g}", "--", *self.targets]


NOTHING: Final = WaitFor((), 0.0)
