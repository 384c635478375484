"""The real commands with the fakes beside them in place of session and helper."""

import os
import signal
import sys
from pathlib import Path

signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # as main() does first; what is imported here takes time

from meshdev.cli import api, attach, disconnect, follow, launch  # noqa: E402 -- see above
from meshdev.cli.main import main  # noqa: E402 -- see above
from meshdev.helper import journal  # noqa: E402 -- see above
from meshdev.isolation import probing  # noqa: E402 -- see above
from meshdev.isolation.reasons import Forbidden, Works  # noqa: E402 -- see above

HERE = Path(__file__).parent

launch.session_command = lambda: [sys.executable, str(HERE / "fake_session.py")]
launch.helper_command = lambda: [sys.executable, str(HERE / "fake_helper.py")]
launch.is_root = lambda: "FAKE_SUDO" not in os.environ
_NO_NETWORK = Forbidden("no network of its own in this test", "none is needed")
probing.probe = lambda: Works() if "FAKE_ISOLATION" in os.environ else _NO_NETWORK
journal.FOLDER = Path(os.environ["HOME"]) / "run"  # type: ignore[misc]  # it is final for everybody but this test
if "FAKE_SHORT" in os.environ:
    follow.UNDO_SECONDS = 1.0  # type: ignore[misc]  # the same
    follow._ASK_SECONDS = 0.5  # type: ignore[misc]  # the same
    follow._REASON_SECONDS = 0.5  # type: ignore[misc]  # the same
    api.PATIENCE_SECONDS = 0.5  # type: ignore[misc]  # the same
    attach.LEAVE_SECONDS = 1.0  # type: ignore[misc]  # the same
    disconnect._TERM_SECONDS = 1.0  # type: ignore[misc]  # the same
main()
