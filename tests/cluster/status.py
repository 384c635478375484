"""`status`: what runs, as text or JSON."""

import json
import sys
from dataclasses import asdict

from tests.cluster import addresses as plan
from tests.cluster import components, kinds, machine, network, resolved
from tests.cluster.paths import ADMIN_KUBECONFIG, AUDIT_LOG, LOGS
from tests.cluster.processes import is_alive
from tests.cluster.state import State


def show(*, as_json: bool) -> int:
    """Print it; 0 when everything runs, 1 otherwise."""
    state = State.load()
    up = kinds.running(state.facts)
    kind = up or kinds.DEFAULT
    names = [*components.names(kind), "wan", *(f"laptop{number}" for number in plan.LAPTOPS)]
    names += [name for number in resolved.LAPTOPS for name in resolved.names(number)]
    running = {name: is_alive(state.processes.get(name)) for name in names}
    networks = {name: network.exists(name) for name in plan.namespaces(kind)}
    healthy = all(running.values()) and all(networks.values())
    if as_json:
        described = {
            "up": healthy,
            "kind": asdict(up) if up else None,
            "processes": {name: state.processes[name].pid if alive else None for name, alive in running.items()},
            "namespaces": networks,
            "user": machine.USER,
            "kubeconfig": str(ADMIN_KUBECONFIG),
            "logs": str(LOGS),
            "audit_log": str(AUDIT_LOG),
        }
        sys.stdout.write(json.dumps(described, indent=1) + "\n")
    else:
        sys.stdout.write(f"{'kind':20} {up or 'none: not up'}\n")
        for name, alive in running.items():
            pid = f"pid {state.processes[name].pid}" if alive else "not running"
            sys.stdout.write(f"{name:20} {pid}\n")
    return 0 if healthy else 1
