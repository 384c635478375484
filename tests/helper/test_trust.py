"""Who else could change the code that runs as root: modes, owners, groups, links and lists, as folders have them."""

import errno
import grp
import os
import pwd
import struct
from pathlib import Path

import pytest

from meshdev.errors import LaptopError
from meshdev.helper import trust

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other accounts")

_JANE = 54321
_NOBODY = frozenset[int]()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder that Python searches: above/site."""
    made = tmp_path / "above" / "site"
    made.mkdir(parents=True, mode=0o755)
    (made / "module.py").write_text("")
    return made


def _refusal(folder: Path, owners: frozenset[int] = _NOBODY) -> str | None:
    try:
        trust.check_paths([folder], [folder / "module.py"], owners)
    except LaptopError as error:
        return error.message if "where only root or you can write" in str(error.hint) else "another hint"
    return None


def test_this_checkout_is_accepted() -> None:
    trust.check_installation(_NOBODY)
    trust.check_loaded(_NOBODY)


def test_who_called_sudo_counts_for_root_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUDO_UID", str(_JANE))
    assert trust.callers(0) == {0, _JANE}
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert trust.callers(7) == {7}


def test_roots_own(folder: Path) -> None:
    assert _refusal(folder) is None


def test_the_callers_own(folder: Path) -> None:
    for path in (folder.parent, folder, folder / "module.py"):
        os.chown(path, _JANE, _JANE)
    assert f"{folder.parent}: it belongs to uid {_JANE}" in str(_refusal(folder))
    assert _refusal(folder, frozenset({_JANE})) is None


@pytest.mark.parametrize("name", [".", "module.py", ".."])
def test_everybody_may_write(folder: Path, name: str) -> None:
    path = folder if name == "." else folder.parent if name == ".." else folder / name
    path.chmod(0o757)
    assert f"{path}: everyone can write to it" in str(_refusal(folder))


def test_a_sticky_folder_is_safe_above_and_not_to_be_searched(folder: Path) -> None:
    folder.parent.chmod(0o1777)
    assert _refusal(folder) is None
    folder.chmod(0o1777)
    (folder.parent / "link").symlink_to(folder)
    for path in (folder, folder.parent / "link"):
        assert f"{folder}: everyone can write to it" in str(_refusal(path))


def test_a_file_of_another_in_a_sticky_folder(folder: Path) -> None:
    folder.parent.chmod(0o1777)
    os.chown(folder, _JANE, 0)
    assert "it belongs to" in str(_refusal(folder))


def test_a_link_through_a_folder_of_everybodys(folder: Path, tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    (loose / "site").symlink_to(folder)
    (tmp_path / "first").symlink_to("loose/../loose/site")
    assert f"{loose}: everyone" in str(_refusal(tmp_path / "first"))
    loose.chmod(0o755)
    assert _refusal(tmp_path / "first") is None
    folder.parent.chmod(0o777)
    assert f"{folder.parent}: everyone" in str(_refusal(tmp_path / "first"))


def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert _refusal_of_circle(tmp_path / "a") == f"{tmp_path / 'a'} has too many symbolic links"


def _refusal_of_circle(path: Path) -> str:
    with pytest.raises(LaptopError) as refused:
        trust.check_paths([], [path], _NOBODY)
    return refused.value.message


def _user(name: str, uid: int, gid: int) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, gid, "", "/", "/bin/sh"))


def test_a_group_of_the_callers_own_may_write(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """umask 002 with a group for each user: how several distributions make accounts."""
    users = [_user("root", 0, 0), _user("jane", _JANE, _JANE)]
    members: list[str] = ["jane"]
    monkeypatch.setattr(pwd, "getpwall", lambda: users)
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group(("jane", "x", gid, members)))
    os.chown(folder, _JANE, _JANE)
    folder.chmod(0o775)
    assert _refusal(folder, frozenset({_JANE})) is None
    users.append(_user("joe", 5, _JANE))
    assert "joe (group jane) can write to it" in str(_refusal(folder, frozenset({_JANE})))
    users.pop()
    members.append("from-ldap")
    assert "from-ldap (group jane) can write to it" in str(_refusal(folder, frozenset({_JANE})))


def test_a_group_without_a_name(folder: Path) -> None:
    os.chown(folder, 0, _JANE)
    folder.chmod(0o775)
    assert f"the group {_JANE} can write to it" in str(_refusal(folder))
    os.chown(folder, 0, 0)
    assert _refusal(folder) is None


def test_an_access_control_list(folder: Path) -> None:
    undefined = 0xFFFFFFFF
    entries = [(1, 7, undefined), (2, 7, _JANE), (4, 5, undefined), (16, 7, undefined), (32, 5, undefined)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(folder, "system.posix_acl_access", value)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            pytest.skip("this file system has no access control lists")
        raise
    assert "somebody on its access control list can write to it" in str(_refusal(folder))


@pytest.mark.parametrize(("number", "refused"), [(errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_file_system_without_access_control_lists(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, refused: bool
) -> None:
    def listxattr(path: Path) -> list[str]:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "listxattr", listxattr)
    (folder / "module.py").chmod(0o664)
    os.chown(folder / "module.py", 0, 0)
    if refused:
        with pytest.raises(LaptopError, match="cannot be checked"):
            trust.check_paths([folder], [folder / "module.py"], _NOBODY)
    else:
        trust.check_paths([folder], [folder / "module.py"], _NOBODY)
