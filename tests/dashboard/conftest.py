"""One browser, and one server, for all tests of the page."""

from collections.abc import Iterator

import pytest

from tests.dashboard.chromium import chromium
from tests.dashboard.page import Page, served

#: A name that leads here, as one does whose owner has turned it to 127.0.0.1 (DNS rebinding).
REBOUND = "rebound.example"


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("chromium")
    with chromium(folder, f"--host-resolver-rules=MAP {REBOUND} 127.0.0.1") as driver, served() as there:
        yield Page(driver, there)


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """Nothing is stored; at the end the browser has nothing to complain about that the test has not asked for."""
    browser.size(1280)
    browser.colours("light")
    browser.command("Storage.clearDataForOrigin", origin=browser.origin, storageTypes="all")
    browser.forget_token()
    yield browser
    complaints = browser.complaints
    assert complaints == [], complaints
