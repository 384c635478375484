"""Joining on a laptop, for tests: ``python -m tests.e2e.join_probe KUBECONFIG WHAT NAMESPACE TARGET …`` prints JSON.

As :mod:`tests.e2e.kube_probe`. Sidecars run a stand-in that tells what it was given and sleeps: the real one is tested
with the sessions.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, cast

from meshdev.errors import MeshdevError
from meshdev.intercept.lease import LeaseStatus
from meshdev.intercept.match import parse_match
from meshdev.intercept.spec import Spec
from meshdev.intercept.target import parse_target
from meshdev.kube import leases, workloads
from meshdev.kube.client import KubeApi
from meshdev.kube.kubeconfig import Options
from meshdev.kube.observing import Observer
from meshdev.kube.ports import resolve_ports
from meshdev.kube.replicas import Replica
from meshdev.kube.workloads import Resolved, pods_of
from meshdev.sidecar.join import patch
from meshdev.sidecar.join.choice import choose
from meshdev.sidecar.join.container import SidecarSpec
from meshdev.sidecar.join.ephemeral import keep_joined
from meshdev.wire.modes import MESH, PROXY
from meshdev.wire.session_intercepts import Strategy

IMAGE: Final = "localhost/meshdev-sample:1"
MANAGER: Final = "10.96.0.250:15010"
#: Tells its environment, user and capabilities; ends by itself, as an ephemeral container must.
STAND_IN: Final = """
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
names = ("MESHDEV_WORKLOAD_UID", "MESHDEV_MANAGER", "POD_NAME", "POD_UID", "POD_NAMESPACE", "POD_IP")
told = {name: os.environ.get(name, "") for name in names}
print(json.dumps({**told, "uid": os.getuid(), "capabilities": int(status["CapEff"], 16)}), flush=True)
time.sleep(30)
"""


def sidecar(workload: Any, command: tuple[str, ...] = ("python3", "-c", STAND_IN)) -> SidecarSpec:
    """The stand-in for sidecars of a workload."""
    return SidecarSpec(IMAGE, MANAGER, "default", workload.uid, command)


async def _resolved(api: KubeApi, namespace: str, target: str) -> Resolved:
    return await workloads.resolve(api, parse_target(target), namespace)


async def resolve(api: KubeApi, namespace: str, target: str) -> dict[str, Any]:
    """What a target is."""
    found = await _resolved(api, namespace, target)
    pods = await pods_of(api, found)
    ports = resolve_ports((), found.ports, PROXY, target)
    return {
        "workload": str(found.workload),
        "pods": len(pods),
        "ports": [f"{port.remote}/{port.protocol}" for port in ports],
    }


async def decide(api: KubeApi, namespace: str, target: str, wanted: str = "auto") -> str:
    """Which strategy is chosen."""
    found = await _resolved(api, namespace, target)
    return await choose(api, found, await pods_of(api, found), sidecar(found.workload), cast("Strategy", wanted))


async def keep(api: KubeApi, namespace: str, target: str, count: str) -> dict[str, Any]:
    """Join all pods until *count* of them have a sidecar that runs; when each was first seen ready and joined."""
    found = await _resolved(api, namespace, target)
    start, done = time.monotonic(), asyncio.Event()
    ready: dict[str, float] = {}
    joined: dict[str, float] = {}
    failures: list[str] = []

    def changed(state: Mapping[str, Replica]) -> None:
        now = time.monotonic() - start
        for pod in state.values():
            if pod.ready:
                ready.setdefault(pod.name, now)
            if any(each.state == "running" for each in pod.sidecars):
                joined.setdefault(pod.name, now)
        if len(joined.keys() & {pod.name for pod in state.values()}) >= int(count):
            done.set()

    keeping = asyncio.ensure_future(
        keep_joined(
            api,
            found,
            sidecar(found.workload),
            changed=changed,
            failed=lambda pod, error: failures.append(f"{pod.name}: {error.message}"),
        )
    )
    try:
        async with asyncio.timeout(25):
            await done.wait()
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping
    return {"uid": found.workload.uid, "ready": ready, "joined": joined, "failures": failures}


async def enter(api: KubeApi, namespace: str, target: str, wanted: str) -> dict[str, Any]:
    """The patch goes in and is rolled out."""
    found = await _resolved(api, namespace, target)
    told: list[str] = []
    spec = sidecar(found.workload, ("python3", "-c", STAND_IN.replace("sleep(30)", "sleep(3000)")))
    assert await choose(api, found, await pods_of(api, found), spec, cast("Strategy", wanted)) == "patch"
    start = time.monotonic()
    await patch.enter(api, found, spec, "0" * 32, progress=told.append, seconds=50)
    return {"told": told, "seconds": time.monotonic() - start}


async def leave(api: KubeApi, namespace: str, target: str) -> bool:
    """The patch comes out again."""
    found = await _resolved(api, namespace, target)
    return await patch.leave(api, found, lambda: leases.anyone_on(api, found.workload, Observer()))


async def take(api: KubeApi, namespace: str, target: str, holder: str, *flags: str) -> dict[str, Any]:
    """Claim ``a=1`` (or all traffic) on a target; the Lease's name."""
    found = await _resolved(api, namespace, target)
    mode = PROXY if "proxy" in flags else MESH
    match = parse_match(headers=["a=1"]) if mode.needs_match else None
    ports = resolve_ports((), found.ports, mode, target)
    spec = Spec(f"{time.time_ns():032x}", found.workload, mode, match, ports)
    held = await leases.take(api, spec, holder, "default", observer=Observer(), takeover="takeover" in flags)
    held = await leases.renew(api, held, LeaseStatus("active", 1, 2))
    return {"name": held.object["metadata"]["name"], "holders": [each.holder for each in (await _all(api, namespace))]}


async def _all(api: KubeApi, namespace: str) -> tuple[Any, ...]:
    return (await leases.all_of(api, namespace)).records


WHAT: Final[dict[str, Callable[..., Awaitable[Any]]]] = {
    function.__name__: function for function in (resolve, decide, keep, enter, leave, take)
}


async def main(kubeconfig: str, what: str, *arguments: str) -> dict[str, Any]:
    """Run one of :data:`WHAT`."""
    options = Options(kubeconfig=None if kubeconfig == "-" else kubeconfig, request_timeout=10)
    try:
        async with await KubeApi.open(options) as api:
            return {"ok": await WHAT[what](api, *arguments)}
    except MeshdevError as error:
        return {"error": {"kind": type(error).__name__, **error.as_json()}}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
