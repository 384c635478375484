"""What the documentation says to type exists, and what it links to is there."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import typer
from typer.core import TyperGroup

from meshdev.cli.commands import app

ROOT: Final = Path(__file__).parent.parent
PAGES: Final = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
GROUP: Final = typer.main.get_command(app)

BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE: Final = re.compile(r"(?<!`)`(meshdev [^`\n]+)`(?!`)")
#: A test that a page names: its file below tests/, and its function.
TEST: Final = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
LINK: Final = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
#: Where a command ends: for the shell, for meshdev, and where a sentence leaves something out.
ENDS: Final = frozenset({"|", "&&", "||", ";", "&", ">", "--", "…"})

pytestmark = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def test_commands_and_flags_exist(page: Path) -> None:
    assert isinstance(GROUP, TyperGroup)
    for line in typed(page.read_text()):
        words = words_of(line)
        command = next((word for word in words[1:] if not word.startswith("-")), None)
        if command is None or command.isupper():
            continue  # `meshdev --help`, `meshdev COMMAND --help`
        assert command in GROUP.commands, line
        known = {"--help", *(name for each in GROUP.commands[command].params for name in each.opts)}
        flags = {word.partition("=")[0] for word in words if word.startswith("-")}
        assert flags <= known, line


def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for match in LINK.finditer(text):
        target, anchor = match[1], match[2]
        if "://" in target:
            continue
        file = (page.parent / target).resolve()
        assert file.exists(), target
        if anchor:
            assert anchor[1:] in {anchor_of(each) for each in HEADING.findall(file.read_text())}, match[0]


def test_tests_that_are_named_exist(page: Path) -> None:
    for file, function in TEST.findall(page.read_text()):
        assert re.search(rf"^\s*(async )?def {function}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), function


def typed(text: str) -> Iterator[str]:
    """The command lines of meshdev's in code, each whole."""
    for language, block in BLOCK.findall(text):
        if language not in {"", "sh", "yaml"}:
            continue
        for line in re.sub(r"\\\n\s*", " ", block).splitlines():
            at = re.search(r"(?:^|[$|;] ?|- run: |- )(meshdev [a-z-].*)", line.strip())
            if at is not None and not line.startswith("meshdev: "):
                yield at[1]
    yield from INLINE.findall(text)


def words_of(line: str) -> list[str]:
    """Up to where the program ends, or what it runs begins."""
    words: list[str] = []
    for word in shlex.split(line, comments=True):
        if word in ENDS:
            break
        words.append(word)
    return words


def anchor_of(heading: str) -> str:
    """As GitHub makes them."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
