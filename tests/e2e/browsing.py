"""A browser on a laptop, which is driven from outside."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.e2e.conftest import CHECKOUT, Laptop

_TEXTS: Final = "return [...document.querySelectorAll(arguments[0])].map((element) => element.innerText)"
_CLICK: Final = "document.querySelector(arguments[0]).click()"


class Browser:
    """One that shows a page."""

    def __init__(self, laptop: Laptop, url: str) -> None:
        self._process = subprocess.Popen(
            laptop.command("python", "-m", "tests.dashboard.remote", url),
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def shows(self, text: str, selector: str) -> bool:
        """Whether one of these elements does."""
        return any(text in each for each in self._ask([_TEXTS, selector]))

    def click(self, selector: str) -> None:
        """The first of them."""
        self._ask([_CLICK, selector])

    @property
    def complaints(self) -> list[str]:
        """Since the last time: errors, and violations of the page's policy."""
        found: list[str] = self._ask(None)
        return found

    def close(self) -> None:
        """It ends with its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def _ask(self, what: list[str] | None) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(what), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@contextmanager
def browsing(laptop: Laptop, url: str) -> Iterator[Browser]:
    """A browser with that page, until the block ends."""
    browser = Browser(laptop, url)
    try:
        yield browser
    finally:
        browser.close()
