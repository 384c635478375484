"""Writes files whose names come from a cluster into a folder: never outside of it, never through a symlink of it."""

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from meshdev.environment.mounts import LocalFile
from meshdev.errors import LaptopError

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def write(directory: Path, files: Sequence[LocalFile]) -> None:
    """Write *files* below *directory*. Folders that are missing are made for their owner alone.

    A file is replaced as a whole, and has its mode before it has its name. A symlink that is in the place of a file is
    replaced, not followed; in the place of a folder it is refused. Raises LaptopError.
    """
    for each in files:
        if each.path.is_absolute() or ".." in each.path.parts:
            raise LaptopError(f"{str(each.path)!r} would lead out of {directory}")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        root = os.open(directory, _FOLDER)
    except OSError as error:
        raise LaptopError(f"{directory} cannot be written to: {error.strerror}") from error
    try:
        for each in files:
            try:
                with _folder(root, each.path.parent.parts) as folder:
                    _replace(folder, each)
            except OSError as error:
                raise LaptopError(
                    f"{directory / each.path} cannot be written: {error.strerror}",
                    hint="symlinks in that folder are not followed; use another folder",
                ) from error
    finally:
        os.close(root)


@contextmanager
def _folder(root: int, parts: Sequence[str]) -> Iterator[int]:
    """The folder below *root*, made where it is missing."""
    with contextlib.ExitStack() as opened:
        folder = root
        for part in parts:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=folder)
            folder = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            opened.callback(os.close, folder)
        yield folder


def _replace(folder: int, file: LocalFile) -> None:
    """*folder* has the file, whole and with its mode, or it has what it had."""
    unfinished = f".meshdev-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(unfinished, flags, 0o600, dir_fd=folder), "wb") as opened:
            opened.write(file.content)
            os.fchmod(opened.fileno(), file.mode)
        os.rename(unfinished, file.path.name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unfinished, dir_fd=folder)
        raise
