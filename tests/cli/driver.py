"""The real commands with the fakes beside them in place of session and helper."""

import os
import sys
from pathlib import Path

from meshdev.cli import disconnect, follow, launch
from meshdev.cli.main import main

HERE = Path(__file__).parent

launch.session_command = lambda: [sys.executable, str(HERE / "fake_session.py")]
launch.helper_command = lambda: [sys.executable, str(HERE / "fake_helper.py")]
launch.is_root = lambda: "FAKE_SUDO" not in os.environ
if "FAKE_SHORT" in os.environ:
    follow.UNDO_SECONDS = 1.0  # type: ignore[misc]  # it is final for everybody but this test
    follow._REASON_SECONDS = 0.5  # type: ignore[misc]  # the same
    disconnect._TERM_SECONDS = 1.0  # type: ignore[misc]  # the same
main()
