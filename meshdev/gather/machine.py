"""What a bug report says of this machine: versions, system, network. Without root, and nothing of it is changed."""

import asyncio
import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Final

from meshdev.config import OLDEST_PROTOCOL, PROTOCOL, VERSION
from meshdev.errors import LaptopError
from meshdev.gather.parts import Files, Reasons

_COMMAND_SECONDS: Final = 5.0
_MAX_OUTPUT: Final = 1 << 18
_RELEASE: Final = ("ID", "VERSION_ID", "PRETTY_NAME")
#: A file that engines put into their containers.
_CONTAINERS: Final = ("/.dockerenv", "/run/.containerenv")
_COMMANDS: Final = {
    "network/links.txt": ("ip", "-details", "link"),
    "network/addresses.txt": ("ip", "address"),
    "network/routes.txt": ("ip", "route", "show", "table", "all"),
    "network/rules.txt": ("ip", "rule"),
    "network/resolved.txt": ("resolvectl", "--no-pager", "status"),
    "network/nft-tables.txt": ("nft", "list", "tables"),
}
_FILES: Final = ("/etc/resolv.conf", "/etc/nsswitch.conf")
#: Where sbin is not in the PATH of a user.
_PATH: Final = ":".join(filter(None, (os.environ.get("PATH"), "/usr/sbin:/sbin")))
_REQUIREMENT: Final = re.compile(r"[A-Za-z0-9._-]+")


async def versions(_reasons: Reasons) -> Files:
    """Of meshdev, Python, the packages it uses, and the system."""
    system = os.uname()
    found = {
        "meshdev": VERSION,
        "protocol": {"oldest": OLDEST_PROTOCOL, "newest": PROTOCOL},
        "python": sys.version,
        "packages": _packages(),
        "system": {"name": system.sysname, "release": system.release, "machine": system.machine},
        "distribution": _distribution(),
        "processors": os.cpu_count(),
        "root": os.geteuid() == 0,
        "container": next((name for name in _CONTAINERS if os.access(name, os.F_OK)), None),
    }
    return {"versions.json": found}


async def network(reasons: Reasons) -> Files:
    """Links, addresses, routes, rules and resolvers."""
    outputs = await asyncio.gather(*(_output(command, reasons) for command in _COMMANDS.values()))
    found = {path: output for path, output in zip(_COMMANDS, outputs, strict=True) if output}
    return found | _files(reasons)


def _files(reasons: Reasons) -> dict[str, str]:
    found = {}
    for name in _FILES:
        try:
            found[f"network{name}"] = Path(name).read_text(errors="replace")[:_MAX_OUTPUT]
        except OSError as error:
            reasons.note(LaptopError(f"{name}: {error.strerror}"))
    return found


def _distribution() -> dict[str, str | None]:
    try:
        found = platform.freedesktop_os_release()
    except OSError:
        return {}
    return {key: found.get(key) for key in _RELEASE}


def _packages() -> dict[str, str]:
    """Those that meshdev requires, where they are installed."""
    found = {}
    with suppress(metadata.PackageNotFoundError):
        for requirement in metadata.requires("meshdev") or []:
            if name := _REQUIREMENT.match(requirement):
                with suppress(metadata.PackageNotFoundError):
                    found[name[0]] = metadata.version(name[0])
    return dict(sorted(found.items()))


async def _output(command: Sequence[str], reasons: Reasons) -> str:
    """What *command* prints; empty, with the reason noted, where it does not succeed."""
    program = shutil.which(command[0], path=_PATH)
    if program is None:
        reasons.note(LaptopError(f"{command[0]} is not installed"))
        return ""
    process = await asyncio.create_subprocess_exec(
        program,
        *command[1:],
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": _PATH, "LC_ALL": "C"},
    )
    try:
        async with asyncio.timeout(_COMMAND_SECONDS):
            output, errors = await process.communicate()
    except TimeoutError:
        reasons.note(LaptopError(f"{' '.join(command)}: no answer within {_COMMAND_SECONDS:g} s"))
        return ""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        first = errors.decode(errors="replace").strip().partition("\n")[0]
        reasons.note(LaptopError(f"{' '.join(command)}: {first or f'exit code {process.returncode}'}"))
        return ""
    return output[:_MAX_OUTPUT].decode(errors="replace")
