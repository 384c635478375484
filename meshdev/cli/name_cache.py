"""What the API server answered to a completion, for some seconds: a file of the user's own in the state folder."""

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Final

from meshdev.state import Paths

#: Long enough for a few Tabs at one command line, short enough that something new is soon there.
_SECONDS: Final = 10.0
_MOST_BYTES: Final = 4 << 20
_FILE: Final = "completion.json"


def recall(paths: Paths, key: tuple[object, ...], now: float) -> Any | None:  # noqa: ANN401 -- JSON
    """The last answer, if it is the one to *key* and fresh."""
    try:
        descriptor = os.open(paths.directory / _FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as file:
            kept = json.loads(file.read(_MOST_BYTES))
        age = now - kept["at"]
        return kept["answer"] if kept["key"] == _digest(key) and 0 <= age < _SECONDS else None
    except (OSError, ValueError, KeyError, TypeError):  # none, or one of another version
        return None


def remember(paths: Paths, key: tuple[object, ...], answer: Any, now: float) -> None:  # noqa: ANN401 -- JSON
    """In place of the former. What cannot be kept is asked for again."""
    paths.prepare()
    file = paths.directory / _FILE
    written = Path(f"{file}.{os.getpid()}")
    with contextlib.suppress(OSError):
        descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
                json.dump({"at": now, "key": _digest(key), "answer": answer}, opened)
            written.replace(file)
        finally:
            written.unlink(missing_ok=True)


def _digest(key: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()
