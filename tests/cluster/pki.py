"""Certificates and kubeconfigs of the cluster, made by openssl, once for each life of the cluster."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import addresses as plan
from tests.cluster.kinds import ClusterKind
from tests.cluster.paths import ADMIN_KUBECONFIG, PKI
from tests.cluster.run import run

_EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
_DAYS = "3650"


@dataclass(frozen=True)
class Identity:
    """Who a certificate speaks for: `group` and `user` are what RBAC sees."""

    name: str
    user: str
    group: str = ""
    names: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        return (f"/O={self.group}" if self.group else "") + f"/CN={self.user}"


_API_NAMES = (
    "DNS:kubernetes",
    "DNS:kubernetes.default",
    "DNS:kubernetes.default.svc",
    f"DNS:kubernetes.default.svc.{plan.CLUSTER_DOMAIN}",
    "DNS:localhost",
    "IP:127.0.0.1",
    f"IP:{plan.KUBERNETES_SERVICE}",
    f"IP:{plan.NODE}",
    f"IP:{plan.VPC}",
)


def identities(kind: ClusterKind) -> tuple[Identity, ...]:
    """Everyone who has a certificate in a cluster of KIND."""
    return (
        Identity("apiserver", "kube-apiserver", names=_API_NAMES),
        Identity("apiserver-kubelet", "kube-apiserver-kubelet-client", "system:masters"),
        Identity("admin", "admin", "system:masters"),
        Identity("controller-manager", "system:kube-controller-manager"),
        Identity("scheduler", "system:kube-scheduler"),
        Identity("kube-proxy", "system:kube-proxy"),
        *(_kubelet(node) for node in plan.nodes(kind)),
        # One person a laptop: Leases, audit lines and conflicts show who it was.
        *(Identity(f"laptop{number}", f"dev@laptop{number}", "system:masters") for number in plan.LAPTOPS),
    )


def _kubelet(node: plan.Node) -> Identity:
    names = (f"DNS:{node.name}", f"IP:{node.address}")
    return Identity(node.component("kubelet"), f"system:node:{node.name}", "system:nodes", names)


def create(kind: ClusterKind) -> None:
    """Make the authority, every identity, the service account key and the kubeconfigs. Idempotent."""
    PKI.mkdir(parents=True, exist_ok=True)
    PKI.chmod(0o700)
    if (PKI / "complete").exists():
        return
    run(
        *("openssl", "req", "-x509", *_EC_KEY, "-keyout", PKI / "ca.key", "-out", PKI / "ca.crt"),
        *("-days", _DAYS, "-subj", "/CN=meshdev-testbed"),
    )
    for identity in identities(kind):
        _issue(identity)
        (PKI / f"{identity.name}.kubeconfig").write_text(kubeconfig(identity.name))
    run("openssl", "genrsa", "-out", PKI / "service-account.key", "2048")
    run("openssl", "rsa", "-in", PKI / "service-account.key", "-pubout", "-out", PKI / "service-account.pub")
    ADMIN_KUBECONFIG.chmod(0o600)
    (PKI / "complete").touch()


def _issue(identity: Identity) -> None:
    key, request, certificate = (PKI / f"{identity.name}.{suffix}" for suffix in ("key", "csr", "crt"))
    run("openssl", "req", *_EC_KEY, "-keyout", key, "-out", request, "-subj", identity.subject)
    extensions = PKI / "extensions"
    extensions.write_text(
        f"subjectAltName={','.join(identity.names or (f'DNS:{identity.name}',))}\n"
        "extendedKeyUsage=serverAuth,clientAuth\n"
    )
    run(
        *("openssl", "x509", "-req", "-in", request, "-CA", PKI / "ca.crt", "-CAkey", PKI / "ca.key"),
        *("-CAcreateserial", "-days", _DAYS, "-out", certificate, "-extfile", extensions),
    )


def kubeconfig(name: str) -> str:
    """A kubeconfig (JSON is YAML) that needs no other file."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "testbed",
                    "cluster": {"server": plan.API_SERVER, "certificate-authority-data": _encoded(PKI / "ca.crt")},
                }
            ],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate-data": _encoded(PKI / f"{name}.crt"),
                        "client-key-data": _encoded(PKI / f"{name}.key"),
                    },
                }
            ],
            "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": name}}],
            "current-context": "testbed",
        },
        indent=1,
    )


def _encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
