"""The fake API server of tests/kube."""

from meshdev.sidecar.join.container import SidecarSpec
from tests.kube.conftest import api, fake

__all__ = ["SPEC", "api", "fake"]

SPEC = SidecarSpec("sidecar:1", "10.96.0.5:15010", "default", "uid-b")
