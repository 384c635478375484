"""Another version of meshdev: a copy of the package with other protocol numbers, as client and as manager."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from meshdev.config import MANAGER_NAME
from meshdev.kube.manifest import TUNNEL_CONTAINER, ManagerSpec, deployment
from tests.cluster.enter import MANAGER_IMAGE
from tests.e2e.accounts import apply
from tests.e2e.conftest import CHECKOUT, Laptop, kubectl

#: Where the image has the package (images/traffic-manager/Dockerfile).
_IN_IMAGE: Final = "/opt/meshdev/meshdev/config.py"
_CONFIG_MAP: Final = "another-version"


@dataclass(frozen=True)
class Version:
    """A meshdev that understands the protocols *oldest* to *newest*."""

    oldest: int
    newest: int
    name: str = "0.2.0"

    @property
    def config(self) -> str:
        """Its config.py."""
        text = (CHECKOUT / "meshdev" / "config.py").read_text()
        for name, value in (("PROTOCOL", self.newest), ("OLDEST_PROTOCOL", self.oldest), ("VERSION", f'"{self.name}"')):
            text, count = re.subn(rf"^{name}: Final = .*$", f"{name}: Final = {value}", text, flags=re.MULTILINE)
            assert count == 1, name
        return text

    def client(self, folder: Path) -> dict[str, str]:
        """The environment in which ``meshdev`` is this version; *folder* holds the copy."""
        copy = folder / f"meshdev-{self.name}"
        shutil.copytree(CHECKOUT / "meshdev", copy / "meshdev", ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "meshdev" / "config.py").write_text(self.config)
        return {"PYTHONPATH": str(copy)}

    def install(self, namespace: str) -> None:
        """Its manager, ready, in *namespace*: today's image with its config.py."""
        made = deployment(ManagerSpec(namespace, MANAGER_IMAGE, version=self.name, protocol=self.newest))
        meta = {"name": _CONFIG_MAP, "namespace": namespace}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"config.py": self.config}}
        pod = made["spec"]["template"]["spec"]
        pod["volumes"].append({"name": _CONFIG_MAP, "configMap": {"name": _CONFIG_MAP}})
        (tunnel,) = (container for container in pod["containers"] if container["name"] == TUNNEL_CONTAINER)
        tunnel["volumeMounts"].append({"name": _CONFIG_MAP, "mountPath": _IN_IMAGE, "subPath": "config.py"})
        apply(json.dumps(config) + "\n---\n" + json.dumps(made))
        kubectl("-n", namespace, "rollout", "status", "deployment", MANAGER_NAME, "--timeout=60s")


def meshdev(laptop: Laptop, environment: dict[str, str], *arguments: str) -> str:
    """A command of that version that must succeed."""
    done = laptop.run("meshdev", *arguments, environment=environment, timeout=90)
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def manager(namespace: str) -> dict[str, Any]:
    """The identity of the manager: a Deployment that was changed or a pod that was replaced makes another one."""
    made = json.loads(kubectl("-n", namespace, "get", "deployment", MANAGER_NAME, "-o", "json"))["metadata"]
    listed = json.loads(
        kubectl("-n", namespace, "get", "pods", "-l", f"app.kubernetes.io/name={MANAGER_NAME}", "-o", "json")
    )
    return {
        "uid": made["uid"],
        "generation": made["generation"],
        "version": made["annotations"]["meshdev.dev/version"],
        "pods": sorted(pod["metadata"]["name"] for pod in listed["items"]),
    }
