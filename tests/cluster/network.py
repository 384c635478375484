"""The network namespaces and the wires between them: a pure plan, and its application.

Two bridges: the node's `eth0` is the switch of the node network, wan's `lan` the office switch. Both are the gateway
at the same time, which saves a hop on the path that the benchmark measures.
"""

import os
from collections.abc import Iterable

from tests.cluster import addresses as plan
from tests.cluster import processes
from tests.cluster.hashing import text_hash
from tests.cluster.paths import NETNS
from tests.cluster.run import run
from tests.cluster.state import State

# One entry: the namespace and lines for `ip -batch`. "" is the machine's namespace, which only makes the cables.
Wiring = list[tuple[str, list[str]]]

FACT = "network"


def wiring() -> Wiring:
    """Every `ip` command, in order."""
    return [
        *([("", _cables())]),
        (plan.NODE_NAMESPACE, _node()),
        (plan.WAN_NAMESPACE, _wan()),
        *((plan.laptop(number).namespace, _laptop(plan.laptop(number))) for number in plan.LAPTOPS),
    ]


def settings() -> dict[str, list[str]]:
    """Namespace → kernel settings. cubic is the default of distributions; a machine may have another."""
    cubic = "net.ipv4.tcp_congestion_control=cubic"
    return {
        plan.NODE_NAMESPACE: [cubic, "net.ipv4.ip_forward=1"],
        plan.WAN_NAMESPACE: [cubic, "net.ipv4.ip_forward=1"],
        **{plan.laptop(number).namespace: [cubic, "net.ipv4.ping_group_range=0 2147483647"] for number in plan.LAPTOPS},
    }


def fingerprint() -> str:
    """Differs when the plan does."""
    return text_hash([repr(wiring()), repr(settings())])


def is_up(state: State) -> bool:
    """Whether the namespaces exist and were made by this very plan."""
    return state.facts.get(FACT) == fingerprint() and all(exists(name) for name in plan.namespaces())


def exists(namespace: str) -> bool:
    """Whether NAMESPACE is there. A name alone is not enough: after a reboot it may be left as an empty file."""
    return (NETNS / namespace).exists() and os.path.ismount(NETNS / namespace)


def create(state: State) -> None:
    """Make everything from nothing."""
    for name in plan.namespaces():
        run("ip", "netns", "add", name)
    for namespace, lines in wiring():
        _batch(namespace, lines)
    for namespace, values in settings().items():
        run("ip", "netns", "exec", namespace, "sysctl", "-qw", *values)
    state.set_fact(FACT, fingerprint())


def destroy(state: State) -> None:
    """Remove the namespaces; devices and cables go with the last process inside, so those are ended first."""
    state.facts.pop(FACT, None)
    state.save()
    for name in plan.namespaces():
        if exists(name):
            processes.kill_in_network(NETNS / name)
            run("ip", "netns", "delete", name)
        (NETNS / name).unlink(missing_ok=True)


def _batch(namespace: str, lines: Iterable[str]) -> None:
    inside = ("-n", namespace) if namespace else ()
    run("ip", *inside, "-batch", "-", stdin="\n".join(lines) + "\n")


def _cables() -> list[str]:
    lines = [_cable(plan.NODE_NAMESPACE, "uplink", plan.WAN_NAMESPACE, "node")]
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


def _node() -> list[str]:
    return [
        "link set lo up",
        f"address add {plan.VPC}/32 dev lo",
        *_bridge("eth0", _ports()),
        f"address add {plan.NODE}/{plan.NODE_NETWORK.prefixlen} dev eth0",
        "link set eth0 up",
        f"address add {plan.UPLINK_NODE}/{plan.UPLINK.prefixlen} dev uplink",
        "link set uplink up",
        f"route add default via {plan.UPLINK_GATEWAY}",
    ]


def _wan() -> list[str]:
    return [
        "link set lo up",
        f"address add {plan.WAN_DNS}/32 dev lo",
        f"address add {plan.WAN_WEB}/32 dev lo",
        *_bridge("lan", _ports()),
        f"address add {plan.LAN_GATEWAY}/{plan.LAN.prefixlen} dev lan",
        "link set lan up",
        f"address add {plan.UPLINK_GATEWAY}/{plan.UPLINK.prefixlen} dev node",
        "link set node up",
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
