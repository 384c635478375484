"""The cluster's programs: their flags and configuration files, as pure functions of its kind and the paths."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster import addresses as plan
from tests.cluster.kinds import ClusterKind
from tests.cluster.paths import AUDIT_LOG, ETC, ETCD_DATA, PKI
from tests.cluster.processes import Daemon, in_network

PAUSE_IMAGE = "localhost/meshdev-pause:1"
ETCD_URL = "http://127.0.0.1:12379"

# The API server and etcd would wait for every watch to end (up to a minute) and nobody ends theirs: kubelets kill such
# pods too, only later.
_STOP_SECONDS = 2.0

CONTROL_PLANE = ("etcd", "apiserver", "controller-manager", "scheduler")


@dataclass(frozen=True)
class Programs:
    """The cluster's programs: Kubernetes itself, and what has etcd and CoreDNS, one for every version."""

    kubernetes: Path
    support: Path


def names(kind: ClusterKind) -> tuple[str, ...]:
    """Every component of a cluster of KIND in start order; `restart` and `status` use these names."""
    nodes = plan.nodes(kind)
    return (
        *(node.component("containerd") for node in nodes),
        *CONTROL_PLANE,
        *(node.component(name) for node in nodes for name in ("kubelet", "kube-proxy")),
    )


def configuration_files(kind: ClusterKind) -> dict[Path, str]:
    """Path → content of every configuration file. JSON is YAML, so most are written as data."""
    files = {
        ETC / "kube-proxy.yaml": json.dumps(kube_proxy(kind), indent=1),
        ETC / "audit.yaml": json.dumps(audit_policy(), indent=1),
        # What pods with dnsPolicy Default (CoreDNS itself) get.
        ETC / "resolv.conf": f"nameserver {plan.WAN_DNS}\n",
    }
    for node in plan.nodes(kind):
        files |= {
            node.folders.cni_config / "10-pods.conflist": json.dumps(cni(node, kind), indent=1),
            node.folders.containerd_config: containerd_toml(node),
            node.folders.kubelet_config: json.dumps(kubelet(node), indent=1),
        }
    return files


def cni(node: plan.Node, kind: ClusterKind) -> dict[str, Any]:
    """A bridge for pods. `tuning` because a new namespace inherits the machine's congestion control."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": kind.nodes == 1,  # with more nodes: network.rulesets
        "hairpinMode": True,
        "mtu": plan.POD_MTU,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": str(node.pods)}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(node.folders.cni_run),
        },
    }
    tuning = {"type": "tuning", "sysctl": {"net.ipv4.tcp_congestion_control": "cubic"}}
    portmap = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, tuning, portmap]}


def containerd_toml(node: plan.Node) -> str:
    """containerd 1.6's configuration. restrict_oom_score_adj: root may lack CAP_SYS_RESOURCE here."""
    folders = node.folders
    return f"""\
version = 2
root = "{folders.containerd_root}"
state = "{folders.containerd_run}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
  "io.containerd.internal.v1.tracing",
]
[grpc]
address = "{folders.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
enable_unprivileged_ports = true
enable_unprivileged_icmp = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folders.cni_config}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


def kubelet(node: plan.Node) -> dict[str, Any]:
    """Everything of the kubelet's stays below our folders and our cgroup."""
    folders = node.folders
    certificate = node.component("kubelet")
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{folders.cgroup}",
        "containerRuntimeEndpoint": f"unix://{folders.containerd_socket}",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(PKI / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(PKI / f"{certificate}.crt"),
        "tlsPrivateKeyFile": str(PKI / f"{certificate}.key"),
        "clusterDNS": [str(plan.CLUSTER_DNS)],
        "clusterDomain": plan.CLUSTER_DOMAIN,
        "resolvConf": str(ETC / "resolv.conf"),
        "failSwapOn": False,
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,  # images come from nowhere but our import: never collect them
        "imageMaximumGCAge": "0s",
        "volumePluginDir": str(folders.kubelet_root / "volumeplugins"),
        "podLogsDir": str(folders.pod_logs),
        "nodeStatusUpdateFrequency": "10s",
        "registryPullQPS": 0,
        "serializeImagePulls": False,
    }


def kube_proxy(kind: ClusterKind) -> dict[str, Any]:
    """nftables is what current clusters have, iptables what most have. --masquerade-all is a field of each mode."""
    masquerade = {kind.kube_proxy: {"masqueradeAll": True}} if kind.masquerade_all else {}
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(PKI / "kube-proxy.kubeconfig")},
        "mode": kind.kube_proxy,
        **masquerade,
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


def daemons(kind: ClusterKind, programs: Programs) -> dict[str, Daemon]:
    """Every program of the cluster, in start order."""
    found = {daemon.name: daemon for daemon in _control_plane(kind, programs)}
    for node in plan.nodes(kind):
        found |= {daemon.name: daemon for daemon in _of_node(node, kind, programs)}
    return {name: found[name] for name in names(kind)}


def _control_plane(kind: ClusterKind, programs: Programs) -> list[Daemon]:
    kubernetes = programs.kubernetes
    audit = configuration_files(kind)[ETC / "audit.yaml"]
    scheduler: dict[str, object] = {"kubeconfig": PKI / "scheduler.kubeconfig", "leader-elect": "false"}
    etcd: dict[str, object] = {"data-dir": ETCD_DATA, "listen-client-url": ETCD_URL}
    node = plan.FIRST_NODE
    return [
        _component("etcd", node, (programs.support, "etcd"), etcd),
        _component("apiserver", node, (kubernetes, "kube-apiserver"), _apiserver_flags(), audit),
        _component("controller-manager", node, (kubernetes, "kube-controller-manager"), _controller_flags()),
        _component("scheduler", node, (kubernetes, "kube-scheduler"), scheduler),
    ]


def _of_node(node: plan.Node, kind: ClusterKind, programs: Programs) -> list[Daemon]:
    files = configuration_files(kind)
    folders = node.folders
    containerd = Daemon(
        node.component("containerd"),
        ("containerd", "--config", str(folders.containerd_config)),
        in_network(node.namespace),
        inputs=(files[folders.containerd_config],),
    )
    kubelet_flags: dict[str, object] = {
        "config": folders.kubelet_config,
        "kubeconfig": PKI / f"{node.component('kubelet')}.kubeconfig",
        "hostname-override": node.name,
        "node-ip": node.address,
        "root-dir": folders.kubelet_root,
        "cert-dir": folders.kubelet_root / "pki",
    }
    proxy_flags: dict[str, object] = {"config": ETC / "kube-proxy.yaml", "hostname-override": node.name}
    kubelet_input, proxy_input = files[folders.kubelet_config], files[ETC / "kube-proxy.yaml"]
    kubernetes = programs.kubernetes
    return [
        containerd,
        _component(node.component("kubelet"), node, (kubernetes, "kubelet"), kubelet_flags, kubelet_input),
        _component(node.component("kube-proxy"), node, (kubernetes, "kube-proxy"), proxy_flags, proxy_input),
    ]


def _component(name: str, node: plan.Node, program: tuple[Path, str], flags: dict[str, object], *inputs: str) -> Daemon:
    argv = (*(str(word) for word in program), *(f"--{flag}={value}" for flag, value in flags.items()))
    return Daemon(name, argv, in_network(node.namespace), inputs=inputs, stop_seconds=_STOP_SECONDS)


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
