"""Names and numbers that more than one part relies on, each with its reason."""

from ipaddress import IPv4Address, IPv4Network
from typing import Final

VERSION: Final = "0.1.0"

#: The tunnel protocol this build speaks, and the oldest it still understands.
PROTOCOL: Final = 4
OLDEST_PROTOCOL: Final = 1

#: Default image of the manager; ``--image`` and ``MESHDEV_IMAGE`` override it.
DEFAULT_IMAGE: Final = f"ghcr.io/meshdev/traffic-manager:{VERSION}"
IMAGE_VARIABLE: Final = "MESHDEV_IMAGE"
#: Environment variable of --ssh.
SSH_VARIABLE: Final = "MESHDEV_SSH"

#: The Deployment of the manager, its labels and the field manager of everything we write.
MANAGER_NAME: Final = "meshdev-traffic-manager"
MANAGER_LABELS: Final = {"app.kubernetes.io/name": MANAGER_NAME, "app.kubernetes.io/managed-by": "meshdev"}
FIELD_MANAGER: Final = "meshdev"

#: Port of the tunnel listener on the manager pod's loopback: reached only through a port-forward.
TUNNEL_PORT: Final = 9000

#: Most carriers of one session, and so queues of one TUN device (the kernel's own limit is 256).
MAX_CARRIERS: Final = 8
#: Ports of the containers *control* and *relay* on the manager pod's address, both by TLS with client certificates, and
#: their users: the pod's packet filter tells whose packets are whose.
CONTROL_PORT: Final = 15010
RELAYS_PORT: Final = 15011
#: Of *control* too: Prometheus text at METRICS_PATH, for whoever reaches the pod. The session serves the same path.
METRICS_PORT: Final = 15020
METRICS_PATH: Final = "/metrics"
CONTROL_UID: Final = 65532  # the usual "nonroot" of minimal images
RELAY_UID: Final = 65533

#: Relays are ports of a session's address, and for UDP of the manager pod's, too: below the usual range of ephemeral
#: ports (32768 and up).
RELAY_PORTS: Final = range(20000, 30000)

#: Where session addresses come from, in order of preference: the benchmarking range of RFC 2544 (RFC 6890: not
#: routed), its other half where a fake-ip proxy holds the first, then the top of the shared range of RFC 6598.
ADDRESS_POOLS: Final = (IPv4Network("198.18.0.0/16"), IPv4Network("198.19.0.0/16"), IPv4Network("100.127.0.0/16"))

#: Heartbeat of each carrier, and the silence after which it counts as dead (docs/design/0003), in seconds.
HEARTBEAT_SECONDS: Final = 1.0
SILENCE_SECONDS: Final = 5.0

#: How long the manager keeps a session whose carriers are all gone, in seconds (docs/design/0004).
GRACE_SECONDS: Final = 10.0


def gateway(pool: IPv4Network) -> IPv4Address:
    """The manager's own address in *pool*: its first host, never a session's. Packets of relays come from it."""
    return pool[1]


def gateway_of(address: IPv4Address) -> IPv4Address | None:
    """The manager's own address in the pool of a session's address; None for an address of no pool."""
    return next((gateway(pool) for pool in ADDRESS_POOLS if address in pool), None)
