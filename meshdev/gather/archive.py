"""The archive: for its owner only, whole or not there, and never in the place of another file."""

import gzip
import io
import json
import os
import secrets
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from meshdev.config import VERSION
from meshdev.errors import LaptopError, UsageError
from meshdev.gather.masked import Masker
from meshdev.gather.parts import BugReport, Content, Part

#: The folder in it.
TOP: Final = "meshdev-gather"
_README: Final = """\
What `meshdev gather` (meshdev {version}) collected for a bug report.

LOOK THROUGH IT BEFORE YOU PUBLISH IT. Values that look like credentials are masked (***), and of the kubeconfig, of
pods and of other objects only listed fields are here: no Secrets, no environment of your apps, no bodies or headers of
requests. What stays are names and addresses: of clusters, namespaces, workloads, pods, users and machines.

{parts}
"""


def contents(parts: tuple[Part, ...], report: BugReport, masker: Masker) -> dict[str, bytes]:
    """The files by their paths, in order: masked, all of them, and the README that describes them."""
    files = {path: _rendered(report.files[path], masker) for path in sorted(report.files)}
    described = "\n".join(_described(part, report, masker) for part in parts)
    return {"README.txt": _README.format(version=VERSION, parts=described).encode(), **files}


def write(path: Path, files: Mapping[str, bytes], moment: int) -> None:
    """Make the archive, 0600. *moment*: seconds since the epoch, the time of all files in it.

    Raises UsageError where there is a file already, LaptopError where it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(_packed(files, moment))
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, path)  # unlike a rename it never replaces
        finally:
            draft.unlink()
    except FileExistsError as error:
        raise UsageError(f"{path} exists", hint="name another file with --file") from error
    except OSError as error:
        raise LaptopError(
            f"{path} cannot be written: {error.strerror}", hint="name another file with --file"
        ) from error


def _packed(files: Mapping[str, bytes], moment: int) -> bytes:
    packed = io.BytesIO()
    # Without the name and the time of the archive itself: the same files make the same bytes.
    with (
        gzip.GzipFile("", "wb", fileobj=packed, mtime=moment) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path, data in files.items():
            entry = tarfile.TarInfo(f"{TOP}/{path}")
            entry.size, entry.mtime, entry.mode = len(data), moment, 0o600
            archive.addfile(entry, io.BytesIO(data))
    return packed.getvalue()


def _rendered(content: Content, masker: Masker) -> bytes:
    if isinstance(content, str):
        return f"{masker.text(content).rstrip()}\n".encode()
    return f"{json.dumps(masker.value(content), indent=2)}\n".encode()


def _described(part: Part, report: BugReport, masker: Masker) -> str:
    missing = [f"    missing: {masker.line(each)}" for each in report.missing.get(part.name, ())]
    return "\n".join([f"{part.name}: {part.what}", *missing])
