"""Pods whose claims are traced."""

import pytest

from tests.sidecar.pod import Pod


@pytest.fixture(params=[False, True], ids=["plain", "traced"])
def traced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Once without and once with a trace context for the requests of all claims."""
    monkeypatch.setattr(Pod, "trace", request.param)
    trace: bool = request.param
    return trace
