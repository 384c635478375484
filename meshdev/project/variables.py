"""``${NAME}`` in the texts of a project file: a file in a repository serves people with different names and paths.

As in Compose files: ``${NAME}``, ``${NAME:-default}`` (also where it is empty), ``$${`` for ``${`` itself. Commands are
left alone: there it is the shell's.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from meshdev.project.document import At, Document, Problems

_REFERENCE: Final = re.compile(r"\$(?:(\$)(?=\{)|\{([^}]*)\})")
_NAMED: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:-(.*))?", re.DOTALL)


def substituted(document: Document, environ: Mapping[str, str]) -> Document:
    """*document* with the values of *environ*. Raises ProjectFileError for a variable that is not set."""
    problems = Problems(document)

    def text(written: str, at: At) -> str:
        def value(found: re.Match[str]) -> str:
            if found[1]:
                return "$"
            named = _NAMED.fullmatch(found[2])
            if named is None:
                problems.add(at, f"{found[0]} is neither ${{NAME}} nor ${{NAME:-DEFAULT}}; write $${{ for a plain ${{")
            elif named[2] is not None:
                return environ.get(named[1]) or named[3]
            elif named[1] not in environ:
                problems.add(at, f"the variable {named[1]} is not set; ${{{named[1]}:-DEFAULT}} has a default")
            return environ.get(found[2], "")

        return _REFERENCE.sub(value, written)

    def walk(value: Any, at: At) -> Any:  # noqa: ANN401 -- whatever stands there
        if isinstance(value, dict):
            return {key: walk(each, (*at, key)) for key, each in value.items() if not _is_command((*at, key))} | {
                key: each for key, each in value.items() if _is_command((*at, key))
            }
        if isinstance(value, list):
            return [walk(each, (*at, index)) for index, each in enumerate(value)]
        return text(value, at) if isinstance(value, str) else value

    result = walk(document.value, ())
    problems.raise_any()
    return replace(document, value=result)


def _is_command(at: At) -> bool:
    return len(at) == 3 and at[0] == "processes" and at[2] == "command"
