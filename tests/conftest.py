"""What holds for every test."""

import signal


def pytest_configure() -> None:
    """Keys of a terminal count: a shell's background job (``make test &``) ignores them, and all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)
