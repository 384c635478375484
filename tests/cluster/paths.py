"""Every path the testbed uses, in one place.

Three roots, by life time: CACHE survives `down` (content-addressed: names carry a hash), DATA is the cluster and the
laptops' homes, RUN holds sockets and the record of what is running. None of them is inside a checkout, so that a
second checkout finds and takes over the running testbed.
"""

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SOURCES = CHECKOUT / "tests" / "cluster"

CACHE = Path("/var/cache/meshdev-testbed")
DATA = Path("/var/lib/meshdev-testbed")
RUN = Path("/run/meshdev-testbed")

STATE_FILE = RUN / "state.json"
LOCK_FILE = Path("/run/meshdev-testbed.lock")  # beside RUN: `down` removes RUN while it holds the lock
CONTAINERD_SOCKET = RUN / "containerd" / "containerd.sock"

LOGS = DATA / "log"
PKI = DATA / "pki"
ETC = DATA / "etc"
CNI_CONFIG = DATA / "cni"
KUBELET_ROOT = DATA / "kubelet"
ETCD_DATA = DATA / "etcd"
CONTAINERD_ROOT = DATA / "containerd"
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


def log_file(name: str) -> Path:
    """Where the daemon NAME writes stdout and stderr."""
    return LOGS / f"{name}.log"


def laptop_folder(laptop: int) -> Path:
    """Homes and private /etc files of one laptop; mounted over the real places inside its mount namespace."""
    return DATA / f"laptop{laptop}"
