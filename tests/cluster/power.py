"""A node without power: nothing of it runs, and its cables are dead. Disks stay, so it comes back with what it had.

Not node 1, which has the API server and is the switch of the node network.
"""

from tests.cluster import addresses as plan
from tests.cluster import cgroups, cluster, processes
from tests.cluster.components import Programs
from tests.cluster.kinds import ClusterKind
from tests.cluster.paths import NETNS
from tests.cluster.run import TestbedError, run
from tests.cluster.state import State

_COMPONENTS = ("kubelet", "kube-proxy", "containerd")


def find(kind: ClusterKind, name: str) -> plan.Node:
    """The node NAME; TestbedError for one that cannot be without power."""
    others = {node.name: node for node in plan.nodes(kind) if node != plan.FIRST_NODE}
    if name not in others:
        raise TestbedError(f"{name} cannot be stopped or started; what can: {', '.join(others) or 'nothing'}")
    return others[name]


def off(state: State, node: plan.Node) -> None:
    """At once, and nobody is told. First what would start others again: the kubelet, containerd and its shims."""
    _plug(node, "down")
    processes.kill_in_network(NETNS / node.namespace)
    cgroups.kill(node.folders.cgroup)
    for name in _COMPONENTS:
        processes.stop(state, node.component(name))  # only its record is left


def on(state: State, kind: ClusterKind, programs: Programs, node: plan.Node) -> None:
    """Its programs run, and the cluster calls it ready."""
    plug(node)
    cluster.ensure_node(state, kind, programs, node)


def plug(node: plan.Node) -> None:
    """Its cables work; nothing happens where they do."""
    _plug(node, "up")


def _plug(node: plan.Node, how: str) -> None:
    """At the far ends: what is set at its own stays."""
    run("ip", "-n", plan.NODE_NAMESPACE, "link", "set", node.name, how)
    run("ip", "-n", plan.WAN_NAMESPACE, "link", "set", node.wan_port, how)
