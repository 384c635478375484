"""What ``meshdev dashboard`` gives a browser leads it to the page."""

from pathlib import Path

import pytest

from meshdev.cli import browser as command
from meshdev.dashboard.client_events import FeedEvent
from meshdev.state import Paths
from tests.dashboard import synthetic
from tests.dashboard.chromium import until
from tests.dashboard.client import TOKEN
from tests.dashboard.page import Page


def test_a_browser_that_is_given_the_file_shows_the_page(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link from a file is one from another site to the browser: the server has to let it pass, and no other."""
    page.served.begin(FeedEvent("history", synthetic.history()), FeedEvent("state", synthetic.small()))
    monkeypatch.setattr(command, "_open", lambda file: page.driver.get(file.as_uri()))
    with command.opened(Paths(tmp_path), f"{page.origin}/#token={TOKEN}"):
        until("it is connected", lambda: page.text("#state-text") == "Connected")
    assert page.driver.current_url == f"{page.origin}/"
    assert list(tmp_path.iterdir()) == []
