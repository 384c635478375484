"""How the page looks and reads: sizes, colours, names for screen readers, and pictures of it."""

import base64
import os
import re
from pathlib import Path

import pytest

from tests.dashboard import png, synthetic
from tests.dashboard.chromium import until
from tests.dashboard.page import Page

STATIC = Path(__file__).parents[2] / "meshdev" / "dashboard" / "static"
PICTURES = Path(__file__).parents[2] / "docs" / "pictures"
#: Set: the pictures of the documentation are made anew.
SCREENSHOTS = "MESHDEV_SCREENSHOTS"
LARGEST = 150_000

FILES = sorted(path for path in STATIC.iterdir() if path.suffix in {".js", ".css", ".html"})


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_is_inline_or_from_elsewhere_and_nothing_becomes_markup(path: Path) -> None:
    text = path.read_text()
    assert (
        re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser", text)
        == []
    )
    assert re.findall(r"https?://(?!www\.w3\.org/)", text) == []
    if path.suffix == ".html":
        assert re.findall(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text) == []


def filled(page: Page) -> None:
    page.open()
    page.served.put("requests", synthetic.requests(40))
    until("all rows", lambda: len(page.texts("#rows tr")) == 40)


@pytest.mark.parametrize("width", [1280, 800, 400, 320])
def test_the_page_does_not_scroll_sideways(page: Page, width: int) -> None:
    page.size(width)
    filled(page)
    long = "a" * 300
    state = synthetic.small(synthetic.NOW + 1)
    state["intercepts"][0].update(match=long, target=f"deployment/{long}", holder=long)
    state["session"].update(notes=[long], context=long)
    state["nodes"][0]["name"] = long
    state["health"][0].update(check=long, detail=long)
    page.served.put("state", state)
    page.served.put("requests", synthetic.requests(1, first=40, path=f"/{long}", reason=long))
    page.shows(long, "#banner-title")
    page.shows(long, "#rows tr:first-child")
    page.click("#rows tr")
    page.shows(long, "#panel dd")
    scroll, room = page.run("return [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert scroll <= room


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance, of #rrggbb."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page: Page, scheme: str) -> None:
    """WCAG 2.2, 1.4.3 and 1.4.11, level AA: 4.5 for texts, 3 for shapes."""
    page.colours(scheme)
    page.open()
    names = ["page", "card", "sunken", "text", "quiet", "accent", "on-accent", "accent-soft", "ok", "warning", "failed"]
    names += ["warning-soft", "failed-soft", "control", "second"]
    read = "getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()"
    colour = dict(zip(names, page.run(f"return arguments[0].map((name) => {read})", names), strict=True))
    texts = [(text, ground) for text in ("text", "quiet") for ground in ("page", "card", "sunken", "accent-soft")]
    texts += [(text, ground) for text in ("ok", "warning", "failed", "accent") for ground in ("card", "page")]
    texts += [("on-accent", "accent"), ("on-accent", "failed"), ("text", "warning-soft"), ("text", "failed-soft")]
    low = {
        f"{a} on {b}": round(contrast(colour[a], colour[b]), 2)
        for a, b in texts
        if contrast(colour[a], colour[b]) < 4.5
    }
    shapes = [("control", "card"), ("control", "page"), ("second", "card")]
    low |= {
        f"{a} on {b}": round(contrast(colour[a], colour[b]), 2) for a, b in shapes if contrast(colour[a], colour[b]) < 3
    }
    assert low == {}


def test_everything_that_takes_the_focus_has_a_name(page: Page) -> None:
    filled(page)
    tree = page.command("Accessibility.getFullAXTree")["nodes"]
    focusable = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if any(each["name"] == "focusable" for each in node.get("properties", ())) and not node.get("ignored")
    ]
    assert len(focusable) > 20
    # The document, and what Chromium makes focusable because it scrolls.
    assert [role for role, name in focusable if not name and role not in {"RootWebArea", "generic", "main"}] == []


def test_what_the_skip_link_skips(page: Page) -> None:
    page.open()
    page.tab_to(".skip", 1)
    page.press("\ue007")
    assert page.run("return document.activeElement.id") == "main"


def test_who_wants_no_motion_gets_none(page: Page) -> None:
    page.open()
    duration = "return getComputedStyle(document.querySelector('.node')).transitionDuration"
    assert page.run(duration) != "0s"
    page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    assert page.run(duration) == "0s"


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures(page: Page, scheme: str, width: int, tmp_path: Path) -> None:
    """With MESHDEV_SCREENSHOTS set those of the documentation, too."""
    page.colours(scheme)
    page.size(width)
    filled(page)
    page.command("Emulation.setScrollbarsHidden", hidden=True)
    page.run("document.documentElement.style.setProperty('--sans', 'Inter')")
    height = page.run("return document.documentElement.scrollHeight") if width > 1000 else 860
    page.size(width, height)
    page.wait_for_script("await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    shot = base64.b64decode(page.command("Page.captureScreenshot", format="png")["data"])
    page.command("Emulation.setScrollbarsHidden", hidden=False)
    name = f"dashboard-{scheme}-{width}.png"
    (tmp_path / name).write_bytes(shot)
    picture = png.decode(shot)
    assert (picture.width, picture.height) == (width, height)
    assert len(set(picture.rows)) > height / 4, "it is blank"
    if SCREENSHOTS in os.environ:
        small = png.encode(picture)
        assert len(small) <= LARGEST
        PICTURES.mkdir(exist_ok=True)
        (PICTURES / name).write_bytes(small)
