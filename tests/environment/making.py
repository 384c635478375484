"""Pods and sources for tests, in few words."""

from typing import Any

from meshdev.environment.sources import ContainerView, Entries, Sources, Store, Unreadable

FORBIDDEN = Unreadable("you may not get secrets in namespace shop", forbidden=True)
ABSENT = Unreadable("there is none", absent=True)

METADATA = {
    "name": "web-1",
    "namespace": "shop",
    "uid": "0b1c",
    "labels": {"app": "web", "tier": "front"},
    "annotations": {"note": 'a "b"\n'},
}
STATUS = {
    "podIP": "10.244.0.7",
    "podIPs": [{"ip": "10.244.0.7"}, {"ip": "fd00::7"}],
    "hostIP": "192.0.2.1",
    "hostIPs": [{"ip": "192.0.2.1"}, {"ip": "fd00::1"}],
}


def pod(container: dict[str, Any], *, live: bool = True, **spec: Any) -> ContainerView:
    """A pod web-1 in namespace shop with that one container, or the template of one."""
    made = {"name": "app", **container}
    everything = {"nodeName": "node-1", "serviceAccountName": "web", "containers": [made], **spec}
    if not live:
        del everything["nodeName"]
        return ContainerView("shop", {"metadata": {"labels": {"app": "web"}}, "spec": everything}, made, live=False)
    return ContainerView("shop", {"metadata": METADATA, "spec": everything, "status": STATUS}, made, live=True)


def config_map(name: str, **data: str) -> dict[Store, Entries | Unreadable]:
    return {Store("ConfigMap", name): Entries({key: value.encode() for key, value in data.items()})}


def secret(name: str, **data: bytes) -> dict[Store, Entries | Unreadable]:
    return {Store("Secret", name): Entries(data)}


def sources(view: ContainerView, *stores: dict[Store, Entries | Unreadable], **more: Any) -> Sources:
    return Sources(view, {key: value for each in stores for key, value in each.items()}, **more)


def service(name: str, address: str, *ports: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"clusterIP": address, "ports": list(ports)}}
