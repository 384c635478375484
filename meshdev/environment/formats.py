"""Variables as text for other programs. What a format cannot express is left out, and named."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from meshdev.environment.local import is_of_the_machine

#: Names that any shell can export (POSIX, 3.216).
_SHELL_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Names of an unquoted key, in python-dotenv as in node's dotenv and Compose.
_DOTENV_NAME: Final = re.compile(r"[A-Za-z0-9_.-]+")
#: Values that mean themselves in every dialect of dotenv.
_DOTENV_BARE: Final = re.compile(r"[A-Za-z0-9_./:@%+,-]*")
#: Values that bash does not let anybody set: with one of them it stops reading in POSIX mode.
_READ_ONLY: Final = frozenset({"BASHOPTS", "BASH_VERSINFO", "EUID", "PPID", "SHELLOPTS", "UID"})
#: Integers of bash and zsh: what is assigned to one is evaluated as arithmetic, with command substitutions in it.
_INTEGERS: Final = frozenset(
    {
        *("COLUMNS", "EGID", "ERRNO", "FUNCNEST", "GID", "HISTCMD", "HISTSIZE", "KEYTIMEOUT", "LINENO", "LINES"),
        *("LISTMAX", "MAILCHECK", "OPTIND", "RANDOM", "SAVEHIST", "SECONDS", "SHLVL", "SRANDOM", "TMOUT"),
        *("TRY_BLOCK_ERROR", "TRY_BLOCK_INTERRUPT", "TTYIDLE", "ZSH_SUBSHELL"),
    }
)
_INTEGER: Final = re.compile(r"[0-9]{1,10}")
#: Prompts of bash and zsh, in which commands are run whenever they are shown; IFS, by which scripts divide words.
_PROMPTS: Final = re.compile(r"PS[0-4]|R?PS[12]|[RS]?PROMPT[234]?|prompt|IFS")
#: bufio.MaxScanTokenSize, with which docker reads lines.
_DOCKER_LINE: Final = 64 * 1024 - 1


@dataclass(frozen=True)
class Rendered:
    """The text, and a sentence for each variable that is not in it. Surrogates stand for bytes (PEP 383)."""

    text: str = field(repr=False)
    left_out: tuple[str, ...] = ()


def shell(values: Mapping[str, str]) -> Rendered:
    """For ``eval`` or ``.`` in a POSIX shell: ``export NAME='value'``."""
    return _lines(values, _shell_refuses, lambda name, value: f"export {name}={_single_quoted(value)}")


def dotenv(values: Mapping[str, str]) -> Rendered:
    """For python-dotenv (``interpolate=False``), and for other dialects wherever they agree.

    They agree on bare words, and on single quotes around what has neither a quote nor an escape in it. What does is in
    double quotes with backslashes, as python-dotenv reads them.
    """
    return _lines(values, _dotenv_refuses, lambda name, value: f"{name}={_dotenv_value(value)}")


def docker(values: Mapping[str, str]) -> Rendered:
    """For ``docker run --env-file`` (github.com/docker/cli/pkg/kvfile): ``NAME=value``, nothing is quoted."""
    return _lines(values, _docker_refuses, lambda name, value: f"{name}={value}")


def as_json(values: Mapping[str, str]) -> Rendered:
    """An object; names are sorted."""
    kept = {name: value for name, value in values.items() if _is_text(name + value)}
    left_out = tuple(f"{name}: its value is not UTF-8, which JSON is" for name in values if name not in kept)
    return Rendered(json.dumps(kept, indent=2, sort_keys=True) + "\n", left_out)


FORMATS: Final[Mapping[str, Callable[[Mapping[str, str]], Rendered]]] = {
    "dotenv": dotenv,
    "json": as_json,
    "shell": shell,
    "docker": docker,
}


def _lines(
    values: Mapping[str, str], refuses: Callable[[str, str], str | None], line: Callable[[str, str], str]
) -> Rendered:
    reasons = {name: refuses(name, value) for name, value in values.items()}
    kept = "".join(f"{line(name, value)}\n" for name, value in values.items() if reasons[name] is None)
    return Rendered(kept, tuple(_sentences(reasons)))


def _sentences(reasons: Mapping[str, str | None]) -> Iterator[str]:
    yield from (f"{name}: {reason}" for name, reason in reasons.items() if reason is not None)


def _shell_refuses(name: str, value: str) -> str | None:
    if name in _READ_ONLY:
        return "bash has a variable of this name that cannot be set"
    if is_of_the_machine(name):
        return "it belongs to this machine's shell"
    if _PROMPTS.fullmatch(name) or (name in _INTEGERS and not _INTEGER.fullmatch(value)):
        return "a shell would evaluate its value"
    return None if _SHELL_NAME.fullmatch(name) else "no shell has variables of such names"


def _dotenv_refuses(name: str, value: str) -> str | None:
    if not _DOTENV_NAME.fullmatch(name):
        return "a dotenv file has no such names"
    return None if _is_text(value) else "its value is not UTF-8, which a dotenv file is"


def _docker_refuses(name: str, value: str) -> str | None:
    if name != "".join(name.split()) or name.startswith(("#", "\ufeff")):
        return "docker reads no such names"
    if "\n" in value or value.endswith("\r"):
        return "its value has a newline, and each line of the file is a variable"
    if not _is_text(value):
        return "its value is not UTF-8, which docker wants"
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return "its value is in quotes, which some versions of docker take away"
    if len(f"{name}={value}".encode()) > _DOCKER_LINE:
        return "its value is longer than docker reads"
    return None


def _single_quoted(value: str) -> str:
    """POSIX, 2.2.2: nothing has a meaning in single quotes but the quote itself."""
    return "'" + value.replace("'", "'\\''") + "'"


def _dotenv_value(value: str) -> str:
    if _DOTENV_BARE.fullmatch(value):
        return value
    if not {"'", "\r"} & set(value) and "\\\\" not in value and not value.endswith("\\"):
        return f"'{value}'"
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


def _is_text(value: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in value)
