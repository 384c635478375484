"""Kubeconfigs as companies hand them out: an exec plugin for the credentials, a proxy on the way to the API server."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster import addresses, machine
from tests.e2e.conftest import Laptop

pytestmark = pytest.mark.cluster

CHAIN: Final = "service-a>service-b>service-c"
#: A name that no resolver of the laptop knows; the certificate is for another one.
HIDDEN: Final = "api.hidden.test"
_PLUGIN: Final = """#!/bin/sh
id -u >>{trace}
cat {credential}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder on the laptop that belongs to the developer."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)  # pytest's own folders are private; the developer is somebody else
    account = machine.account()
    shutil.chown(tmp_path, account.pw_uid, account.pw_gid)
    return tmp_path


@pytest.fixture
def config(dev: Laptop) -> dict[str, Any]:
    """The testbed's kubeconfig, to be changed."""
    loaded: dict[str, Any] = json.loads(dev.ok("sh", "-c", "cat $KUBECONFIG"))
    return loaded


def written(folder: Path, config: dict[str, Any]) -> str:
    """*config* as a file that the developer may read."""
    path = folder / "config"
    path.write_text(json.dumps(config))
    path.chmod(0o644)
    return str(path)


def connected(laptop: Laptop, kubeconfig: str, *arguments: str) -> None:
    """Connects with that kubeconfig, uses the cluster, disconnects; the laptop is as before."""
    before = laptop.snapshot()
    laptop.meshdev("connect", "--kubeconfig", kubeconfig, *arguments)
    assert laptop.ok("curl", "-sS", "--max-time", "5", "http://a/") == CHAIN
    assert laptop.status()["state"] == "connected"
    laptop.meshdev("disconnect")
    assert laptop.snapshot() == before


def test_exec_plugin_runs_as_the_user(dev: Laptop, folder: Path, config: dict[str, Any]) -> None:
    user = config["users"][0]["user"]
    certificate, key = (base64.b64decode(user[f"client-{name}-data"]).decode() for name in ("certificate", "key"))
    credential, trace, plugin = folder / "credential", folder / "trace", folder / "plugin"
    status = {"clientCertificateData": certificate, "clientKeyData": key}
    kind = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    credential.write_text(json.dumps({**kind, "status": status}))
    trace.touch()
    trace.chmod(0o666)
    plugin.write_text(_PLUGIN.format(trace=trace, credential=credential))
    plugin.chmod(0o755)
    config["users"][0]["user"] = {
        "exec": {"apiVersion": kind["apiVersion"], "command": str(plugin), "interactiveMode": "Never"}
    }
    connected(dev, written(folder, config))
    assert set(trace.read_text().split()) == {str(machine.account().pw_uid)}


@pytest.mark.parametrize("carrier", ["spdy", "websocket"])
def test_everything_goes_through_the_proxy(dev: Laptop, folder: Path, config: dict[str, Any], carrier: str) -> None:
    with dev.start("python", "-m", "tests.e2e.connect_proxy", HIDDEN, str(addresses.NODE)) as proxy:
        try:
            assert proxy.stdout is not None
            port = int(proxy.stdout.readline())
            config["clusters"][0]["cluster"] |= {
                "server": f"https://{HIDDEN}:6443",
                "proxy-url": f"http://127.0.0.1:{port}",
                "tls-server-name": "kubernetes",
            }
            connected(dev, written(folder, config), "--carrier", carrier)
        finally:
            proxy.kill()
        tunnels = proxy.stdout.read().splitlines()
    assert set(tunnels) == {f"CONNECT {HIDDEN}:6443"}
    assert len(tunnels) >= 3  # requests, and two carriers


def test_a_proxy_that_is_down_is_named(dev: Laptop, folder: Path, config: dict[str, Any]) -> None:
    config["clusters"][0]["cluster"]["proxy-url"] = "http://127.0.0.1:9"
    failed = dev.run("meshdev", "connect", "--kubeconfig", written(folder, config))
    assert failed.returncode == 31
    assert "127.0.0.1:9" in failed.stderr
