"""What holds for every test."""

import signal


def pytest_configure() -> None:
    """Ctrl-C counts: a shell's background job (``make test &``) ignores it, and so would every program under test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
