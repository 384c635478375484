"""Who this session acts for, in the words that others read."""

import os


def holder() -> str:
    """The one on whose behalf this process runs: ``user@host``."""
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())
    return f"{user}@{os.uname().nodename}"[:256]
