"""Which logs a command line means, and where in the cluster they are. Pure."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from meshdev.errors import ConfigError, InterceptError, UsageError
from meshdev.wire.session_api import Status

Component = Literal["session", "helper", "manager", "sidecar"]
COMPONENTS: Final[tuple[Component, ...]] = ("session", "helper", "manager", "sidecar")

_LOCAL: Final[frozenset[Component]] = frozenset({"session", "helper"})


class LogPlace(NamedTuple):
    """Where in the cluster: namespaces of the manager and of targets that name none, and own intercepts there."""

    manager: str
    targets: str
    intercepts: tuple[tuple[str, str], ...] = ()
    """Target and namespace."""


def parsed(typed: Sequence[str]) -> tuple[Component, ...]:
    """The components of ``--component``, each once. Raises UsageError."""
    found: tuple[Component, ...] = tuple(each for each in COMPONENTS if each in typed)
    if len(found) < len(set(typed)):
        raise UsageError("--component takes none but " + ", ".join(COMPONENTS))
    return found


def components(
    given: Sequence[Component], target: str | None, *, connected: bool, previous: bool
) -> tuple[Component, ...]:
    """What to show. Without a choice: a target's sidecars; else this machine's, and while connected the manager.

    Raises UsageError for what has no former instance.
    """
    if previous and not _LOCAL.isdisjoint(given):
        raise UsageError("--previous is for containers in the cluster", hint="--component manager, or name a target")
    if given:
        return tuple(given)
    if target is not None:
        return ("sidecar",)
    if previous:
        return ("manager",)
    return ("session", "helper", "manager") if connected else ("session", "helper")


def place(
    status: Status | None, server: str, namespace: str, manager_namespace: str | None, *, chosen: bool
) -> LogPlace:
    """Where the connection is, if it is one to *server*; else where the kubeconfig's context is, its *namespace*.

    Raises ConfigError for another server, unless the user has *chosen* it.
    """
    if status is not None and status.server not in {None, server}:
        if not chosen:
            raise ConfigError(
                f"the connection is to {status.server}, the kubeconfig's context of that name to {server}",
                hint="name the kubeconfig that the connection was made with: --kubeconfig",
            )
        status = None
    if status is None:
        return LogPlace(manager_namespace or namespace, namespace)
    own = dict.fromkeys((each.target, each.namespace) for each in status.intercepts)
    manager = manager_namespace or status.manager_namespace or namespace
    return LogPlace(manager, status.namespace or namespace, tuple(own))


def targets(typed: str | None, namespace: str | None, where: LogPlace) -> tuple[tuple[str, str], ...]:
    """Whose sidecars, with their namespaces: those of what was *typed*, or of all intercepts of this machine.

    Raises InterceptError where there are none.
    """
    if typed is not None:
        return ((typed, namespace or where.targets),)
    if not where.intercepts:
        raise InterceptError("nothing is intercepted from here", hint="name a target: meshdev logs deployment/b")
    return where.intercepts
