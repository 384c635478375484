"""What can be wrong when one connects: a sentence, a way out, an exit code, and nothing left anywhere."""

import base64
import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from meshdev.config import MANAGER_NAME
from meshdev.errors import (
    AdmissionError,
    ClusterError,
    ConfigError,
    CredentialError,
    DeviceError,
    ImageError,
    MeshdevError,
    SudoError,
    UnreachableError,
    UntrustedError,
)
from tests.cluster.paths import SUDOERS_FILE
from tests.e2e.accounts import apply, remove, uninstall, written
from tests.e2e.blackhole import blackhole
from tests.e2e.conftest import Laptop, kubectl, until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

#: As long as anybody waits to be told what will not get better.
QUICK_SECONDS: Final = 15.0


def fails(
    laptop: Laptop,
    kind: type[MeshdevError],
    *arguments: str,
    says: tuple[str, ...],
    command: tuple[str, ...] = ("meshdev",),
) -> None:
    """Both outputs of a connect with *arguments* that ends with *kind*, and nothing left on the laptop."""
    before = laptop.snapshot()
    start = time.monotonic()
    text = laptop.run(*command, "connect", *arguments)
    took = time.monotonic() - start
    assert text.returncode == kind.exit_code, text.stderr
    assert text.stdout == ""
    done = laptop.run(*command, "connect", *arguments, "-o", "json")
    assert done.returncode == kind.exit_code, done.stdout
    answer = json.loads(done.stdout)
    assert list(answer) == ["error"]
    error = answer["error"]
    assert error["code"] == kind.code
    for word in says:
        assert word in error["message"] + " " + str(error["hint"]), error
    assert _without_names(error["message"]) in _without_names(text.stderr)
    assert error["hint"], f"no way out: {error}"
    assert "Traceback" not in text.stderr + done.stderr
    assert took < QUICK_SECONDS
    print(f"\n{error['code']} after {took:.1f} s: {error['message']}\n  → {error['hint']}")
    assert laptop.status()["state"] == "disconnected"
    assert laptop.status()["leftovers"] == []
    assert laptop.processes() == {}
    assert laptop.snapshot() == before


def _without_names(text: str) -> str:
    """A pod has another name each time."""
    return re.sub(rf"{MANAGER_NAME}-[a-z0-9]+-[a-z0-9]+", MANAGER_NAME, text)


def nothing_in(namespace: str) -> None:
    """The pods are deleted by the cluster, once their Deployment is."""

    def gone() -> bool:
        return MANAGER_NAME not in kubectl("-n", namespace, "get", "deployments,replicasets,pods", "-o", "name")

    until(f"nothing of ours is left in {namespace}", gone, 30)


# -- the kubeconfig -----------------------------------------------------------------------------------------------


def test_no_kubeconfig(laptop: Laptop) -> None:
    command = ("env", "KUBECONFIG=/nonexistent/config", "meshdev")
    fails(laptop, ConfigError, says=("/nonexistent/config",), command=command)


def test_no_such_context(laptop: Laptop) -> None:
    fails(laptop, ConfigError, "--context", "prod", says=("prod", "testbed"))


def test_no_kubeconfig_at_all(laptop: Laptop, tmp_path: Path) -> None:
    command = ("env", "-u", "KUBECONFIG", f"HOME={tmp_path}", "meshdev")
    fails(laptop, ConfigError, says=("kubeconfig",), command=command)


def test_a_token_that_is_none(laptop: Laptop, tmp_path: Path) -> None:
    config = written(tmp_path / "config", {"token": "x"})
    fails(laptop, CredentialError, "--kubeconfig", config, says=("Unauthorized",))


# -- the API server -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        ("https://172.30.0.2:6999", "connection refused"),
        ("https://172.30.0.99:6443", "no route to host"),
        ("https://no-such-host.example.test:6443", "resolved"),
        ("http://172.30.0.2:6443", "https://"),
    ],
    ids=["refused", "no-route", "no-name", "no-tls"],
)
def test_unreachable(laptop: Laptop, tmp_path: Path, server: str, reason: str) -> None:
    config = written(tmp_path / "config", {"token": "x"}, server=server)
    fails(laptop, UnreachableError, "--kubeconfig", config, "--request-timeout", "4s", says=(reason,))


