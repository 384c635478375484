"""Life cycles at their beginning, and with something to do."""

import pytest

from meshdev.wire.agent import Redirect, Want
from tests.sidecar.agent.world import BYTES, HTTP, LISTENERS, RAW, WEB, World


@pytest.fixture
def fresh() -> World:
    return World()


@pytest.fixture
def world(fresh: World) -> World:
    """Envoy runs, and both ports are redirected."""
    fresh.start_envoy()
    fresh.do(fresh.life.on_attested())
    fresh.hear(Want((HTTP, BYTES)), Redirect((WEB, RAW)))
    assert fresh.redirected == LISTENERS
    return fresh
