"""The reference of all commands: it has all of them, and a man page that formatters take."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from meshdev.cli import manpage, markdown, reference
from meshdev.cli.reference import ExitStatus, Parameter, Reference
from meshdev.cli.registry import COMMANDS
from meshdev.errors import Cancelled, MeshdevError
from tests.cluster import packages

ROOT = Path(__file__).parents[2]

PIECES = [
    Reference("", "Do it.", (), "meshdev [OPTIONS] COMMAND", (), (Parameter(("--version",), "", "Print it."),), ()),
    Reference(
        "do",
        "Do one thing.",
        ("As `it` is.", ".profile is read, too."),
        "meshdev do [OPTIONS] WHAT",
        (Parameter((), "WHAT", "What to do."),),
        (Parameter(("--how", "-h"), "fast|well", "How. Default: well."),),
        (r"meshdev do -h well 'a\b' | less",),
    ),
]

AS_MARKDOWN = r"""
## meshdev do

Do one thing.

As `it` is.

.profile is read, too.

```text
meshdev do [OPTIONS] WHAT
```

| argument | |
|---|---|
| `WHAT` | What to do. |

| option | |
|---|---|
| `--how`, `-h fast\|well` | How. Default: well. |

```sh
meshdev do -h well 'a\b' | less
```
"""

AS_MAN = r"""
.SS do
Do one thing.
.PP
As it is.
.PP
\&.profile is read, too.
.PP
.B meshdev do
[OPTIONS] WHAT
.TP
\fIWHAT\fR
What to do.
.TP
\fB\-\-how\fR, \fB\-h\fR \fIfast|well\fR
How. Default: well.
.PP
For example:
.PP
.nf
.RS
meshdev do \-h well 'a\eb' | less
.RE
.fi
.SH EXIT STATUS
"""


def test_markdown() -> None:
    assert markdown.page(PIECES, []).endswith(AS_MARKDOWN)


def test_man() -> None:
    assert AS_MAN in manpage.page(PIECES, [ExitStatus(2, "The command line.")])


@pytest.mark.parametrize("name", reference.PAGES)
def test_every_command_and_option_is_in_it(name: str) -> None:
    text = reference.pages()[name].replace("\\", "")
    for command in COMMANDS:
        assert re.search(rf"^(## meshdev|\.SS) {command}$", text, re.MULTILINE), command
    assert text.count("--request-timeout") > 3
    assert "meshdev mesh deployment/b --header a=1" in text


def test_exit_codes_are_in_the_man_page() -> None:
    text = reference.pages()["man/meshdev.1"]
    assert all(rf"\fB{kind.exit_code}\fR" in text for kind in (MeshdevError, Cancelled))


@pytest.mark.skipif(os.getuid() != 0, reason="the testbed's cache is root's")
def test_what_formats_man_pages_has_nothing_to_say(tmp_path: Path) -> None:
    reference.main(tmp_path)
    mandoc = packages.unpacked_with_dependencies("mandoc") / "usr/bin/mandoc"
    done = subprocess.run(
        [mandoc, "-T", "lint", "-W", "warning", tmp_path / "man/meshdev.1"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", reference.PAGES)
def test_the_pages_are_those_of_the_code(name: str) -> None:
    assert (ROOT / "docs" / name).read_text() == reference.pages()[name], "run `make docs`, and commit what it writes"
