"""Every path the testbed uses, in one place.

Three roots, by life time: CACHE survives `down` (content-addressed: names carry a hash), DATA is the cluster and the
laptops' homes, RUN holds sockets and the record of what is running. None of them is inside a checkout, so that a
second checkout finds and takes over the running testbed.
"""

from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCES = CHECKOUT / "tests" / "cluster"

CACHE = Path("/var/cache/meshdev-testbed")
DATA = Path("/var/lib/meshdev-testbed")
RUN = Path("/run/meshdev-testbed")

STATE_FILE = RUN / "state.json"
LOCK_FILE = Path("/run/meshdev-testbed.lock")  # beside RUN: `down` removes RUN while it holds the lock

LOGS = DATA / "log"
PKI = DATA / "pki"
ETC = DATA / "etc"
ETCD_DATA = DATA / "etcd"
AUDIT_LOG = LOGS / "audit.log"

ADMIN_KUBECONFIG = PKI / "admin.kubeconfig"
KUBECTL_CACHE = DATA / "kubectl-cache"  # else ~/.kube, or .kube in the checkout where there is no HOME

TOOLS = CACHE / "bin"
IMAGES = CACHE / "images"
BUILDAH = CACHE / "buildah"

NETNS = Path("/run/netns")
TUN_DEVICE = Path("/dev/net/tun")
SUDOERS_FILE = Path("/etc/sudoers.d/meshdev-testbed")

CGROUP = "meshdev-testbed"


@dataclass(frozen=True)
class NodeFolders:
    """Where one node's programs keep their files; `suffix` tells them from another node's."""

    suffix: str

    @property
    def containerd_config(self) -> Path:
        return ETC / f"containerd{self.suffix}.toml"

    @property
    def containerd_root(self) -> Path:
        return DATA / f"containerd{self.suffix}"

    @property
    def containerd_run(self) -> Path:
        return RUN / f"containerd{self.suffix}"

    @property
    def containerd_socket(self) -> Path:
        return self.containerd_run / "containerd.sock"

    @property
    def cni_config(self) -> Path:
        """The folder that containerd looks for network configurations in."""
        return DATA / f"cni{self.suffix}"

    @property
    def cni_run(self) -> Path:
        """Which addresses are given to pods."""
        return RUN / f"cni{self.suffix}"

    @property
    def kubelet_config(self) -> Path:
        return ETC / f"kubelet{self.suffix}.yaml"

    @property
    def kubelet_root(self) -> Path:
        return DATA / f"kubelet{self.suffix}"

    @property
    def pod_logs(self) -> Path:
        return LOGS / f"pods{self.suffix}"

    @property
    def cgroup(self) -> str:
        """The root of its pods' cgroups, below the testbed's own."""
        return f"{CGROUP}/node{self.suffix}" if self.suffix else CGROUP


def log_file(name: str) -> Path:
    """Where the daemon NAME writes stdout and stderr."""
    return LOGS / f"{name}.log"


def laptop_folder(laptop: int) -> Path:
    """Homes and private /etc files of one laptop; mounted over the real places inside its mount namespace."""
    return DATA / f"laptop{laptop}"
