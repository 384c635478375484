"""A fake API server and a client of it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from meshdev.kube.client import KubeApi
from meshdev.kube.kubeconfig import Options
from tests.kube.fake_api import FakeApi, serving


def write_kubeconfig(path: Path, server: str, *, user: Any = None, **cluster: Any) -> Path:
    """A kubeconfig with one context, ``c``."""
    config = {
        "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
async def fake() -> AsyncIterator[FakeApi]:
    async with serving(FakeApi()) as api:
        yield api


@pytest.fixture
async def api(fake: FakeApi, tmp_path: Path) -> AsyncIterator[KubeApi]:
    path = write_kubeconfig(tmp_path / "config", fake.url)
    async with await KubeApi.open(Options(kubeconfig=str(path), environment={})) as opened:
        yield opened
