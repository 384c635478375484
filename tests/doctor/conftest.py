"""The API server and the tunnel server of other tests."""

from tests.kube.conftest import fake
from tests.manager.conftest import manager

__all__ = ["fake", "manager"]
