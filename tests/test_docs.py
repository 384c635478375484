"""What the documentation says to type exists, and what it links to and names is there."""

import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import typer
from jsonschema import Draft202012Validator
from typer.core import TyperGroup

from meshdev.cli.commands import app
from meshdev.cli.registry import COMMANDS
from tests.schemas.answers import FOLDER, NAMES, of_command, schema, text

ROOT: Final = Path(__file__).parent.parent
MAP: Final = ROOT / "CONTRIBUTING.md"
PAGES: Final = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
SOURCES: Final = sorted(
    path for folder in ("meshdev", "tests", "bench", "demo", "examples") for path in (ROOT / folder).rglob("*.py")
)
GROUP: Final = typer.main.get_command(app)

BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE: Final = re.compile(r"(?<!`)`(meshdev [^`\n]+)`(?!`)")
#: A test that a page names: its file below tests/, and its function.
TEST: Final = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
LINK: Final = re.compile(r"\]\(([^)#\s]+)(#[^)\s]*)?\)")
HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)
#: Where a command ends: for the shell, for meshdev, and where a sentence leaves something out.
ENDS: Final = frozenset({"|", "&&", "||", ";", "&", ">", "--", "…"})

#: A decision record by its number, and others behind it: ``docs/design/0004, 0010``.
RECORD: Final = re.compile(r"docs/design/(\d{4}(?:, \d{4})*)")
#: A page that a comment names; not part of somebody else's URL.
PAGE: Final = re.compile(r"(?<![/\w.-])docs/[\w/-]+\.md")
#: In prose a path from the root of the repository; in the map's diagrams one below meshdev/.
NAMED: Final = re.compile(r"(?<!`)`([\w.-]+/[\w./-]*)`(?!`)")
DRAWN: Final = re.compile(r"\b[a-z_]+/[\w/]*(?:\.py)?")
#: Each folder in it is; the others are made (.gitignore).
NOT_MAPPED: Final = {ROOT / "meshdev", ROOT / "build", ROOT / "dist"}
OURS: Final = ("bench/", "demo/", "docs/", "examples/", "images/", "meshdev/", "tests/")
#: A label of a document that is not in this repository.
LABEL: Final = re.compile(r"\bD[0-9]{1,2}\b")


@functools.cache
def _sources() -> str:
    return "".join(path.read_text() for path in SOURCES)


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=_name)


@every_page
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


@every_page
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


@every_page
def test_tests_that_are_named_exist(page: Path) -> None:
    for file, function in TEST.findall(page.read_text()):
        assert re.search(rf"^\s*(async )?def {function}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), function


@every_page
def test_files_that_are_named_exist(page: Path) -> None:
    named = NAMED.findall(page.read_text())
    paths = named if page == MAP else [path for path in named if path.startswith(OURS)]
    assert [path for path in paths if not (ROOT / path).exists() and not RECORD.fullmatch(path)] == []


@every_page
def test_variables_that_are_named_are_read(page: Path) -> None:
    assert [
        name for name in re.findall(r"\bMESHDEV_[A-Z_]*[A-Z]\b", page.read_text()) if f'"{name}"' not in _sources()
    ] == []


def test_every_folder_is_on_the_map() -> None:
    """Those of meshdev; of the others what stands at the top, and tests that mirror no folder of meshdev."""
    code = {path.parent for path in (ROOT / "meshdev").rglob("*.py")} - {ROOT / "meshdev"}
    tests = {
        path.parent for path in (ROOT / "tests").glob("*/*.py") if not (ROOT / "meshdev" / path.parent.name).exists()
    }
    top = {path for path in ROOT.iterdir() if path.is_dir() and re.fullmatch(r"[a-z]+", path.name)} - NOT_MAPPED
    rows = [line.split("|")[1] for line in MAP.read_text().splitlines() if line.startswith("| `")]
    drawn = {name for row in rows for name in NAMED.findall(row)}
    assert sorted(f"{_name(folder)}/" for folder in code | tests | top if f"{_name(folder)}/" not in drawn) == []


def test_the_diagrams_of_the_map_name_what_there_is() -> None:
    drawn = [
        path
        for language, block in BLOCK.findall(MAP.read_text())
        if language == "mermaid"
        for path in DRAWN.findall(block.replace("<br/>", " "))
    ]
    assert len(drawn) > 10
    assert [path for path in drawn if not (ROOT / "meshdev" / path).exists()] == []


def test_every_page_and_record_is_found_from_its_list() -> None:
    listed = [target for target, _ in LINK.findall((ROOT / "README.md").read_text())]
    assert [_name(page) for page in (ROOT / "docs").glob("*.md") if _name(page) not in listed] == []
    design = ROOT / "docs" / "design"
    listed = [target for target, _ in LINK.findall((design / "README.md").read_text()) if target[0].isdigit()]
    assert listed == sorted(page.name for page in design.glob("[0-9]*.md"))
    assert len({name[:4] for name in listed}) == len(listed), "a number stands for one record"


def test_pages_and_records_that_sources_name_exist() -> None:
    records = {path.name[:4] for path in (ROOT / "docs" / "design").glob("[0-9]*.md")}
    for path in SOURCES:
        text = path.read_text()
        named = {number for numbers in RECORD.findall(text) for number in numbers.split(", ")}
        assert named <= records, _name(path)
        assert [page for page in PAGE.findall(text) if not (ROOT / page).exists()] == [], _name(path)


def test_no_label_stands_for_a_reason() -> None:
    """Who reads them has only this repository: the reason itself, or ``docs/design/NNNN``."""
    assert [f"{_name(path)}: {label}" for path in (*SOURCES, *PAGES) for label in LABEL.findall(path.read_text())] == []


@pytest.mark.parametrize("name", NAMES)
def test_schemas_are_what_the_code_declares(name: str) -> None:
    """Else: ``python -m tests.schemas``, and a line in CHANGELOG.md if a key has gone or changed."""
    assert (FOLDER / f"{name}.json").read_text() == text(schema(name))
    Draft202012Validator.check_schema(schema(name))
    assert f"`{name}.json`" in (FOLDER / "README.md").read_text()


def test_every_command_that_prints_json_has_a_schema() -> None:
    """It is declared in meshdev/wire/answers.py, and named in tests/schemas/answers.py."""
    assert isinstance(GROUP, TyperGroup)
    names = [name for name in COMMANDS if any("--output" in option.opts for option in GROUP.commands[name].params)]
    assert [name for name in names if of_command([name]) not in NAMES] == []
    assert {"status", "doctor", "logs", "gather"} <= set(names)
    assert {path.stem for path in FOLDER.glob("*.json")} == set(NAMES)


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
