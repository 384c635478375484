"""The cluster's programs: their flags and configuration files, as pure functions of the paths."""

import json
from pathlib import Path
from typing import Any

from tests.cluster import addresses as plan
from tests.cluster.paths import (
    AUDIT_LOG,
    CGROUP,
    CNI_CONFIG,
    CONTAINERD_ROOT,
    CONTAINERD_SOCKET,
    ETC,
    ETCD_DATA,
    KUBELET_ROOT,
    LOGS,
    PKI,
    RUN,
)
from tests.cluster.processes import Daemon, in_network

PAUSE_IMAGE = "localhost/meshdev-pause:1"
ETCD_URL = "http://127.0.0.1:12379"

# The API server and etcd would wait for every watch to end (up to a minute) and nobody ends theirs: kubelets kill such
# pods too, only later.
_STOP_SECONDS = 2.0

# Start order; `restart` and `status` use these names.
NAMES = ("containerd", "etcd", "apiserver", "controller-manager", "scheduler", "kubelet", "kube-proxy")


def configuration_files() -> dict[Path, str]:
    """Path → content of every configuration file. JSON is YAML, so most are written as data."""
    return {
        CNI_CONFIG / "10-pods.conflist": json.dumps(cni(), indent=1),
        ETC / "containerd.toml": containerd_toml(),
        ETC / "kubelet.yaml": json.dumps(kubelet(), indent=1),
        ETC / "kube-proxy.yaml": json.dumps(kube_proxy(), indent=1),
        ETC / "audit.yaml": json.dumps(audit_policy(), indent=1),
        # What pods with dnsPolicy Default (CoreDNS itself) get.
        ETC / "resolv.conf": f"nameserver {plan.WAN_DNS}\n",
    }


def cni() -> dict[str, Any]:
    """A bridge for pods. `tuning` because a new namespace inherits the machine's congestion control."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "mtu": plan.POD_MTU,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(plan.NODE_PODS)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(RUN / "cni"),
        },
    }
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.tcp_congestion_control": "cubic"}}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, tuning, portmap]}


def containerd_toml() -> str:
    """containerd 1.6's configuration. restrict_oom_score_adj: root may lack CAP_SYS_RESOURCE here."""
    return f"""\
version = 2
root = "{CONTAINERD_ROOT}"
state = "{RUN}/containerd/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
]
[grpc]
address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{CNI_CONFIG}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def kubelet() -> dict[str, Any]:
    """Everything of the kubelet's stays below our folders and our cgroup."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(PKI / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(PKI / "kubelet.crt"),
        "tlsPrivateKeyFile": str(PKI / "kubelet.key"),
        "clusterDNS": [str(plan.CLUSTER_DNS)],
        "clusterDomain": plan.CLUSTER_DOMAIN,
        "resolvConf": str(ETC / "resolv.conf"),
        "failSwapOn": False,
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,  # images come from nowhere but our import: never collect them
        "imageMaximumGCAge": "0s",
        "volumePluginDir": str(KUBELET_ROOT / "volumeplugins"),
        "podLogsDir": str(LOGS / "pods"),
        "nodeStatusUpdateFrequency": "10s",
        "registryPullQPS": 0,
        "serializeImagePulls": False,
    }


def kube_proxy() -> dict[str, Any]:
    """The nftables mode, as current clusters have it."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(PKI / "kube-proxy.kubeconfig")},
        "mode": "nftables",
        "clusterCIDR": str(plan.PODS),
        "conntrack": {"maxPerCore": 0},  # the machine's own limit is not ours to set
    }


def audit_policy() -> dict[str, Any]:
    """Who asked for what: tests compare a Role with the calls that were made. The cluster's own chatter is left out."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            {"level": "None", "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"]},
            {
                "level": "None",
                "users": [
                    "admin",
                    "system:apiserver",
                    "system:kube-controller-manager",
                    "system:kube-scheduler",
                    "system:kube-proxy",
                ],
            },
            {"level": "Metadata"},
        ],
    }


