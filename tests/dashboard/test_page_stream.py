"""The page when the stream breaks, the token is wrong, or somebody else's page wants to read."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.dashboard import synthetic
from tests.dashboard.chromium import until
from tests.dashboard.client import TOKEN
from tests.dashboard.conftest import REBOUND
from tests.dashboard.page import Page


def test_it_connects_again(page: Page) -> None:
    page.open()
    page.served.put("requests", synthetic.requests(3))
    until("all rows", lambda: len(page.texts("#rows tr")) == 3)
    page.served.stop()
    page.shows("The session does not answer", "#banner-title", 2)
    page.shows(
        "run meshdev dashboard again and open the URL that it prints; without a connection, meshdev connect first.",
        "#banner-text",
    )
    assert page.text("#state-text") == "No connection"
    assert len(page.texts("#rows tr")) == 3, "what was seen stays"
    page.served.start()
    page.shows("Connected", "#state-text", 10)
    assert not page.visible("#banner")
    page.served.put("requests", synthetic.requests(1, first=3, path="/again"))
    page.shows("/again", "#rows tr")
    page.complains_only_of("ERR_CONNECTION_REFUSED")


def test_it_tries_ever_more_rarely_or_when_it_is_asked_to(page: Page) -> None:
    page.open()
    page.served.stop()
    waits = (
        "const t = document.getElementById('banner-text').textContent.match(/in (\\d+) s/); return t ? Number(t[1]) : 0"
    )
    until("it waits longer", lambda: page.run(waits) >= 2, 10)
    page.served.start()
    page.find("#retry").click()
    page.shows("Connected", "#state-text", 1)
    page.complains_only_of("ERR_CONNECTION_REFUSED")


def test_a_wrong_token(page: Page) -> None:
    page.open(token="wrong")  # noqa: S106 -- that is what is tested
    page.shows("Run meshdev dashboard again, and open the URL that it prints.", "#banner-text")
    assert page.text("#state-text") == "No access"
    page.complains_only_of("401")


def test_no_token(page: Page) -> None:
    page.open(token=None)
    page.shows("Its token is missing", "#banner-text")
    assert page.served.readers == 0


def test_the_token_is_not_left_in_the_address_bar_and_a_reload_works(page: Page) -> None:
    page.open()
    assert page.driver.current_url == f"{page.origin}/"
    page.driver.refresh()
    page.shows("Connected", "#state-text")


def test_the_url_of_a_later_command_in_the_same_tab(page: Page) -> None:
    page.open(token="of-yesterday")  # noqa: S106 -- that is what is tested
    page.shows("No access", "#state-text")
    page.driver.get(f"{page.origin}/#token={TOKEN}")
    page.shows("Connected", "#state-text")
    page.complains_only_of("401")


@contextmanager
def another_site() -> Iterator[str]:
    """The origin of a page that somebody else serves on this machine."""
    server = http.server.HTTPServer(("127.0.0.1", 0), _Empty)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Empty(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>another</title>")

    def log_message(self, format: str, *_arguments: object) -> None:  # noqa: A002 -- http.server's
        """Nowhere."""


def test_a_page_of_another_origin_reads_nothing(page: Page) -> None:
    """Though it knows the token."""
    page.open()
    with another_site() as site:
        page.driver.get(site)
        fetched = "return await fetch(arguments[0], arguments[1]).then((r) => r.type + r.status, (e) => e.name)"
        fetched = fetched.replace("arguments", "given")
        authorized = {"headers": {"Authorization": f"Bearer {TOKEN}"}}
        assert page.wait_for_script(fetched, f"{page.origin}/events", authorized) == "TypeError"
        assert page.wait_for_script(fetched, f"{page.origin}/main.js", {}) == "TypeError"
        assert page.wait_for_script(fetched, f"{page.origin}/leave", {"method": "POST", "body": "{}"}) == "TypeError"
        assert page.wait_for_script(fetched, f"{page.origin}/main.js", {"mode": "no-cors"}) == "TypeError"
        framed = (
            "const frame = document.createElement('iframe'); frame.src = given[0]; document.body.append(frame);"
            "await new Promise((seen) => { frame.onload = seen; });"
            "try { return frame.contentDocument === null ? 'unreadable' : frame.contentDocument.title; }"
            "catch (error) { return error.name; }"
        )
        assert page.wait_for_script(framed, f"{page.origin}/") == "unreadable"
    assert page.served.left == []
    page.complains_only_of(
        "CORS policy", "ERR_FAILED", "ERR_BLOCKED_BY_RESPONSE.NotSameOrigin", "frame-ancestors", "403"
    )


def test_a_name_that_was_turned_here_shows_nothing(page: Page) -> None:
    page.driver.get(f"http://{REBOUND}:{page.served.port}/#token={TOKEN}")
    assert "127.0.0.1 and localhost only" in page.text("body")
    assert page.run("return document.querySelector('main')") is None
    page.complains_only_of("421", "Cross-Origin-Opener-Policy header has been ignored")
