"""The address plan: pure data. Every address exists only inside the testbed's namespaces.

    laptopN ──── node network ──── nodeN ── pods, Services
       └──────── lan ── wan ── public addresses (DNS, web)
                         └──── uplink ──── nodeN

The lan is the laptop's default route; wan is a dead end, so nothing can leave the machine. `vpc` is an address that
only the nodes (and therefore pods) can reach: what a database beside a cluster is in real life. Node 1 is the control
plane too; node 2 has a kubelet, a containerd and a kube-proxy of its own.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

from tests.cluster.kinds import NODES, ClusterKind
from tests.cluster.paths import NodeFolders

LAPTOPS = (1, 2)

NODE_NETWORK = IPv4Network("172.30.0.0/24")
NODE = NODE_NETWORK[2]
API_SERVER = f"https://{NODE}:6443"

PODS = IPv4Network("10.244.0.0/16")
SERVICES = IPv4Network("10.96.0.0/16")
KUBERNETES_SERVICE = SERVICES[1]
CLUSTER_DNS = SERVICES[10]
CLUSTER_DOMAIN = "cluster.local"
POD_MTU = 1450

LAN = IPv4Network("192.168.77.0/24")
LAN_GATEWAY = LAN[1]
WAN_DNS = IPv4Address("203.0.113.53")
WAN_WEB = IPv4Address("203.0.113.80")
WAN_ZONE = "example.test"

VPC = IPv4Address("172.31.0.10")

NODE_NAMESPACE = "meshdev-node"
WAN_NAMESPACE = "meshdev-wan"


@dataclass(frozen=True)
class Node:
    """The names and addresses of one node. What node 1 has without a number, the others have with theirs."""

    number: int

    @property
    def suffix(self) -> str:
        """Behind every name that exists once for each node."""
        return "" if self.number == 1 else str(self.number)

    @property
    def namespace(self) -> str:
        """The network namespace's name."""
        return f"{NODE_NAMESPACE}{self.suffix}"

    @property
    def name(self) -> str:
        """The Node's name in the API; also its cable's on the switch of the node network."""
        return f"node{self.number}"

    @property
    def wan_port(self) -> str:
        """Its cable's name in wan."""
        return f"node{self.suffix}"

    @property
    def address(self) -> IPv4Address:
        """Its address in the node network; the API server's, for node 1."""
        return NODE_NETWORK[1 + self.number]

    @property
    def pods(self) -> IPv4Network:
        """The pods' range: the one that the controller manager gives to the node that comes as this number."""
        return tuple(PODS.subnets(new_prefix=24))[self.number - 1]

    @property
    def uplink(self) -> IPv4Interface:
        """Its address on the cable to wan; the gateway is the network's first."""
        return IPv4Interface(f"192.168.{77 + self.number}.2/24")

    @property
    def uplink_gateway(self) -> IPv4Address:
        """wan's end of that cable."""
        return self.uplink.network[1]

    @property
    def folders(self) -> NodeFolders:
        """Where its programs keep their files."""
        return NodeFolders(self.suffix)

    def component(self, name: str) -> str:
        """The name of its component NAME, for `restart`, logs and the state."""
        return f"{name}{self.suffix}"


FIRST_NODE = Node(1)


def nodes(kind: ClusterKind) -> tuple[Node, ...]:
    """The nodes of a cluster of KIND."""
    return tuple(Node(number) for number in NODES if number <= kind.nodes)


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


def namespaces(kind: ClusterKind) -> tuple[str, ...]:
    """Every network namespace of a testbed of KIND."""
    others = [node.namespace for node in nodes(kind) if node != FIRST_NODE]
    return (NODE_NAMESPACE, WAN_NAMESPACE, *(laptop(number).namespace for number in LAPTOPS), *others)
