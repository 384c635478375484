"""Which requests of a pod are the kubelet's: probes see the original and never a laptop (design: D9). Pure.

exec probes run inside the app; tcpSocket probes see whether the app listens, since the agent withdraws a redirect
without a listener.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from meshdev.wire.agent import MAX_PROBES, Probe
from meshdev.wire.fields import plain

#: In the sidecar's environment.
PROBES_VARIABLE: Final = "MESHDEV_PROBES"

_KINDS: Final = ("startupProbe", "readinessProbe", "livenessProbe")
#: What kubelets call themselves (k8s.io/kubernetes, pkg/probe/http and grpc: ``kube-probe/1.35``).
_AGENT: Final = "kube-probe/"
_GRPC_PATH: Final = "/grpc.health.v1.Health/Check"

Object = Mapping[str, Any]


def probes(pod: Object) -> tuple[Probe, ...]:
    """The HTTP and gRPC probes of a pod (or of a template)."""
    found = {probe for container in _containers(pod) for probe in _of(container)}
    return tuple(sorted(found))[:MAX_PROBES]


def encoded(found: Sequence[Probe]) -> str:
    """The value of :data:`PROBES_VARIABLE`."""
    return json.dumps(plain(found), separators=(",", ":"))


def _containers(pod: Object) -> Iterator[Object]:
    spec = pod.get("spec") or {}
    yield from spec.get("containers") or []
    # Native sidecars have probes, too.
    yield from (each for each in spec.get("initContainers") or [] if each.get("restartPolicy") == "Always")


def _of(container: Object) -> Iterator[Probe]:
    for kind in _KINDS:
        probe = container.get(kind) or {}
        if (http := probe.get("httpGet")) is not None and (http.get("scheme") or "HTTP") == "HTTP":
            number = _number(container, http.get("port"))
            if number is not None and not http.get("host"):
                yield Probe(number, _path(http), _agent(http))
        if (grpc := probe.get("grpc")) is not None and isinstance(grpc.get("port"), int):
            yield Probe(grpc["port"], _GRPC_PATH, _AGENT)


def _number(container: Object, port: object) -> int | None:
    """The number of a port that may be given by name."""
    if isinstance(port, int):
        return port
    ports = container.get("ports") or []
    return next((each["containerPort"] for each in ports if each.get("name") == port), None)


def _path(http: Object) -> str:
    path = str(http.get("path") or "/").partition("?")[0]
    return path if path.startswith("/") else f"/{path}"


def _agent(http: Object) -> str:
    """A probe may bring a User-Agent of its own."""
    headers = http.get("httpHeaders") or []
    return next((each.get("value") or "" for each in headers if each["name"].lower() == "user-agent"), _AGENT)
