"""Which requests of a pod are the kubelet's: probes see the original and never a laptop (docs/design/0009). Pure.

So do the HTTP requests of its hooks: a preStop is meant for the container that ends, not for a program on a laptop.
exec probes run inside the app; tcpSocket probes see whether the app listens, since connections are redirected only
while it does.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from meshdev.wire.agent import MAX_PROBES, PROBES, Probe

#: In the sidecar's environment.
PROBES_VARIABLE: Final = "MESHDEV_PROBES"

_KINDS: Final = ("startupProbe", "readinessProbe", "livenessProbe")
_HOOKS: Final = ("postStart", "preStop")
#: What kubelets call themselves (k8s.io/kubernetes, pkg/probe/http and grpc: ``kube-probe/1.35``; since 1.26
#: pkg/kubelet/lifecycle: ``kube-lifecycle/1.35``).
_AGENT: Final = "kube-probe/"
_HOOK_AGENT: Final = "kube-lifecycle/"
_GRPC_PATH: Final = "/grpc.health.v1.Health/Check"

Object = Mapping[str, Any]


def probes(pod: Object) -> tuple[Probe, ...]:
    """The HTTP and gRPC probes of a pod (or of a template)."""
    found = {probe for container in _containers(pod) for probe in _of(container)}
    return tuple(sorted(found))[:MAX_PROBES]


def encoded(found: Sequence[Probe]) -> str:
    """The value of :data:`PROBES_VARIABLE`."""
    return json.dumps(PROBES.dump(tuple(found)), separators=(",", ":"))


def _containers(pod: Object) -> Iterator[Object]:
    spec = pod.get("spec") or {}
    yield from spec.get("containers") or []
    # Native sidecars have probes, too.
    yield from (each for each in spec.get("initContainers") or [] if each.get("restartPolicy") == "Always")


def _of(container: Object) -> Iterator[Probe]:
    hooks = container.get("lifecycle") or {}
    for probe in (container.get(kind) or {} for kind in _KINDS):
        yield from _http(container, probe.get("httpGet"), _AGENT)
        if (grpc := probe.get("grpc")) is not None and isinstance(grpc.get("port"), int):
            yield Probe(grpc["port"], _GRPC_PATH, _AGENT)
    for hook in (hooks.get(kind) or {} for kind in _HOOKS):
        yield from _http(container, hook.get("httpGet"), _HOOK_AGENT)


def _http(container: Object, http: Object | None, agent: str) -> Iterator[Probe]:
    if http is None or (http.get("scheme") or "HTTP") != "HTTP" or http.get("host"):
        return
    number = _number(container, http.get("port"))
    if number is not None:
        yield Probe(number, _path(http), _agent(http, agent))


def _number(container: Object, port: object) -> int | None:
    """The number of a port that may be given by name."""
    if isinstance(port, int):
        return port
    ports = container.get("ports") or []
    return next((each["containerPort"] for each in ports if each.get("name") == port), None)


def _path(http: Object) -> str:
    path = str(http.get("path") or "/").partition("?")[0]
    return path if path.startswith("/") else f"/{path}"


def _agent(http: Object, usual: str) -> str:
    """A probe may bring a User-Agent of its own."""
    headers = http.get("httpHeaders") or []
    return next((each.get("value") or "" for each in headers if each["name"].lower() == "user-agent"), usual)
