"""Middleboxes that do not pass a carrier on: the next one is tried within the time of the same connect."""

import json
import subprocess
import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster import addresses
from tests.e2e.conftest import Laptop, control, kubectl

pytestmark = pytest.mark.cluster

CHAIN: Final = "service-a>service-b>service-c"
#: 5 s for the carrier that is swallowed, and what a connect takes otherwise.
CONNECT_SECONDS: Final = 15.0
_ACCOUNT: Final = "middlebox-tests"


@pytest.fixture(scope="module")
def token(cluster: None) -> Any:  # noqa: ARG001 -- for its effect
    """Of an administrator: a client certificate would not get through somebody else's TLS."""
    kubectl("create", "serviceaccount", _ACCOUNT)
    kubectl(
        *(
            "create",
            "clusterrolebinding",
            _ACCOUNT,
            "--clusterrole=cluster-admin",
            f"--serviceaccount=default:{_ACCOUNT}",
        )
    )
    yield kubectl("create", "token", _ACCOUNT).strip()
    control("kubectl", "delete", "clusterrolebinding", _ACCOUNT)
    control("kubectl", "delete", "serviceaccount", _ACCOUNT)


@pytest.mark.parametrize("how", ["reset", "swallow", "after"])
@pytest.mark.parametrize(("what", "other"), [("SPDY", "websocket")])
def test_the_other_carrier_is_tried(
    laptop: Laptop, tmp_path: Path, token: str, what: str, other: str, how: str
) -> None:
    certificate = tmp_path / "middlebox.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=middlebox", "-addext"]
    files = ["-keyout", str(tmp_path / "key"), "-out", str(certificate)]
    subprocess.run([*command, "subjectAltName=IP:127.0.0.1", *files], check=True, capture_output=True)
    authority = certificate.read_text()
    certificate.write_text(authority + (tmp_path / "key").read_text())
    (tmp_path / "ca").write_text(authority)
    server = f"{addresses.NODE}:6443"
    with laptop.start("python", "-m", "tests.e2e.middlebox", what, how, server, str(certificate)) as middlebox:
        try:
            assert middlebox.stdout is not None
            port = int(middlebox.stdout.readline())
            config = {
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [
                    {"name": "c", "cluster": {"server": f"https://127.0.0.1:{port}", "certificate-authority": "ca"}}
                ],
                "users": [{"name": "u", "user": {"token": token}}],
            }
            (tmp_path / "config").write_text(json.dumps(config))
            begun = time.monotonic()
            with laptop.connected("--kubeconfig", str(tmp_path / "config")):
                print(f"connected after {time.monotonic() - begun:.1f} s")
                assert time.monotonic() - begun < CONNECT_SECONDS
                assert laptop.status()["carrier"] == other
                assert laptop.ok("curl", "-sS", "--max-time", "5", "http://a/") == CHAIN
        finally:
            middlebox.kill()
        broken = middlebox.stdout.read().split()
    assert broken == [what] * len(broken)
    assert 1 <= len(broken) <= 2, "once it is known, no other carrier waits for it"
