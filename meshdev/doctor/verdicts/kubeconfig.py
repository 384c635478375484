"""The kubeconfig and the credentials in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshdev.doctor.verdicts.finding import Finding, failed, ok, warning
from meshdev.text import first_few

_OTHERS_READ: Final = 0o044
_OTHERS_WRITE: Final = 0o022
#: What runs out sooner than this, in seconds, is worth a word.
_SOON_SECONDS: Final = 300.0
#: A plugin that takes longer delays each command, in seconds.
_SLOW_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class SecretFile:
    """A file with credentials; *mode* are its permission bits."""

    path: str
    mode: int
    uid: int


def context(name: str, namespace: str, server: str) -> Finding:
    """A kubeconfig that could be read."""
    return ok(f"context {name}, namespace {namespace}, {server}")


def permissions(files: Sequence[SecretFile], uid: int) -> Finding:
    """Whether others may read the credentials, or write a plugin's command that this user then runs."""
    writable = [each.path for each in files if each.mode & _OTHERS_WRITE]
    foreign = [each.path for each in files if each.uid not in {0, uid}]
    readable = [each.path for each in files if each.mode & _OTHERS_READ]
    if writable:
        return failed(
            f"other users may write {first_few(writable)}, and so choose a command that runs as you",
            f"chmod go-w {' '.join(writable)}",
        )
    if foreign:
        return warning(f"{first_few(foreign)} belongs to another user", f"sudo chown {uid} {' '.join(foreign)}")
    if readable:
        return warning(f"other users may read {first_few(readable)}", f"chmod go-r {' '.join(readable)}")
    return ok(f"{first_few([each.path for each in files])}: yours alone")


@dataclass(frozen=True, slots=True)
class CredentialFacts:
    """How the user is identified (*kind*, empty where not at all), *seconds* it took, and *left* until it runs out."""

    kind: str
    plugin: bool = False
    seconds: float = 0.0
    left: float | None = None


def credentials(facts: CredentialFacts) -> Finding:
    """Credentials that could be had; whether the API server takes them is seen by its answers."""
    if not facts.kind:
        return warning(
            "the kubeconfig's user has no credentials, so requests are anonymous", "kubectl config view --minify"
        )
    if facts.left is not None and facts.left < _SOON_SECONDS and not facts.plugin:
        return warning(
            f"{facts.kind}, which runs out in {max(facts.left, 0):.0f} s", "log in again, as your cluster wants it"
        )
    if facts.seconds > _SLOW_SECONDS:
        return warning(
            f"{facts.kind} took {facts.seconds:.1f} s, and so does each command that runs it",
            "many plugins have a cache that can be turned on",
        )
    return ok(f"{facts.kind}{f' ({facts.seconds:.1f} s)' if facts.plugin else ''}")
