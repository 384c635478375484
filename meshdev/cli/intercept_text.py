"""Text about intercepts: one is up and how to try it, its counts, a line of ``status``."""

import shlex
from typing import Final

from meshdev.intercept import match
from meshdev.text import visible
from meshdev.wire.session_intercepts import InterceptRequest, InterceptStatus

#: Pods whose identity ``status`` shows, of one intercept.
_IDENTITIES: Final = 10


def up(status: InterceptStatus, asked: InterceptRequest) -> str:
    """It is up, and how to try it."""
    what = f"requests with {status.match}" if status.mode.needs_match else "all traffic"
    pending = f"; pending listener: {_pending(status)}" if status.pending_listeners else ""
    lines = [f"{status.target} in namespace {status.namespace}: {what} → this machine ({_ports(status)}{pending})"]
    if missing := _missing(status):
        lines.append(f"Nothing listens on {missing} yet: {_instead(status)}")
    if status.state == "active" and (command := trial(status, asked)) is not None:
        lines.append(f"Try it: {command}")
    lines.append("`meshdev leave` ends it" if status.detached else "Ctrl-C ends it")
    return "\n".join(lines)


def trial(status: InterceptStatus, asked: InterceptRequest) -> str | None:
    """A command whose request is intercepted; for a regular expression the user has to fill in a value.

    None where no Service targets it, and where the protocol has no requests that could match.
    """
    scheme, _, place = (status.url or "").partition("://")
    host = place.partition("/")[0]
    sample = match.sample(asked)
    headers = [word for header in sample.headers for word in ("-H", header)]  # grpcurl takes them as curl does
    match scheme:
        case "https" if asked.mode.needs_match:
            return None  # TLS hides the requests
        case "http" | "https" | "h2c":
            flags = {"https": ["-k"], "h2c": ["--http2-prior-knowledge"]}.get(scheme, [])
            url = f"{'https' if scheme == 'https' else 'http'}://{host}/{sample.path.removeprefix('/')}"
            method = ["-X", sample.method] if sample.method is not None else []
            return shlex.join(["curl", *flags, *method, *headers, url])
        case "grpc":
            return shlex.join(["grpcurl", "-plaintext", *headers, host, "list"])
        case "tcp" if asked.mode.takes_bytes:
            return shlex.join(["nc", "-v", *host.rsplit(":", 1)])
        case _:
            return None


def counts(status: InterceptStatus) -> str:
    """The live line."""
    parts = [*status.counts.texts(), _pods(status)]
    if status.pending_listeners:
        parts.append(f"pending listener: {_pending(status)}")
    if missing := _missing(status):
        parts.append(f"nothing listens on {missing}: {_instead(status)}")
    return ", ".join(parts)


def line(status: InterceptStatus) -> str:
    """For ``status``."""
    where = f"{status.target} in namespace {status.namespace}"
    state = "" if status.state == "active" else f" ({status.state})"
    return f"{where}: {status.mode} of {status.match}{state}, {_ports(status)}, {counts(status)}"


def identities(status: InterceptStatus) -> list[tuple[str, str]]:
    """Who the pods' Envoys show that they are; of many pods the first."""
    shown = [("identity", f"{each.pod}: {visible(each.identity)}") for each in status.identities[:_IDENTITIES]]
    more = len(status.identities) - len(shown)
    return [*shown, ("", f"and {more} more (status -o json)")] if more else shown


def _ports(status: InterceptStatus) -> str:
    """``port 80 → 8080`` for "8080:80/http"."""
    words = []
    for port in status.ports:
        local, _, remote = port.partition(":")
        words.append(f"{remote.removesuffix('/http').removesuffix('/tcp')} → {local}")
    return ("port " if len(words) == 1 else "ports ") + ", ".join(words)


def _pods(status: InterceptStatus) -> str:
    return f"{status.acked} of {_pods_there(status)}"


def _pods_there(status: InterceptStatus) -> str:
    return f"{status.total} pod{'' if status.total == 1 else 's'}"


def _missing(status: InterceptStatus) -> str:
    return ", ".join(f"{port.port}/{port.transport}" for port in status.local if not port.up)


def _pending(status: InterceptStatus) -> str:
    """``9999/tcp in 2 of 2 pods``: nothing listens there, so it is refused as without meshdev."""
    return ", ".join(
        f"{each.port}/{each.transport} in {each.pods} of {_pods_there(status)}" for each in status.pending_listeners
    )


def _instead(status: InterceptStatus) -> str:
    return "the original answers" if status.fallback else "the answer is 503"
