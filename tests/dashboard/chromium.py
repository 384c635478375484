"""Debian's Chromium without a window, driven by its ChromeDriver. Both are unpacked, not installed."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.cluster.packages import unpacked_with_dependencies

#: The machine's, and one for pictures, which look the same everywhere then.
_FONTS: Final = """\
<?xml version="1.0"?>
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <dir>{root}/usr/share/fonts</dir>
  <cachedir>{cache}</cachedir>
</fontconfig>
"""
_LOOK_SECONDS: Final = 0.01

T = TypeVar("T")


@contextmanager
def chromium(folder: Path, *arguments: str) -> Iterator[Chrome]:
    """One, until the block ends. It keeps its files in *folder*."""
    root = unpacked_with_dependencies("chromium-headless-shell", "chromium-driver", "fonts-inter")
    fonts = folder / "fonts.conf"
    fonts.write_text(_FONTS.format(root=root, cache=folder / "fonts"))
    options = ChromeOptions()
    options.binary_location = str(root / "usr/lib/chromium/chromium-headless-shell")
    # Tests run as root, and as root Chromium starts no sandbox (crbug.com/638180). It sees this server's page only.
    options.add_argument("--no-sandbox")
    for argument in ("--force-device-scale-factor=1", *arguments):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    libraries = root / "usr/lib/x86_64-linux-gnu"
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{libraries}:{libraries / 'pulseaudio'}",
        "FONTCONFIG_FILE": str(fonts),
        "TMPDIR": str(folder),
        "TZ": "UTC",
    }
    driver = Chrome(options, ChromeService(str(root / "usr/bin/chromedriver"), env=environment))
    try:
        yield driver
    finally:
        driver.quit()


def until(what: str, look: Callable[[], T], seconds: float = 10.0) -> T:
    """What *look* finds, as soon as it is something."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(_LOOK_SECONDS)
    return found


def log(driver: Chrome) -> list[str]:
    """What was written to the console since the last time, and what the browser itself complained about."""
    entries: list[dict[str, Any]] = driver.get_log("browser")  # type: ignore[no-untyped-call]  # selenium's own
    return [str(entry["message"]) for entry in entries]
