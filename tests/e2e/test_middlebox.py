"""Middleboxes that do not pass a carrier on: the next one is tried within the time of the same connect."""

import time
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.between import between
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
    with between(laptop, tmp_path, what, how) as middlebox:
        config = middlebox.kubeconfig(token)
        begun = time.monotonic()
        with laptop.connected("--kubeconfig", config):
            print(f"connected after {time.monotonic() - begun:.1f} s")
            assert time.monotonic() - begun < CONNECT_SECONDS
            assert laptop.status()["carrier"] == other
            assert laptop.ok("curl", "-sS", "--max-time", "5", "http://a/") == CHAIN
    assert middlebox.broken == [what] * len(middlebox.broken)
    assert 1 <= len(middlebox.broken) <= 2, "once it is known, no other carrier waits for it"