def test_silent(laptop: Laptop) -> None:
    with blackhole(laptop):
        fails(laptop, UnreachableError, "--request-timeout", "2s", says=("no answer in time",))


def test_untrusted(laptop: Laptop, tmp_path: Path) -> None:
    other = tmp_path / "other.crt"
    made = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=another"
    files = ["-keyout", str(tmp_path / "key"), "-out", str(other)]
    subprocess.run([*made.split(), *files], check=True, capture_output=True)
    authority = base64.b64encode(other.read_bytes()).decode()
    config = written(tmp_path / "config", {"token": "x"}, certificate_authority_data=authority)
    fails(
        laptop,
        UntrustedError,
        "--kubeconfig",
        config,
        says=("not trusted: unable to get local issuer", "certificate-authority"),
    )


# -- admission and the image --------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_pod_security_is_told_verbatim(laptop: Laptop, level: str) -> None:
    says = (f'violates PodSecurity "{level}:latest"', 'container "tunnel" must not include', "NET_ADMIN")
    fails(laptop, AdmissionError, "-n", f"psa-{level}", says=(*says, "--manager-namespace"))
    nothing_in(f"psa-{level}")


@pytest.fixture
def full_namespace() -> Iterator[str]:
    meta = {"name": "no-pods", "namespace": "team-2"}
    quota = json.dumps({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": {"hard": {"pods": "0"}}})
    uninstall("team-2")
    apply(quota)
    yield "team-2"
    remove(quota)


def test_a_quota_is_told_verbatim(laptop: Laptop, full_namespace: str) -> None:
    fails(laptop, AdmissionError, "-n", full_namespace, says=("exceeded quota: no-pods", "limited: pods=0"))
    nothing_in(full_namespace)


def test_an_image_that_is_not_there(laptop: Laptop) -> None:
    uninstall("team-2")
    image = "localhost/no-such-image:1"
    command = ("env", f"MESHDEV_IMAGE={image}", "meshdev")
    fails(laptop, ImageError, "-n", "team-2", says=(image, "--image"), command=command)
    nothing_in("team-2")


def test_a_namespace_that_is_not_there(laptop: Laptop) -> None:
    fails(laptop, ClusterError, "-n", "no-such-namespace", says=("kubectl create namespace no-such-namespace",))


# -- this machine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["mount --bind /dev/null /dev/net/tun", "mount -t tmpfs none /dev/net"])
def test_no_tun_device(laptop: Laptop, how: str) -> None:
    command = ("unshare", "--mount", "sh", "-c", f'{how}; exec meshdev "$@"', "sh")
    fails(laptop, DeviceError, says=("/dev/net/tun",), command=command)


def test_no_sudo(laptop: Laptop) -> None:
    dev = Laptop(1, "dev")
    python = Path(".venv/bin").absolute()
    fails(dev, SudoError, says=("sudo",), command=("env", f"PATH={python}", "meshdev"))
    assert laptop.processes() == {}


@pytest.mark.parametrize(
    ("sudoers", "said"),
    [("dev ALL=(ALL:ALL) PASSWD: ALL", "password is required"), ("# nobody", "")],
    ids=["password", "not-allowed"],
)
def test_sudo_that_says_no(laptop: Laptop, tmp_path: Path, sudoers: str, said: str) -> None:
    """Without a terminal nobody can type a password."""
    other = tmp_path / "sudoers"
    other.write_text(sudoers + "\n")
    other.chmod(0o440)
    script = f'mount --bind {other} {SUDOERS_FILE}; exec setsid -w runuser -u dev -- meshdev "$@"'
    environment = ("env", "XDG_RUNTIME_DIR=", "HOME=/home/dev", "KUBECONFIG=/home/dev/.kube/config")
    command = (*environment, "unshare", "--mount", "sh", "-c", script, "sh")
    fails(laptop, SudoError, says=(said, "terminal"), command=command)
