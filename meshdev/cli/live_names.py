"""Where completed names come from: the kubeconfig, one request to the API server, or the session.

A request has a second; its answer is kept for some seconds, as a shell asks at each Tab.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from meshdev.cli import api, name_cache, options
from meshdev.errors import MeshdevError, UsageError
from meshdev.intercept.target import Target, kind_of, parse_target
from meshdev.kube import kubeconfig, lookup
from meshdev.kube.client import workloads_path
from meshdev.kube.kubeconfig import Kubeconfig, Options
from meshdev.state import Paths
from meshdev.wire.modes import MODES
from meshdev.wire.session_api import Status, StatusRequest

#: What is offered before a kind is typed; the other kinds work, too, once they are.
_OFFERED: Final = ("deployment", "service", "statefulset", "daemonset", "pod")
_REQUEST_SECONDS: Final = 1.0
_SESSION_SECONDS: Final = 0.2
#: More names than a person reads; the server sends the first.
_MOST: Final = 500
#: Names and labels without the objects (https://kubernetes.io/docs/reference/using-api/api-concepts/, metadata only).
_NAMES_ONLY: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
_JSON: Final = "application/json"

T = TypeVar("T")
Given = Mapping[str, Any]
"""What is typed before, by the names of the command's parameters."""


def contexts(given: Given) -> list[str]:
    """Of the kubeconfig."""
    return list(kubeconfig.merged(Options(options.kubeconfig_file(given.get("kubeconfig"))))["contexts"])


def namespaces(given: Given) -> list[str]:
    """Of the cluster that the command would ask."""
    return _listed(given, "/api/v1/namespaces")


def targets(given: Given, incomplete: str) -> list[str]:
    """Kinds with a slash; behind it, or where only one kind can be meant, its objects."""
    typed, slash, _ = incomplete.partition("/")
    if not slash:
        meant = [kind for kind in _OFFERED if kind.startswith(typed)]
        if len(meant) != 1:
            return [f"{kind}/" for kind in meant]
        typed = meant[0]
    kind = kind_of(typed)
    if kind is None:
        return []
    return [f"{typed}/{name}" for name in _listed(given, workloads_path(_namespace(given), kind))]


def own_targets(incomplete: str) -> list[str]:
    """Those of this machine's intercepts; also where a short kind is typed, ``deploy/``."""
    status = _status()
    found = {each.target for each in status.intercepts} if status else set()
    typed, slash, _ = incomplete.partition("/")
    kind = kind_of(typed) if slash else None
    return sorted(f"{typed}/{each.partition('/')[2]}" if each.partition("/")[0] == kind else each for each in found)


def ports(given: Given, incomplete: str) -> list[tuple[str, str]]:
    """Numbers, and behind ``LOCAL:`` names as well."""
    target = _target(given)
    path = workloads_path(_namespace(given), target.kind, target.name)
    found = _asked(given, path, _JSON, _ports)
    local, colon, _ = incomplete.partition(":")
    if not colon:
        return [(str(number), name) for number, name in found]
    numbers = [(f"{local}:{number}", name) for number, name in found]
    return numbers + [(f"{local}:{name}", str(number)) for number, name in found if name]


def _target(given: Given) -> Target:
    """The one that is typed; of several, the last. Raises MeshdevError without one."""
    typed = [each for mode in MODES for each in given.get(mode) or ()]
    return parse_target(given.get("target") or (typed[-1] if typed else ""))


def _ports(found: Any) -> list[list[Any]]:  # noqa: ANN401 -- JSON
    """A Service's own ports; of what has pods, those of its containers."""
    spec = found["spec"]
    holders = [spec] if found["kind"] == "Service" else spec.get("template", {"spec": spec})["spec"]["containers"]
    ports = [port for holder in holders for port in holder.get("ports") or ()]
    return [
        [int(port.get("port") or port["containerPort"]), str(port.get("name") or "")]
        for port in ports
        if port.get("protocol", "TCP") in {"TCP", "UDP"}
    ]


def _listed(given: Given, path: str) -> list[str]:
    return _asked(given, f"{path}?limit={_MOST}", _NAMES_ONLY, _names)


def _names(found: Any) -> list[str]:  # noqa: ANN401 -- JSON
    return [str(item["metadata"]["name"]) for item in found["items"]]


def _asked(given: Given, path: str, accept: str, read: Callable[[Any], list[T]]) -> list[T]:
    """What *read* takes of the answer. Nothing else is kept: an object may have secrets in its environment."""
    if given.get("ssh"):
        raise UsageError("a login at a bastion takes longer than a completion may")
    config, asked = _config(given)
    key = (config.server, config.context, asked.kubeconfig, asked.as_user, path)
    paths = Paths.locate()
    known: list[T] | None = name_cache.recall(paths, key, time.time())
    if known is None:
        known = read(lookup.get(config, asked, path, accept, _REQUEST_SECONDS))
        name_cache.remember(paths, key, known, time.time())
    return known


def _config(given: Given) -> tuple[Kubeconfig, Options]:
    """The cluster on the command line, else that of the connection, else the kubeconfig's."""
    asked = Options(
        options.kubeconfig_file(given.get("kubeconfig")), given.get("context"), as_user=given.get("as_user") or None
    )
    status = None if asked.context or asked.kubeconfig else _status()
    if status is not None and status.ssh:
        raise UsageError("only the bastion reaches that cluster")  # as above
    if status is not None and status.context in kubeconfig.merged(asked)["contexts"]:
        asked = replace(asked, context=status.context)
    return kubeconfig.load(asked), asked


def _namespace(given: Given) -> str:
    """The target's: the one that is typed, else the connection's, else the context's."""
    if given.get("namespace"):
        return str(given["namespace"])
    status = None if given.get("context") or given.get("kubeconfig") else _status()
    return (status.namespace if status else None) or _config(given)[0].namespace


def _status() -> Status | None:
    """The session's, where one is running and answers at once."""
    paths = Paths.locate()
    if not paths.holder():
        return None
    with contextlib.suppress(api.NoAnswer, MeshdevError):
        return api.ask(paths, StatusRequest(), _SESSION_SECONDS)
    return None
