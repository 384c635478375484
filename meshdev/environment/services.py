"""The variables of Services, as in k8s.io/kubernetes/pkg/kubelet/envvars."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from meshdev.environment.sources import Object, items_of

#: The one of namespace default whose variables every container has.
API_SERVICE: Final = "kubernetes"
#: What the variables below are named; for references to one whose Service could not be read.
LINK: Final = re.compile(
    r"[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_[A-Z]+(_(PROTO|PORT|ADDR))?)?)"
)


def service_variables(services: Iterable[Object]) -> Mapping[str, str]:
    """The variables of all that have an address; of equal names the last Service's, sorted by their names."""
    named = sorted(services, key=lambda each: str(each["metadata"]["name"]))
    return {name: value for service in named for name, value in _variables(service)}


def _variables(service: Object) -> Iterator[tuple[str, str]]:
    spec = service.get("spec") or {}
    address, ports = str(spec.get("clusterIP") or ""), items_of(spec.get("ports"))
    if address in {"", "None"} or not ports:
        return
    prefix = _name(str(service["metadata"]["name"]))
    yield f"{prefix}_SERVICE_HOST", address
    yield f"{prefix}_SERVICE_PORT", str(ports[0]["port"])
    for port in ports:
        if port.get("name"):
            yield f"{prefix}_SERVICE_PORT_{_name(str(port['name']))}", str(port["port"])
    for index, port in enumerate(ports):
        yield from _links(prefix, address, port, first=index == 0)


def _links(prefix: str, address: str, port: Object, *, first: bool) -> Iterator[tuple[str, str]]:
    """Those of Docker's former links."""
    number, protocol = str(port["port"]), str(port.get("protocol") or "TCP")
    host = f"[{address}]" if ":" in address else address
    url, named = f"{protocol.lower()}://{host}:{number}", f"{prefix}_PORT_{number}_{protocol.upper()}"
    if first:
        yield f"{prefix}_PORT", url
    yield named, url
    yield f"{named}_PROTO", protocol.lower()
    yield f"{named}_PORT", number
    yield f"{named}_ADDR", address


def _name(name: str) -> str:
    return name.replace("-", "_").upper()
