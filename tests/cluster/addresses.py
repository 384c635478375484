"""The address plan: pure data. Every address exists only inside the testbed's namespaces.

    laptopN ──── node network ──── node ── pods, Services
       └──────── lan ── wan ── public addresses (DNS, web)
                         └──── uplink ──── node

The lan is the laptop's default route; wan is a dead end, so nothing can leave the machine. `vpc` is an address that
only the node (and therefore a pod) can reach: what a database beside a cluster is in real life.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

LAPTOPS = (1, 2)

NODE_NETWORK = IPv4Network("172.30.0.0/24")
NODE = NODE_NETWORK[2]
API_SERVER = f"https://{NODE}:6443"

PODS = IPv4Network("10.244.0.0/16")
NODE_PODS = IPv4Network("10.244.0.0/24")
SERVICES = IPv4Network("10.96.0.0/16")
KUBERNETES_SERVICE = SERVICES[1]
CLUSTER_DNS = SERVICES[10]
CLUSTER_DOMAIN = "cluster.local"
POD_MTU = 1450

LAN = IPv4Network("192.168.77.0/24")
LAN_GATEWAY = LAN[1]
UPLINK = IPv4Network("192.168.78.0/24")
UPLINK_GATEWAY = UPLINK[1]
UPLINK_NODE = UPLINK[2]
WAN_DNS = IPv4Address("203.0.113.53")
WAN_WEB = IPv4Address("203.0.113.80")
WAN_ZONE = "example.test"

VPC = IPv4Address("172.31.0.10")

NODE_NAMESPACE = "meshdev-node"
WAN_NAMESPACE = "meshdev-wan"
NODE_NAME = "node1"


@dataclass(frozen=True)
class Laptop:
    """The names and addresses of one laptop."""

    number: int

    @property
    def namespace(self) -> str:
        """The network namespace's name; also the laptop's hostname without its prefix."""
        return f"meshdev-laptop{self.number}"

    @property
    def hostname(self) -> str:
        return f"laptop{self.number}"

    @property
    def node_network(self) -> IPv4Interface:
        """The laptop's address beside the API server's."""
        return IPv4Interface(f"{NODE_NETWORK[10 + self.number]}/{NODE_NETWORK.prefixlen}")

    @property
    def lan(self) -> IPv4Interface:
        """The laptop's address in its office network: the way to everything else."""
        return IPv4Interface(f"{LAN[10 + self.number]}/{LAN.prefixlen}")


def laptop(number: int) -> Laptop:
    """The laptop NUMBER; KeyError for one that does not exist."""
    if number not in LAPTOPS:
        raise KeyError(number)
    return Laptop(number)


def namespaces() -> tuple[str, ...]:
    """Every network namespace of the testbed."""
    return (NODE_NAMESPACE, WAN_NAMESPACE, *(laptop(number).namespace for number in LAPTOPS))
