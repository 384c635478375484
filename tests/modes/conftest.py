"""The fake API server of tests/kube."""

from tests.kube.conftest import api, fake

__all__ = ["api", "fake"]
