"""Both carriers through the real chain: API server, kubelet, containerd, pod."""

import json
from typing import Any, Final

import pytest

from meshdev.wire.framing import CARRIER_KINDS
from tests.e2e.conftest import Laptop

pytestmark = pytest.mark.cluster

BYTES: Final = 200_000_000


def probe(laptop: Laptop, *arguments: str, kubeconfig: str = "-") -> dict[str, Any]:
    """Run tests.e2e.kube_probe there."""
    done = laptop.run("python", "-m", "tests.e2e.kube_probe", kubeconfig, *arguments, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # nothing is left open, no plugin and no library complains
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.mark.parametrize("carrier", CARRIER_KINDS)
def test_bytes_arrive_as_they_were_sent(laptop: Laptop, carrier: str) -> None:
    answer = probe(laptop, "carry", carrier, str(BYTES))
    assert (answer["ok"]["up"], answer["ok"]["down"]) == (True, True)


@pytest.mark.parametrize("carrier", CARRIER_KINDS)
def test_a_port_that_nobody_listens_on_is_refused_with_the_kubelets_words(laptop: Laptop, carrier: str) -> None:
    error = probe(laptop, "reach", carrier, "9")["error"]
    assert error["kind"] == "PortForwardError"
    assert "connection refused" in error["message"]


@pytest.mark.parametrize("carrier", CARRIER_KINDS)
def test_a_pod_that_is_not_there(laptop: Laptop, carrier: str) -> None:
    error = probe(laptop, "absent", carrier)["error"]
    assert error["kind"] == "NotFoundError"
    assert 'pods "no-such-pod" not found' in error["message"]


@pytest.mark.parametrize("scheme", ["http", "socks5", "socks5h"])
def test_requests_and_carriers_go_through_a_proxy(laptop: Laptop, scheme: str) -> None:
    led = probe(laptop, "through", scheme)["ok"]
    assert len(led) >= 3  # the list, and a carrier of each kind
    assert set(led) == {"172.30.0.2:6443"}
