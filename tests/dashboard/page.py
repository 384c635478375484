"""The page in a browser, and the real server behind it, fed by the test."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from meshdev.dashboard.client_events import FeedEvent
from meshdev.dashboard.server import serving
from meshdev.errors import MeshdevError
from tests.dashboard import synthetic
from tests.dashboard.chromium import log, until
from tests.dashboard.client import TOKEN, SyntheticFeed

_START_SECONDS: Final = 10.0
_AT_REST: Final = """
const place = () => JSON.stringify(document.querySelector(given[0]).getBoundingClientRect());
for (let former = ""; former !== place(); ) {
  former = place();
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)));
}
"""


class Served:
    """A server in a thread of its own, at the same port each time it is started."""

    def __init__(self) -> None:
        self.feed = SyntheticFeed()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._stop: asyncio.Event | None = None
        self._running: asyncio.Task[None] | None = None
        self.port = 0

    def start(self) -> None:
        """Serve."""
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_START_SECONDS)

    def stop(self) -> None:
        """Serve no more: all connections are closed."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_START_SECONDS)

    def close(self) -> None:
        """End all of it."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_SECONDS)
        self._loop.close()

    async def _start(self) -> None:
        self._stop = asyncio.Event()
        ready = asyncio.Event()
        self._running = asyncio.create_task(self._serve(ready, self._stop))
        await ready.wait()

    async def _serve(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        with socket.create_server(("127.0.0.1", self.port)) as listener:
            self.port = listener.getsockname()[1]
            async with serving(listener, self.feed, TOKEN):
                ready.set()
                await stop.wait()

    async def _end(self) -> None:
        if self._stop is not None and self._running is not None:
            self._stop.set()
            await self._running
            self._running = None

    def begin(self, *first: FeedEvent) -> None:
        """What each page gets at once; nothing has been left yet."""
        self.feed.first = first
        self.feed.left.clear()
        self.feed.error = None

    def refuse(self, error: MeshdevError | None) -> None:
        """Answer so when an intercept shall be left."""
        self.feed.error = error

    def put(self, name: str, data: synthetic.Json) -> None:
        """One more event for all pages."""
        self._loop.call_soon_threadsafe(lambda: self.feed.put(name, **data))

    @property
    def readers(self) -> int:
        """Pages that read the stream."""
        return len(self.feed.clients)

    @property
    def left(self) -> list[str]:
        """The intercepts that were left."""
        return [*self.feed.left]


class Page:
    """What somebody sees and does."""

    def __init__(self, driver: Chrome, served: Served) -> None:
        self.driver = driver
        self.served = served

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.served.port}"

    def open(self, *, token: str | None = TOKEN, state: synthetic.Json | None = None) -> None:
        """The URL that the command prints, in a tab that knows nothing yet; with a token until it shows the state."""
        first = FeedEvent("history", synthetic.history()), FeedEvent("state", state or synthetic.small())
        self.served.begin(*first)
        self.driver.get("about:blank")
        log(self.driver)
        self.driver.get(f"{self.origin}/{'' if token is None else f'#token={token}'}")
        if token == TOKEN:
            until("the page is connected", lambda: self.text("#state-text") == "Connected")

    def forget_token(self) -> None:
        """As in a new tab."""
        self.driver.get(f"{self.origin}/style.css")
        self.run("sessionStorage.clear()")
        self.command("Input.dispatchMouseEvent", type="mouseMoved", x=0, y=0)
        log(self.driver)

    def size(self, width: int, height: int = 900) -> None:
        """Of what the page has, without the browser's own frame."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )

    def colours(self, scheme: str) -> None:
        """``light`` or ``dark``."""
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def command(self, name: str, **parameters: object) -> Any:
        """Of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, parameters)

    def run(self, script: str, *arguments: object) -> Any:
        """A function's body in the page; its value."""
        return self.driver.execute_script(script, *arguments)

    def wait_for_script(self, script: str, *arguments: object) -> Any:
        """The same of an asynchronous function."""
        body = (
            "const done = arguments[arguments.length - 1]; (async (...given) => {"
            + script
            + "})(...arguments).then(done)"
        )
        return self.driver.execute_async_script(body, *arguments)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """The text of the first; empty where there is none."""
        found: str = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return found

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText ?? e.textContent)", selector
        )
        return found

    def visible(self, selector: str) -> bool:
        """Whether the first is."""
        found: bool = self.run("return document.querySelector(arguments[0]).checkVisibility()", selector)
        return found

    def shows(self, text: str, selector: str, seconds: float = 5.0) -> None:
        """Wait until *text* stands in one of these."""
        until(f"{selector} shows {text}", lambda: any(text in each for each in self.texts(selector)), seconds)

    @property
    def focused(self) -> str:
        """The text or the label of what has the focus."""
        found: str = self.run("const e = document.activeElement; return e.ariaLabel ?? e.innerText")
        return found

    def click(self, selector: str) -> None:
        """The first, once it no longer moves."""
        self.wait_for_script(_AT_REST, selector)
        self.find(selector).click()

    def press(self, *keys: str) -> None:
        """One after the other, wherever the focus is."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def tab_to(self, selector: str, most: int = 60) -> None:
        """By the Tab key alone."""
        for _ in range(most):
            self.press(Keys.TAB)
            if self.run("return document.activeElement.matches(arguments[0])", selector):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    @property
    def complaints(self) -> list[str]:
        """Of the browser: errors, warnings, violations of the policy."""
        return log(self.driver)

    def complains_only_of(self, *texts: str) -> list[str]:
        """What it complained about, each with one of these: Chromium reports answers that are errors, too."""
        found = self.complaints
        others = [each for each in found if not any(text in each for text in texts)]
        assert others == [], "\n".join(others)
        return found


@contextmanager
def served() -> Iterator[Served]:
    """A server that runs."""
    found = Served()
    try:
        found.start()
        yield found
    finally:
        found.close()
