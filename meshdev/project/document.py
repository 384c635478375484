"""A project file as values with their places, and what is wrong at such a place."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from meshdev.errors import MeshdevError, ProjectFileError

#: Keys and indices from the top.
At = tuple[str | int, ...]

#: Problems that are shown; the first ones are mostly the cause of the others.
_MAX_PROBLEMS: Final = 20


class Position(NamedTuple):
    """Line and column, both counted from 1, as editors do."""

    line: int
    column: int


@dataclass(frozen=True)
class Document:
    """One file. Its value is what JSON can express; each part has a place, each key of a mapping another one."""

    name: str
    value: Any
    values: Mapping[At, Position]
    keys: Mapping[At, Position]
    texts: Mapping[At, str] = field(repr=False)
    """Scalars as they are written: 8080 and 1.10 where a text is meant."""

    def get(self, at: At) -> Any:  # noqa: ANN401 -- whatever stands there
        """The value there; None where there is none."""
        value = self.value
        for step in at:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def text(self, at: At) -> str:
        """The scalar there as a text."""
        value = self.get(at)
        return value if isinstance(value, str) else self.texts[at]

    def place(self, at: At, *, key: bool = False) -> Position:
        """Where it stands; of what is missing, where it would belong."""
        if key and at in self.keys:
            return self.keys[at]
        while at and at not in self.values:
            at = at[:-1]
        return self.values.get(at, Position(1, 1))


class Problem(NamedTuple):
    """What is wrong, and where."""

    place: Position
    at: At
    message: str


class Problems:
    """Collects what is wrong with a document, so that all of it can be mended at once."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._found: list[Problem] = []

    def add(self, at: At, message: str, *, key: bool = False) -> None:
        """One more, at the value there or at its *key*."""
        self._found.append(Problem(self._document.place(at, key=key), at, message))

    def check(self, at: At, check: Callable[..., object], *values: object) -> None:
        """Take what *check* of the *values* raises for a problem there."""
        try:
            check(*values)
        except MeshdevError as error:
            self.add(at, f"{error.message} ({error.hint})" if error.hint else error.message)

    def raise_any(self) -> None:
        """Raise ProjectFileError with all of them in the order of the file."""
        if self._found:
            raise failure(self._document.name, sorted(self._found, key=lambda problem: problem.place))


def failure(name: str, problems: Iterable[Problem]) -> ProjectFileError:
    """The error that names them: a line each, ``FILE:LINE:COLUMN: PATH: MESSAGE``."""
    found = list(problems)
    lines = [
        ": ".join(part for part in (f"{name}:{place.line}:{place.column}", path_text(at), message) if part)
        for place, at, message in found[:_MAX_PROBLEMS]
    ]
    if len(found) > _MAX_PROBLEMS:
        lines.append(f"and {len(found) - _MAX_PROBLEMS} more")
    return ProjectFileError("\n".join(lines), hint="`meshdev schema` prints what may be in the file.")


def path_text(at: At) -> str:
    """``intercepts.b.headers[0]``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at).removeprefix(".")
