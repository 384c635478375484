"""The file of a project: where it is, what it says, and where what runs it is found."""

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Final

import typer

from meshdev.errors import ProjectFileError
from meshdev.project import building, checking, reading, schema, variables
from meshdev.project.document import Document, Problems
from meshdev.project.model import Project
from meshdev.state import Paths

FileOption = Annotated[
    str, typer.Option("--file", "-f", metavar="FILE", help="Project file; - for standard input.", show_default=True)
]
DEFAULT: Final = "meshdev.yaml"
_STDIN: Final = "-"


@dataclass(frozen=True)
class ProjectFile:
    """A file as typed, and the absolute path that the project is known by: of standard input, one of this folder."""

    typed: str
    path: Path

    @classmethod
    def of(cls, typed: str) -> "ProjectFile":
        """The file that was typed; it need not exist."""
        return cls(typed, Path(typed).absolute() if typed == _STDIN else Path(typed).resolve())

    @property
    def name(self) -> str:
        """For messages."""
        return "standard input" if self.typed == _STDIN else self.typed

    def paths(self, ours: Paths) -> Paths:
        """Lock, socket and log of whatever runs this project for this user."""
        return Paths(ours.directory / f"up-{hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]}")

    def load(self, environ: Mapping[str, str]) -> Project:
        """What it describes. Raises ProjectFileError, which names line and column."""
        document = variables.substituted(reading.read(self._bytes(), self.name), environ)
        checking.check(document, schema.load())
        project = building.build(document, PurePosixPath(self.path.parent))
        _check_programs(project, document, environ)
        return project

    def _bytes(self) -> bytes:
        try:
            if self.typed == _STDIN:
                return sys.stdin.buffer.read(reading.MAX_BYTES + 1)
            with self.path.open("rb") as file:
                return file.read(reading.MAX_BYTES + 1)
        except OSError as error:
            raise ProjectFileError(
                f"{self.name} cannot be read: {error.strerror}", hint="name another file with -f FILE."
            ) from error


def _check_programs(project: Project, document: Document, environ: Mapping[str, str]) -> None:
    """Before anything is touched. What a process depends on may make its folder and its program."""
    problems = Problems(document)
    for process in project.processes:
        at = ("processes", process.name)
        if process.depends_on:
            continue
        if not Path(process.directory).is_dir():
            problems.add((*at, "workingDir"), f"there is no folder {process.directory}")
        elif not shutil.which(_program(process.command[0], process.directory), path=_path(process.env, environ)):
            problems.add((*at, "command"), f"{process.command[0]} is no program that can be run")
    problems.raise_any()


def _program(word: str, directory: str) -> str:
    """As execvp(3) finds it in that folder: a word with a slash is a path."""
    return str(Path(directory) / word) if os.sep in word else word


def _path(env: tuple[tuple[str, str], ...], environ: Mapping[str, str]) -> str | None:
    return dict(env).get("PATH", environ.get("PATH"))
