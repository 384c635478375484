"""The SSH client: ``python -m meshdev.ssh --control FD -- TARGET``, started by meshdev/ssh/jump.py.

It logs in, with questions on the terminal, leaves that terminal, and dials for whoever holds the other end of the
descriptor. The keys are in the memory of this process alone.
"""

import argparse
import getpass
import glob
import logging
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import paramiko
from paramiko.ssh_exception import SSHException

from meshdev.errors import Cancelled, MeshdevError, SshError
from meshdev.ssh import settings, terminal
from meshdev.ssh.bastion import Bastion
from meshdev.ssh.settings import SshHop
from meshdev.ssh.streams import serve
from meshdev.ssh.target import SshTarget
from meshdev.wire.session_api import Failed
from meshdev.wire.ssh import BastionReady, encode_report

_CONFIG: Final = Path("~/.ssh/config")
_SYSTEM_CONFIG: Final = Path("/etc/ssh/ssh_config")


def hops(text: str) -> tuple[SshHop, ...]:
    """The hops to a target, by the user's ssh_config and the machine's. Raises SshError."""
    try:
        config = paramiko.SSHConfig.from_text(f"{_inlined(_CONFIG)}\nMatch all\n{_inlined(_SYSTEM_CONFIG)}")
        return settings.hops(SshTarget.parse(text), partial(_lookup, config), getpass.getuser())
    except (SSHException, ImportError, OSError, KeyError, ValueError) as error:
        # ImportError: paramiko runs the commands of `Match exec` by a package of its own (invoke).
        raise SshError(f"~/.ssh/config cannot be used: {error}") from error


def _inlined(path: Path) -> str:
    file = path.expanduser()
    return "\n".join(settings.inlined(each, partial(_files, file.parent)) for each in _files(file.parent, file.name))


def _lookup(config: paramiko.SSHConfig, host: str) -> dict[str, Any]:
    return dict(config.lookup(host))


def _files(base: Path, pattern: str) -> Iterator[str]:
    """The texts of what matches *pattern*, which is relative to *base*, in the order of their names.

    A file that others may write could name their program as a ProxyCommand: refused, as by OpenSSH.
    """
    for path in sorted(glob.glob(str(base / Path(pattern).expanduser()))):  # noqa: PTH207 -- the pattern is absolute
        try:
            found = Path(path).stat()
            text = Path(path).read_text(errors="surrogateescape")
        except OSError as error:
            raise SshError(f"{path} cannot be read: {error.strerror}") from error
        if found.st_uid not in {0, os.getuid()} or found.st_mode & 0o022:
            raise SshError(f"{path} may be written by others", hint=f"chmod go-w {path}")
        yield text


def main() -> NoReturn:
    """Log in, report, serve."""
    parser = argparse.ArgumentParser(prog="meshdev-ssh", description=__doc__)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--log", action="store_true")
    parser.add_argument("target")
    arguments = parser.parse_args()
    control = socket.socket(fileno=arguments.control)
    os.set_inheritable(arguments.control, False)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # keys are in memory
    level = logging.WARNING if arguments.log else logging.CRITICAL
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # what it raises is reported
    os._exit(_run(arguments.target, control))  # no thread is waited for


def _run(target: str, control: socket.socket) -> int:
    began, decided = time.monotonic(), threading.Event()
    threading.Thread(target=_interrupt, args=(control, decided), daemon=True).start()
    try:
        with terminal.kept():
            bastion = Bastion(hops(target))
            bastion.connect()
        decided.set()
    except MeshdevError as error:
        decided.set()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with suppress(OSError):  # the command is gone
            control.send(encode_report(Failed.of(error)))
        return error.exit_code
    except KeyboardInterrupt:
        return Cancelled.exit_code
    os.setsid()  # Ctrl-C and the terminal's end are the command's
    with suppress(OSError):
        control.send(encode_report(BastionReady(time.monotonic() - began)))
        serve(control, bastion)
    return 0


def _interrupt(control: socket.socket, decided: threading.Event) -> None:
    """End the login, which may be waiting for an answer, when nobody waits for it any more."""
    hung_up = select.poll()
    hung_up.register(control, 0)
    hung_up.poll()
    if not decided.is_set():
        os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    main()
