"""Open the dashboard in a browser, without its token in anybody's list of processes.

A browser gets what it opens as an argument, and arguments can be read by every user (/proc/PID/cmdline). So it gets
the name of a file that only its owner may read, which leads on to the URL.
"""

import contextlib
import html
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from meshdev.state import Paths

_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={url}">
<title>meshdev</title>
<a href="{url}">Open the dashboard</a>
</html>
"""


@contextmanager
def opened(paths: Paths, url: str) -> Iterator[None]:
    """Open *url*; what leads to it is removed at the end, with what killed commands have left."""
    for former in paths.directory.glob("dashboard-*.html"):
        if not Path("/proc", former.stem.partition("-")[2]).exists():
            former.unlink(missing_ok=True)
    file = paths.directory / f"dashboard-{os.getpid()}.html"
    file.unlink(missing_ok=True)
    try:
        _write(file, _PAGE.format(url=html.escape(url)))
        _open(file)
        yield
    finally:
        file.unlink(missing_ok=True)


def _write(file: Path, text: str) -> None:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        out.write(text)


def _open(file: Path) -> None:
    """In the background, and silent: a browser may stay in the foreground, and prints what is not ours."""
    with contextlib.suppress(OSError):  # the URL has been printed
        subprocess.Popen(
            [sys.executable, "-m", "webbrowser", file.as_uri()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
