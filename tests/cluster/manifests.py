"""What runs in the cluster: CoreDNS, the test namespaces and the sample application, as data for `kubectl apply`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster import addresses as plan
from tests.cluster.hashing import short
from tests.cluster.images import SAMPLE_IMAGE

Manifest = dict[str, Any]

_PROBE = {"periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 3}
_DRAIN_SECONDS = 3
_GRACE_SECONDS = 10

_COREFILE = """\
.:53 {
  errors
  health
  ready
  kubernetes DOMAIN in-addr.arpa ip6.arpa {
    pods insecure
    fallthrough in-addr.arpa ip6.arpa
    ttl 5
  }
  forward . UPSTREAM
  cache 5
  reload
}
"""


@dataclass(frozen=True)
class Port:
    """A container port and the Service port that leads to it."""

    name: str
    container: int
    service: int = 0
    protocol: str = "TCP"
    by_name: bool = False
    app_protocol: str = ""

    def of_container(self) -> Manifest:
        return {"name": self.name, "containerPort": self.container, "protocol": self.protocol}

    def of_service(self) -> Manifest:
        extra = {"appProtocol": self.app_protocol} if self.app_protocol else {}
        return {
            "name": self.name,
            "port": self.service or self.container,
            "targetPort": self.name if self.by_name else self.container,
            "protocol": self.protocol,
            **extra,
        }


@dataclass(frozen=True)
class App:
    """One workload of the sample and its Service."""

    name: str
    args: tuple[str, ...]
    ports: tuple[Port, ...]
    replicas: int = 1
    kind: str = "Deployment"
    headless: bool = False
    pod_security: Manifest = field(default_factory=dict)
    env: Manifest = field(default_factory=dict)
    readiness: Manifest = field(default_factory=dict)


HTTP = Port("http", 8080, 80)
UDP = Port("udp", 9090, protocol="UDP")
_CHAIN_ARGS = ("--port=8080", "--udp-port=9090")


def _chain(name: str, following: str, replicas: int = 1) -> App:
    onward = (f"--next=http://{following}/",) if following else ()
    return App(name, (f"--name=service-{name}", *_CHAIN_ARGS, *onward), (HTTP, UDP), replicas)


SAMPLE = (
    _chain("a", "b"),
    _chain("b", "c", replicas=2),
    _chain("c", ""),
    App("udp-echo", ("--name=udp-echo", "--udp-port=9090", "--port=8080"), (UDP,)),
    App("tcp-first", ("--name=tcp-first", "--tcp-first-port=7000"), (Port("tcp-first", 7000),)),
    App("grpc", ("--name=grpc", "--grpc-port=50051"), (Port("grpc", 50051, app_protocol="grpc"),)),
    App("ws", ("--name=ws", "--port=8080"), (Port("http", 8080),)),
    App(
        "bulk",
        ("--name=bulk", "--bulk"),
        (
            Port("sink", 7001),
            Port("source", 7002),
            Port("echo", 7003),
            Port("half-close", 7004),
            Port("plain-sink", 7005),
        ),
    ),
    App("db", ("--name=db", "--port=5432"), (Port("db", 5432),), replicas=2, kind="StatefulSet", headless=True),
    App("named", ("--name=named", "--port=8080"), (Port("web", 8080, 80, by_name=True),)),
    App(
        "nonroot",
        ("--name=nonroot", "--port=8080"),
        (HTTP,),
        pod_security={"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    ),
)

NAMESPACES = {
    "team-1": {},
    "team-2": {},
    "psa-baseline": {"pod-security.kubernetes.io/enforce": "baseline"},
    "psa-restricted": {"pod-security.kubernetes.io/enforce": "restricted"},
}


def everything(support: Path, image_digest: str) -> Manifest:
    """One List with all of it, in the order in which it can be applied. SUPPORT is the program that holds CoreDNS.
    IMAGE_DIGEST stands in the pod templates: the tag never changes, so it is what makes a changed sample roll out."""
    items = [*_namespaces(), *_coredns(support)]
    for app in SAMPLE:
        items += [workload(app, image_digest), service(app)]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def render(manifest: Manifest) -> str:
    """The text for kubectl."""
    return json.dumps(manifest, indent=1)


def unready(listed: Iterable[Manifest]) -> list[tuple[str, str]]:
    """(namespace, kind/name) of our workloads that are not rolled out; LISTED is what the API server has."""
    wanted = {("default", f"{app.kind.lower()}/{app.name}") for app in SAMPLE} | {("kube-system", "deployment/coredns")}
    done = {
        (item["metadata"]["namespace"], f"{item['kind'].lower()}/{item['metadata']['name']}")
        for item in listed
        if _is_rolled_out(item)
    }
    return sorted(wanted - done)


def service_ports(listed: Iterable[Manifest]) -> list[str]:
    """ADDRESS:PORT/PROTOCOL of our Services that have an address; LISTED is what the API server has."""
    ours = {("default", app.name) for app in SAMPLE if not app.headless} | {("kube-system", "kube-dns")}
    return [
        f"{item['spec']['clusterIP']}:{port['port']}/{port['protocol']}"
        for item in listed
        if (item["metadata"]["namespace"], item["metadata"]["name"]) in ours
        for port in item["spec"]["ports"]
    ]


def _is_rolled_out(item: Manifest) -> bool:
    status, wanted = item.get("status", {}), item["spec"]["replicas"]
    counts = [status.get(name) for name in ("replicas", "updatedReplicas", "readyReplicas")]
    return bool(status.get("observedGeneration") == item["metadata"]["generation"]) and counts == [wanted] * 3


def workload(app: App, image_digest: str) -> Manifest:
    """The Deployment or StatefulSet of APP."""
    labels = {"app": app.name}
    annotations = {"testbed.meshdev/image": short(image_digest)}
    spec: Manifest = {
        "replicas": app.replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": _pod_spec(app)},
    }
    if app.kind == "StatefulSet":
        spec["serviceName"] = app.name
        spec["podManagementPolicy"] = "Parallel"
    else:
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return {
        "apiVersion": "apps/v1",
        "kind": app.kind,
        "metadata": {"name": app.name, "namespace": "default", "labels": labels},
        "spec": spec,
    }


def service(app: App) -> Manifest:
    """The Service of APP."""
    spec: Manifest = {"selector": {"app": app.name}, "ports": [port.of_service() for port in app.ports]}
    if app.headless:
        spec["clusterIP"] = "None"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": app.name, "namespace": "default", "labels": {"app": app.name}},
        "spec": spec,
    }


def _pod_spec(app: App) -> Manifest:
    container: Manifest = {
        "name": app.name,
        "image": SAMPLE_IMAGE,
        "imagePullPolicy": "Never",
        "args": list(app.args),
        "ports": [port.of_container() for port in app.ports],
        "readinessProbe": {**(app.readiness or _readiness(app.ports)), **_PROBE},
        "lifecycle": {"preStop": {"sleep": {"seconds": _DRAIN_SECONDS}}},
        "resources": {"requests": {"cpu": "10m", "memory": "24Mi"}, "limits": {"memory": "512Mi"}},
    }
    spec: Manifest = {
        "terminationGracePeriodSeconds": _GRACE_SECONDS,
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "containers": [container],
    }
    if app.pod_security:
        spec["securityContext"] = app.pod_security
        container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return spec


def _readiness(ports: Iterable[Port]) -> Manifest:
    """HTTP asks for a path that neither calls the next service nor is counted; others only need a listener."""
    first = next(port for port in ports)
    if first.name in {"http", "web", "udp"}:
        return {"httpGet": {"path": "/healthz", "port": 8080}}
    return {"tcpSocket": {"port": first.container}}


def _namespaces() -> list[Manifest]:
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
        for name, labels in NAMESPACES.items()
    ]


def _coredns(support: Path) -> list[Manifest]:
    """CoreDNS as every cluster runs it; its program is the node's, through a hostPath."""
    meta = {"name": "coredns", "namespace": "kube-system"}
    labels = {"k8s-app": "kube-dns"}
    corefile = _COREFILE.replace("DOMAIN", plan.CLUSTER_DOMAIN).replace("UPSTREAM", str(plan.WAN_DNS))
    readable = [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    ]
    container = {
        "name": "coredns",
        "image": SAMPLE_IMAGE,
        "imagePullPolicy": "Never",
        "command": ["/kubebox", "coredns", "-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, **_PROBE},
        "volumeMounts": [
            {"name": "kubebox", "mountPath": "/kubebox", "readOnly": True},
            {"name": "config", "mountPath": "/etc/coredns"},
        ],
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}},
    }
    pod = {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "priorityClassName": "system-cluster-critical",
        "containers": [container],
        "volumes": [
            {"name": "kubebox", "hostPath": {"path": str(support), "type": "File"}},
            {"name": "config", "configMap": {"name": "coredns"}},
        ],
    }
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    rbac = "rbac.authorization.k8s.io"
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": "coredns"}, "rules": readable},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "coredns"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "coredns"},
            "subjects": [{"kind": "ServiceAccount", **meta}],
        },
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"Corefile": corefile}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": labels},
            "spec": {"clusterIP": str(plan.CLUSTER_DNS), "selector": labels, "ports": ports},
        },
    ]
