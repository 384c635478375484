"""The network namespaces and the wires between them: a pure plan, and its application.

Two bridges: node 1's `eth0` is the switch of the node network, wan's `lan` the office switch. Both are the gateway
at the same time, which saves a hop on the path that the benchmark measures. Node 2 hangs on node 1's switch; each node
has a route to the pods of the other.
"""

import os
from collections.abc import Iterable

from tests.cluster import addresses as plan
from tests.cluster import processes
from tests.cluster.hashing import text_hash
from tests.cluster.kinds import NODES, ClusterKind
from tests.cluster.paths import NETNS
from tests.cluster.run import run
from tests.cluster.state import State

# One entry: the namespace and lines for `ip -batch`. "" is the machine's namespace, which only makes the cables.
Wiring = list[tuple[str, list[str]]]

FACT = "network"


def wiring(kind: ClusterKind) -> Wiring:
    """Every `ip` command, in order."""
    return [
        *([("", _cables(kind))]),
        *((node.namespace, _node(node, kind)) for node in plan.nodes(kind)),
        (plan.WAN_NAMESPACE, _wan(kind)),
        *((plan.laptop(number).namespace, _laptop(plan.laptop(number))) for number in plan.LAPTOPS),
    ]


def settings(kind: ClusterKind) -> dict[str, list[str]]:
    """Namespace → kernel settings. cubic is the default of distributions; a machine may have another."""
    cubic = "net.ipv4.tcp_congestion_control=cubic"
    return {
        **{node.namespace: [cubic, "net.ipv4.ip_forward=1"] for node in plan.nodes(kind)},
        plan.WAN_NAMESPACE: [cubic, "net.ipv4.ip_forward=1"],
        **{plan.laptop(number).namespace: [cubic, "net.ipv4.ping_group_range=0 2147483647"] for number in plan.LAPTOPS},
    }


def rulesets(kind: ClusterKind) -> dict[str, str]:
    """Namespace → nftables rules. Pods of two nodes know each other by their own addresses, which the CNI plugin's
    `ipMasq` would hide: it knows the range of its own node only (components.cni)."""
    if kind.nodes == 1:
        return {}
    return {node.namespace: _masquerade(node) for node in plan.nodes(kind)}


def _masquerade(node: plan.Node) -> str:
    return f"""\
table ip testbed {{
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    ip saddr {node.pods} ip daddr != {plan.PODS} masquerade
  }}
}}
"""


def fingerprint(kind: ClusterKind) -> str:
    """Differs when the plan does."""
    return text_hash([repr(wiring(kind)), repr(settings(kind)), *rulesets(kind).values()])


def is_up(state: State, kind: ClusterKind) -> bool:
    """Whether the namespaces exist and were made by this very plan."""
    return state.facts.get(FACT) == fingerprint(kind) and all(exists(name) for name in plan.namespaces(kind))


def exists(namespace: str) -> bool:
    """Whether NAMESPACE is there. A name alone is not enough: after a reboot it may be left as an empty file."""
    return (NETNS / namespace).exists() and os.path.ismount(NETNS / namespace)


def create(state: State, kind: ClusterKind) -> None:
    """Make everything from nothing."""
    for name in plan.namespaces(kind):
        run("ip", "netns", "add", name)
    for namespace, lines in wiring(kind):
        _batch(namespace, lines)
    for namespace, values in settings(kind).items():
        run("ip", "netns", "exec", namespace, "sysctl", "-qw", *values)
    for namespace, rules in rulesets(kind).items():
        run("ip", "netns", "exec", namespace, "nft", "-f", "-", stdin=rules)
    state.set_fact(FACT, fingerprint(kind))


def destroy(state: State) -> None:
    """Remove the namespaces; devices and cables go with the last process inside, so those are ended first.

    Those of the largest kind: `down` is complete whatever the state says.
    """
    state.facts.pop(FACT, None)
    state.save()
    for name in plan.namespaces(ClusterKind(nodes=max(NODES))):
        if exists(name):
            processes.kill_in_network(NETNS / name)
            run("ip", "netns", "delete", name)
        (NETNS / name).unlink(missing_ok=True)


def _batch(namespace: str, lines: Iterable[str]) -> None:
    inside = ("-n", namespace) if namespace else ()
    run("ip", *inside, "-batch", "-", stdin="\n".join(lines) + "\n")


def _cables(kind: ClusterKind) -> list[str]:
    lines = [_cable(node.namespace, "uplink", plan.WAN_NAMESPACE, node.wan_port) for node in plan.nodes(kind)]
    lines += [_cable(node.namespace, "eth0", plan.NODE_NAMESPACE, node.name) for node in _beside_first(kind)]
    for number in plan.LAPTOPS:
        laptop = plan.laptop(number)
        lines.append(_cable(laptop.namespace, "node0", plan.NODE_NAMESPACE, laptop.hostname))
        lines.append(_cable(laptop.namespace, "eth0", plan.WAN_NAMESPACE, laptop.hostname))
    return lines


def _cable(one: str, one_name: str, other: str, other_name: str) -> str:
    return f"link add {one_name} netns {one} type veth peer name {other_name} netns {other}"


def _bridge(name: str, ports: Iterable[str]) -> list[str]:
    lines = [f"link add {name} type bridge"]
    for port in ports:
        lines += [f"link set {port} master {name}", f"link set {port} up"]
    return lines


def _ports() -> list[str]:
    return [plan.laptop(number).hostname for number in plan.LAPTOPS]


def _beside_first(kind: ClusterKind) -> list[plan.Node]:
    """The nodes that hang on node 1's switch."""
    return [node for node in plan.nodes(kind) if node != plan.FIRST_NODE]


def _node(node: plan.Node, kind: ClusterKind) -> list[str]:
    """Node 1 is the switch and has the VPC's address; the others have a cable and a route there."""
    first = node == plan.FIRST_NODE
    ports = [*_ports(), *(other.name for other in _beside_first(kind))]
    return [
        "link set lo up",
        *([f"address add {plan.VPC}/32 dev lo", *_bridge("eth0", ports)] if first else []),
        f"address add {node.address}/{plan.NODE_NETWORK.prefixlen} dev eth0",
        "link set eth0 up",
        f"address add {node.uplink} dev uplink",
        "link set uplink up",
        f"route add default via {node.uplink_gateway}",
        *([] if first else [f"route add {plan.VPC}/32 via {plan.NODE}"]),
        *(f"route add {other.pods} via {other.address}" for other in plan.nodes(kind) if other != node),
    ]


def _wan(kind: ClusterKind) -> list[str]:
    uplinks = [
        line
        for node in plan.nodes(kind)
        for line in (
            f"address add {node.uplink_gateway}/{node.uplink.network.prefixlen} dev {node.wan_port}",
            f"link set {node.wan_port} up",
        )
    ]
    return [
        "link set lo up",
        f"address add {plan.WAN_DNS}/32 dev lo",
        f"address add {plan.WAN_WEB}/32 dev lo",
        *_bridge("lan", _ports()),
        f"address add {plan.LAN_GATEWAY}/{plan.LAN.prefixlen} dev lan",
        "link set lan up",
        *uplinks,
        "route add unreachable default",  # the end of the world answers at once instead of swallowing packets
    ]


def _laptop(laptop: plan.Laptop) -> list[str]:
    return [
        "link set lo up",
        f"address add {laptop.node_network} dev node0",
        "link set node0 up",
        f"address add {laptop.lan} dev eth0",
        "link set eth0 up",
        f"route add default via {plan.LAN_GATEWAY}",
    ]
