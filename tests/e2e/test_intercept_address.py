"""The app sees the same client addresses with an intercept as without one, from wherever they come."""

from collections.abc import Iterator
from typing import Final

import pytest

from meshdev.config import MANAGER_NAME
from tests.cluster.addresses import NODE
from tests.e2e import pods, workloads
from tests.e2e.conftest import Laptop, control
from tests.e2e.intercepting import A1, LOCAL, ask, curl, intercepted, local
from tests.e2e.workloads import CLIENT, http, of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

NAMESPACE: Final = "intercept-address"
#: Another address of the node, for as long as the test.
ANOTHER: Final = "192.0.2.77"


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    laptop = Laptop(1)
    laptop.clean()
    with workloads.namespace(NAMESPACE, *of(http("b"), NAMESPACE)), laptop.connected(), local(laptop):
        control("node", "--", "ip", "address", "replace", f"{ANOTHER}/32", "dev", "lo")
        try:
            yield laptop
        finally:
            control("node", "--", "ip", "address", "delete", f"{ANOTHER}/32", "dev", "lo")
    laptop.clean()


def seen(laptop: Laptop) -> dict[str, str]:
    """The client's address as the app sees it, of each client."""
    (app,) = pods.addresses(NAMESPACE, "app=b")
    url = f"http://{app}:8080/peer"

    def node(address: str) -> str:
        return control("node", "--", "curl", "-sS", "--max-time", "8", "--interface", address, url)

    return {
        "pod": ask(NAMESPACE, (url, {}))[0][1],
        "pod, by the Service": ask(NAMESPACE, (f"http://b.{NAMESPACE}/peer", {}))[0][1],
        "node": node(str(NODE)),
        "node, another address": node(ANOTHER),
        "laptop": curl(laptop, url),
        "laptop, by the Service": curl(laptop, f"http://b.{NAMESPACE}/peer"),
    }


def test_the_app_sees_the_same_clients(there: Laptop) -> None:
    before = seen(there)
    (client,) = (pod["status"]["podIP"] for pod in pods.pods(NAMESPACE) if pod["metadata"]["name"] == CLIENT)
    (manager,) = pods.addresses("default", f"app.kubernetes.io/name={MANAGER_NAME}")
    assert before["pod"] == before["pod, by the Service"] == client
    assert (before["node"], before["node, another address"]) == (str(NODE), ANOTHER)
    assert before["laptop"] == before["laptop, by the Service"] == manager
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "-H", "a=1"):
        assert ask(NAMESPACE, (f"http://b.{NAMESPACE}/", A1)) == [(200, LOCAL)]
        assert seen(there) == before
    assert seen(there) == before, "connections that were redirected, and new ones"
