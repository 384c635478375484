"""`status`: what runs, as text or JSON."""

import json
import sys

from tests.cluster import addresses as plan
from tests.cluster import components, machine, network, resolved
from tests.cluster.paths import ADMIN_KUBECONFIG, AUDIT_LOG, LOGS
from tests.cluster.processes import is_alive
from tests.cluster.state import State


def show(*, as_json: bool) -> int:
    """Print it; 0 when everything runs, 1 otherwise."""
    state = State.load()
    names = [*components.NAMES, "wan", *(f"laptop{number}" for number in plan.LAPTOPS)]
    names += [name for number in resolved.LAPTOPS for name in resolved.names(number)]
    running = {name: is_alive(state.processes.get(name)) for name in names}
    networks = {name: network.exists(name) for name in plan.namespaces()}
    healthy = all(running.values()) and all(networks.values())
    if as_json:
        described = {
            "up": healthy,
            "processes": {name: state.processes[name].pid if alive else None for name, alive in running.items()},
            "namespaces": networks,
            "user": machine.USER,
            "kubeconfig": str(ADMIN_KUBECONFIG),
            "logs": str(LOGS),
            "audit_log": str(AUDIT_LOG),
        }
        sys.stdout.write(json.dumps(described, indent=1) + "\n")
    else:
        for name, alive in running.items():
            pid = f"pid {state.processes[name].pid}" if alive else "not running"
            sys.stdout.write(f"{name:20} {pid}\n")
    return 0 if healthy else 1
