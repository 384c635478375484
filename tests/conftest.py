"""What holds for every test."""

import ctypes
import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

_NETWORK: Final = Path("/proc/thread-self/ns/net")
_HOME: Final = os.open(_NETWORK, os.O_RDONLY | os.O_CLOEXEC)


def pytest_configure() -> None:
    """Keys of a terminal count: a shell's background job (``make test &``) ignores them, and all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """A test that enters a network namespace leaves it: those behind it, and what they start, would be in there."""
    yield
    if not _NETWORK.samefile(f"/proc/self/fd/{_HOME}"):
        assert ctypes.CDLL(None).setns(_HOME, 0) == 0
        pytest.fail("it has left its thread in a network namespace")
