"""Content hashes: what decides whether something in the cache or in the cluster is still current."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

_IGNORED = {"__pycache__", ".mypy_cache", ".ruff_cache"}


def files_below(folder: Path) -> list[Path]:
    """Every source file below FOLDER, sorted; byte code and tool caches are not sources."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not _IGNORED.intersection(path.relative_to(folder).parts) and path.suffix != ".pyc"
    )


def tree_hash(folder: Path) -> str:
    """The hash of every source file's name, mode (executable or not) and content. A missing folder has one too."""
    digest = hashlib.sha256()
    for path in files_below(folder):
        name = str(path.relative_to(folder)).encode()
        executable = b"x" if path.stat().st_mode & 0o100 else b"-"
        content = path.read_bytes()
        digest.update(b"%d %s %s %d " % (len(name), name, executable, len(content)))
        digest.update(content)
    return digest.hexdigest()


def text_hash(parts: Iterable[str]) -> str:
    """The hash of texts in order; ("a", "b") and ("ab",) differ."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode()
        digest.update(b"%d " % len(encoded))
        digest.update(encoded)
    return digest.hexdigest()


def short(digest: str) -> str:
    """Enough of a hash for a file name."""
    return digest[:16]
