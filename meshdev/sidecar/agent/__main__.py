"""Entry point of the sidecar: ``python3 -m meshdev.sidecar.agent``."""

import os
import sys

from meshdev.sidecar.agent.own_key import PendingKey


def main() -> int:
    """Log to stdout; the exit code of the error that ended it, else 0."""
    # Before gRPC is loaded: it would report on stderr each connection that a manager closes, in lines of its own form.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    key = PendingKey()
    from meshdev.sidecar.agent.serving import run  # noqa: PLC0415 -- loaded while the key is made

    return run(key)


if __name__ == "__main__":
    sys.exit(main())
