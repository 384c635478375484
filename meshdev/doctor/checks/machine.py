"""This machine: installation, state folder, TUN, sudo."""

import asyncio
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from meshdev.doctor.checks.facts import DoctorFacts
from meshdev.doctor.runner import DoctorCheck
from meshdev.doctor.verdicts import machine
from meshdev.doctor.verdicts.finding import Finding, ok
from meshdev.doctor.verdicts.machine import FolderFacts, SudoFacts, TunFacts
from meshdev.helper.trust import callers, check_installation
from meshdev.state import MAX_SOCKET_PATH, Paths

GROUP: Final = "This machine"
_SUDO_SECONDS: Final = 3.0


def checks(facts: DoctorFacts) -> tuple[DoctorCheck, ...]:
    """Those that need nothing but this machine."""
    question = facts.question

    async def installation() -> Finding:
        await asyncio.to_thread(check_installation, callers(question.uid))
        return ok(f"{Path(__file__).parents[2]} can be changed by you and root alone")

    async def state_folder() -> Finding:
        return machine.state_folder(await asyncio.to_thread(_folder, question.paths), question.uid)

    async def tun() -> Finding:
        return machine.tun(await asyncio.to_thread(_open_tun))

    async def sudo() -> Finding:
        return machine.sudo(await asyncio.to_thread(_ask_sudo, question.helper, question.terminal))

    async def namespaces() -> Finding:
        return machine.namespaces(question.isolation)

    return (
        DoctorCheck("installation", GROUP, installation),
        DoctorCheck("state-folder", GROUP, state_folder),
        DoctorCheck("tun", GROUP, tun),
        DoctorCheck("sudo", GROUP, sudo),
        DoctorCheck("user-namespaces", GROUP, namespaces),
    )


def _folder(paths: Paths) -> FolderFacts:
    path = paths.directory
    exists = os.path.lexists(path)
    there = path
    while not os.path.lexists(there):  # nor where it may not be looked for
        there = there.parent
    status, space = there.lstat(), os.statvfs(there)
    return FolderFacts(
        path=str(path),
        exists=exists,
        mode=status.st_mode,
        uid=status.st_uid,
        writable=os.access(there, os.W_OK | os.X_OK),
        free=space.f_bavail * space.f_frsize,
        socket_too_long=len(os.fsencode(paths.socket)) > MAX_SOCKET_PATH,
    )


def _open_tun(node: str = machine.TUN_NODE) -> TunFacts:
    root = os.geteuid() == 0
    try:
        os.close(os.open(node, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError as error:
        return TunFacts(error.errno or -1, root)
    return TunFacts(0, root)


def _ask_sudo(helper: Sequence[str], terminal: bool) -> SudoFacts:
    """Whether sudo would run the helper: ``-l`` runs nothing, ``-n`` asks nothing."""
    if os.geteuid() == 0:
        return SudoFacts(root=True)
    try:
        done = subprocess.run(
            ["sudo", "-n", "-l", "--", *helper],
            env={**os.environ, "LC_ALL": "C"},  # its messages are read
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SUDO_SECONDS,
            check=False,
        )
    except (FileNotFoundError, PermissionError):
        return SudoFacts(root=False)
    output = " ".join(done.stderr.split()).removeprefix("sudo: ")
    return SudoFacts(False, done.returncode, output, terminal)
