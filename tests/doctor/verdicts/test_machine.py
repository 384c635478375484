"""This machine."""

import errno
import stat
from dataclasses import replace

import pytest

from meshdev.doctor.verdicts import machine
from meshdev.doctor.verdicts.machine import FolderFacts, SudoFacts, TunFacts
from meshdev.isolation.reasons import Forbidden, Works

FOLDER = FolderFacts("/run/user/1000/meshdev", True, stat.S_IFDIR | 0o700, 1000, True, 1 << 30)


@pytest.mark.parametrize(
    ("number", "root", "state", "words"),
    [
        (0, False, "ok", "can be opened"),
        (errno.EACCES, False, "warning", "sudo chmod 666"),
        (errno.EPERM, True, "failed", "--device /dev/net/tun"),
        (errno.ENOENT, False, "failed", "sudo modprobe tun"),
        (errno.ENXIO, True, "failed", "sudo modprobe tun"),
        (errno.ENODEV, True, "failed", "sudo modprobe tun"),
        (errno.EMFILE, True, "failed", "EMFILE"),
    ],
)
def test_the_tun_device(number: int, root: bool, state: str, words: str) -> None:
    found = machine.tun(TunFacts(number, root))
    assert found.state == state
    assert words in f"{found.detail} {found.hint}"


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (SudoFacts(root=True), "ok", "you are root"),
        (SudoFacts(False), "warning", "not installed"),
        (SudoFacts(False, 0), "ok", "no password"),
        (SudoFacts(False, 1, "a password is required", terminal=True), "ok", "asks for your password"),
        (SudoFacts(False, 1, "a password is required"), "warning", "no terminal"),
        (SudoFacts(False, 1, "interactive authentication is required"), "warning", "no terminal"),
        (SudoFacts(False, 1, "user dev is not allowed to execute it"), "warning", "not allowed"),
        (SudoFacts(False, 1), "warning", "exit code 1"),
    ],
)
def test_sudo(facts: SudoFacts, state: str, words: str) -> None:
    found = machine.sudo(facts)
    assert found.state == state
    assert words in found.detail
    assert (found.hint is None) == (state == "ok")


@pytest.mark.parametrize(
    ("change", "state", "words"),
    [
        ({}, "ok", "/run/user/1000/meshdev"),
        ({"mode": stat.S_IFREG | 0o600}, "failed", "not a folder of yours"),
        ({"uid": 0}, "failed", "not a folder of yours"),
        ({"mode": stat.S_IFDIR | 0o770}, "failed", "chmod 700"),
        ({"exists": False, "uid": 0, "mode": stat.S_IFDIR | 0o1777}, "ok", "meshdev"),
        ({"writable": False}, "failed", "nothing can be written"),
        ({"socket_too_long": True}, "failed", "shorter"),
        ({"free": 3 << 20}, "failed", "3 MB left"),
    ],
)
def test_the_state_folder(change: dict[str, int], state: str, words: str) -> None:
    found = machine.state_folder(replace(FOLDER, **change), 1000)  # type: ignore[arg-type]  # fields of several types
    assert found.state == state
    assert words in f"{found.detail} {found.hint}"


def test_namespaces_of_ones_own() -> None:
    assert machine.namespaces(Works()).state == "ok"
    found = machine.namespaces(Forbidden("user.max_user_namespaces is 0", "sudo sysctl"))
    assert (found.state, found.detail, found.hint) == ("warning", "user.max_user_namespaces is 0", "sudo sysctl")
