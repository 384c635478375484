"""Service accounts with few rights, their kubeconfigs, and what the API server wrote down of their calls."""

import base64
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from meshdev.kube.access import Access
from tests.cluster import addresses as plan
from tests.cluster.paths import AUDIT_LOG, PKI
from tests.e2e.conftest import CHECKOUT, kubectl

#: Where the accounts live. What they may do elsewhere is the test's to say.
HOME_NAMESPACE: Final = "team-1"


def apply(manifest: str) -> None:
    """``kubectl apply -f -`` as the administrator."""
    _kubectl_with_input(manifest, "apply", "-f", "-")


def remove(manifest: str) -> None:
    """``kubectl delete -f -``; what is gone is gone."""
    _kubectl_with_input(manifest, "delete", "--ignore-not-found", "-f", "-")


@contextmanager
def account(name: str, *manifests: str) -> Iterator[str]:
    """A service account with these Roles and bindings; its full user name."""
    everything = "---\n".join([_account(name), *manifests])
    apply(everything)
    try:
        yield f"system:serviceaccount:{HOME_NAMESPACE}:{name}"
    finally:
        remove(everything)


def role(name: str, namespace: str, rules: list[dict[str, list[str]]]) -> str:
    """A Role of these rules for the account of the same name."""
    meta = {"name": f"test-{name}", "namespace": namespace}
    made = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": rules}
    return json.dumps(made) + "\n---\n" + binding(name, namespace, "Role", f"test-{name}")


def binding(name: str, namespace: str, kind: str, granted: str) -> str:
    """The account gets a Role or ClusterRole in one namespace."""
    return json.dumps(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"test-{name}", "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": granted},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": HOME_NAMESPACE}],
        }
    )


def kubeconfig(folder: Path, name: str, namespace: str = "default") -> str:
    """The path of a kubeconfig with a fresh token of the account, and *namespace* as its context's."""
    token = kubectl("-n", HOME_NAMESPACE, "create", "token", name).strip()
    return written(folder / f"{name}.kubeconfig", {"token": token}, namespace)


def written(path: Path, user: dict[str, Any], namespace: str = "default", **cluster: str) -> str:
    """A kubeconfig of the testbed's cluster for *user*; *cluster* overrides single fields of the cluster's."""
    authority = base64.b64encode((PKI / "ca.crt").read_bytes()).decode()
    fields = {"server": plan.API_SERVER, "certificate-authority-data": authority, **cluster}
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "test",
                "clusters": [{"name": "test", "cluster": {key.replace("_", "-"): fields[key] for key in fields}}],
                "users": [{"name": "test", "user": user}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            }
        )
    )
    path.chmod(0o600)
    return str(path)


class Audit:
    """The audit log from now on."""

    def __init__(self) -> None:
        self._start = AUDIT_LOG.stat().st_size
        self._inode = AUDIT_LOG.stat().st_ino

    def calls(self, user: str) -> set[Access]:
        """What *user* asked for since. Long-running calls are written when they end."""
        assert AUDIT_LOG.stat().st_ino == self._inode, "the audit log was rotated meanwhile"
        with AUDIT_LOG.open() as log:
            log.seek(self._start)
            events = [json.loads(line) for line in log]
        return {_access(event) for event in events if event["user"]["username"] == user}


def _access(event: dict[str, Any]) -> Access:
    about = event.get("objectRef")
    if about is None:
        return Access(event["verb"], "", event["requestURI"])
    resource = "/".join(filter(None, [about["resource"], about.get("subresource")]))
    named = (about.get("namespace", ""), about.get("name", ""))
    return Access(event["verb"], about.get("apiGroup", ""), resource, *named)


def uninstall(namespace: str = "default") -> None:
    """No manager in *namespace*, whoever is on it."""
    kubectl("-n", namespace, "delete", "deployment", "meshdev-traffic-manager", "--ignore-not-found")
    kubectl("-n", namespace, "wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=meshdev-traffic-manager")


def _account(name: str) -> str:
    meta = {"name": name, "namespace": HOME_NAMESPACE}
    return json.dumps({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta}) + "\n"


def _kubectl_with_input(text: str, *arguments: str) -> None:
    text = "# YAML, although it may not look like it\n" + text  # kubectl guesses from the first character
    argv = [sys.executable, "-m", "tests.cluster", "kubectl", *arguments]
    done = subprocess.run(argv, cwd=CHECKOUT, input=text, text=True, capture_output=True, check=False, timeout=60)
    assert done.returncode == 0, f"{text}\n{done.stdout}{done.stderr}"