def daemons(kubebox: Path) -> dict[str, Daemon]:
    """Every program of the node, in start order."""
    files = configuration_files()

    def component(name: str, program: str, flags: dict[str, object], *inputs: Path) -> Daemon:
        argv = (str(kubebox), program, *(f"--{flag}={value}" for flag, value in flags.items()))
        texts = tuple(files[path] for path in inputs)
        return Daemon(name, argv, in_network(plan.NODE_NAMESPACE), inputs=texts, stop_seconds=_STOP_SECONDS)

    containerd = Daemon(
        "containerd",
        ("containerd", "--config", str(ETC / "containerd.toml")),
        in_network(plan.NODE_NAMESPACE),
        inputs=(files[ETC / "containerd.toml"],),
    )
    found = (
        containerd,
        component("etcd", "etcd", {"data-dir": ETCD_DATA, "listen-client-url": ETCD_URL}),
        component("apiserver", "kube-apiserver", _apiserver_flags(), ETC / "audit.yaml"),
        component("controller-manager", "kube-controller-manager", _controller_flags()),
        component("scheduler", "kube-scheduler", {"kubeconfig": PKI / "scheduler.kubeconfig", "leader-elect": "false"}),
        component(
            "kubelet",
            "kubelet",
            {
                "config": ETC / "kubelet.yaml",
                "kubeconfig": PKI / "kubelet.kubeconfig",
                "hostname-override": plan.NODE_NAME,
                "node-ip": plan.NODE,
                "root-dir": KUBELET_ROOT,
                "cert-dir": KUBELET_ROOT / "pki",
            },
            ETC / "kubelet.yaml",
        ),
        component(
            "kube-proxy",
            "kube-proxy",
            {"config": ETC / "kube-proxy.yaml", "hostname-override": plan.NODE_NAME},
            ETC / "kube-proxy.yaml",
        ),
    )
    return {daemon.name: daemon for daemon in found}


def _apiserver_flags() -> dict[str, object]:
    return {
        "etcd-servers": ETCD_URL,
        "bind-address": "0.0.0.0",
        "secure-port": 6443,
        "advertise-address": plan.NODE,
        "tls-cert-file": PKI / "apiserver.crt",
        "tls-private-key-file": PKI / "apiserver.key",
        "client-ca-file": PKI / "ca.crt",
        "service-account-key-file": PKI / "service-account.pub",
        "service-account-signing-key-file": PKI / "service-account.key",
        "service-account-issuer": f"https://kubernetes.default.svc.{plan.CLUSTER_DOMAIN}",
        "service-cluster-ip-range": plan.SERVICES,
        "authorization-mode": "Node,RBAC",
        "kubelet-client-certificate": PKI / "apiserver-kubelet.crt",
        "kubelet-client-key": PKI / "apiserver-kubelet.key",
        "kubelet-certificate-authority": PKI / "ca.crt",
        "kubelet-preferred-address-types": "InternalIP",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "audit-policy-file": ETC / "audit.yaml",
        "audit-log-path": AUDIT_LOG,
        "audit-log-maxsize": 50,
        "audit-log-maxbackup": 1,
        # A restart must be quick: the default waits for a lease of 60 s that nobody else holds here.
        "shutdown-delay-duration": "0s",
        "endpoint-reconciler-type": "lease",
    }


def _controller_flags() -> dict[str, object]:
    return {
        "kubeconfig": PKI / "controller-manager.kubeconfig",
        "service-account-private-key-file": PKI / "service-account.key",
        "root-ca-file": PKI / "ca.crt",
        "cluster-signing-cert-file": PKI / "ca.crt",
        "cluster-signing-key-file": PKI / "ca.key",
        "cluster-cidr": plan.PODS,
        "allocate-node-cidrs": "true",
        "use-service-account-credentials": "true",
        "leader-elect": "false",
    }
