"""Check that only root and the caller can change the code that is about to run as root.

The CLI checks before it starts the helper; afterwards would be too late. The helper checks again what it has actually
loaded, in case it was started by other means.
"""

import errno
import grp
import os
import pwd
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from meshdev.errors import LaptopError

#: As many as the kernel follows: path_resolution(7).
_MAX_LINKS: Final = 40
_ACL: Final = "system.posix_acl_access"


def callers(uid: int) -> frozenset[int]:
    """*uid*, and the user who called sudo: only root and sudo itself can set SUDO_UID for a process of root."""
    through_sudo = os.environ.get("SUDO_UID", "")
    return frozenset({uid, *([int(through_sudo)] if os.geteuid() == 0 and through_sudo.isdecimal() else ())})


def check_installation(owners: frozenset[int]) -> None:
    """Check what the helper will be loaded from: interpreter, its library, this package. Raises LaptopError."""
    package = Path(__file__).parents[1]
    check_paths((package.parent, Path(os.__file__).parent, *_tree(package)), (Path(sys.executable),), owners)


def check_loaded(owners: frozenset[int]) -> None:
    """Check what this process was loaded from, and where it would look for more. Raises LaptopError."""
    files = [Path(file) for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]
    folders = {*(Path(folder) for folder in sys.path if Path(folder).is_dir()), *(file.parent for file in files)}
    check_paths(folders, (*files, Path(sys.executable)), owners)


def check_paths(folders: Iterable[Path], files: Iterable[Path], owners: frozenset[int]) -> None:
    """Check that only *owners* and root may change *files*, add to *folders*, or replace anything on their paths.

    Raises LaptopError for the first violation.
    """
    checked: set[tuple[Path, bool]] = set()
    for path, searched in (*((folder, True) for folder in folders), *((file, False) for file in files)):
        end = Path(os.path.realpath(path))
        for step in _steps(path.absolute()):
            key = step, searched and step == end
            if key not in checked:
                checked.add(key)
                _check_one(step, owners, searched=key[1])


def _tree(folder: Path) -> Iterator[Path]:
    for path, _, _ in os.walk(folder):
        yield Path(path)


def _steps(path: Path) -> Iterator[Path]:
    """Every folder, link and file on *path*, links followed: whoever can replace one of them controls it."""
    rest, current, links = list(path.parts[1:]), Path(path.root), 0
    yield current
    while rest:
        part = rest.pop(0)
        if part in {"", "."}:
            continue
        if part == "..":
            current = current.parent
            continue
        step = current / part
        yield step
        if step.is_symlink():
            links += 1
            if links > _MAX_LINKS:
                raise LaptopError(f"{path} has too many symbolic links")
            target = step.readlink()
            rest = [*target.parts, *rest]
            if target.is_absolute():
                current, rest = Path(target.root), rest[1:]
        else:
            current = step


def _check_one(path: Path, owners: frozenset[int], *, searched: bool) -> None:
    """*searched*: Python looks for modules there, so a new file is as bad as a changed one."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return  # a missing folder of sys.path, in one that was checked
    except OSError as error:
        raise LaptopError(f"{path} cannot be checked: {error.strerror}") from error
    if found.st_uid and found.st_uid not in owners:
        raise _unsafe(path, f"it belongs to {_user(found.st_uid)}")
    if stat.S_ISLNK(found.st_mode):
        return
    # In a sticky folder (/tmp) only a file's owner can replace it, who is checked next.
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX and not searched:
        return
    if found.st_mode & stat.S_IWOTH:
        raise _unsafe(path, "everyone can write to it")
    if found.st_mode & stat.S_IWGRP and (who := _group_beyond(path, found.st_gid, owners)):
        raise _unsafe(path, f"{who} can write to it")


def _group_beyond(path: Path, gid: int, owners: frozenset[int]) -> str | None:
    """A user who can, but should not, write through the group. A group of the caller's own is common (umask 002)."""
    if _has_acl(path):  # then the group's bits are the list's mask
        return "somebody on its access control list"
    if gid == 0:
        return None
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return f"the group {gid}"
    users = pwd.getpwall()
    beyond = [
        user.pw_name
        for user in users
        if (user.pw_gid == gid or user.pw_name in group.gr_mem) and user.pw_uid not in {0, *owners}
    ]
    beyond += [name for name in group.gr_mem if name not in {user.pw_name for user in users}]
    return f"{beyond[0]} (group {group.gr_name})" if beyond else None


def _has_acl(path: Path) -> bool:
    try:
        return _ACL in os.listxattr(path)
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # a file system without such lists (some of FUSE and NFS)
            return False
        raise LaptopError(f"{path} cannot be checked: {error.strerror}") from error


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _unsafe(path: Path, why: str) -> LaptopError:
    return LaptopError(
        f"the helper does not run as root from {path}: {why}",
        hint="install meshdev where only root or you can write, for example: sudo python3 -m venv /opt/meshdev "
        f"(or remove the permission: chmod go-w {path})",
    )
