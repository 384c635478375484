"""Entering a namespace and becoming another program in it: the end of `exec`, `node` and `kubectl`.

Everything here happens in this process, then execvp replaces it: stdio, signals, the working folder and the exit code
are the command's own. Imports are few on purpose; tests run `exec` hundreds of times.
"""

import ctypes
import os
import pwd
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from tests.cluster.paths import CHECKOUT, NETNS, TOOLS
from tests.cluster.run import TestbedError

MANAGER_IMAGE = "localhost/meshdev-traffic-manager:dev"

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Of the machine, not of the laptop: proxies lead out of it, the session's folders are elsewhere, and without byte
# code every start of meshdev would compile itself.
_DROPPED = (
    "PYTHONDONTWRITEBYTECODE",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "SUDO_USER",
    "SUDO_UID",
    "SUDO_GID",
    "SUDO_COMMAND",
)


def laptop_environment(base: Mapping[str, str], user: str, uid: int, home: str) -> dict[str, str]:
    """The environment of a command on a laptop: the caller's, less what belongs to the machine."""
    kept = {name: value for name, value in base.items() if name not in _DROPPED and not name.lower().endswith("_proxy")}
    return {
        **kept,
        "HOME": home,
        "USER": user,
        "LOGNAME": user,
        "PATH": f"{CHECKOUT / '.venv' / 'bin'}:{_SYSTEM_PATH}:{TOOLS}",
        "XDG_RUNTIME_DIR": f"/run/user/{uid}",
        "KUBECONFIG": f"{home}/.kube/config",
        "MESHDEV_IMAGE": MANAGER_IMAGE,
    }


def laptop(pid: int, user: str, argv: list[str]) -> NoReturn:
    """Become ARGV as USER on the laptop whose holder is PID, in the caller's folder."""
    folder = Path.cwd()
    handles = [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "uts", "mnt")]
    for handle in handles:
        _setns(handle)
    try:
        os.chdir(folder)
    except OSError as error:
        raise TestbedError(f"{folder} does not exist on the laptop: call from within the checkout or /tmp") from error
    try:
        account = pwd.getpwnam(user)
    except KeyError as error:
        raise TestbedError(f"there is no user {user} on the laptop") from error
    environment = laptop_environment(os.environ, user, account.pw_uid, account.pw_dir)
    if account.pw_uid != 0:
        os.initgroups(user, account.pw_gid)
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
    become(argv, environment)


def network(namespace: str, argv: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Become ARGV in NAMESPACE, with the machine's files."""
    try:
        handle = os.open(NETNS / namespace, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise TestbedError("the testbed is not up: python -m tests.cluster up") from error
    _setns(handle)
    become(argv, environment)


def become(argv: list[str], environment: Mapping[str, str]) -> NoReturn:
    """execvp with a shell's exit codes for a command that is missing (127) or cannot be run (126)."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)  # Python ignores them, and ignored signals survive exec
    try:
        os.execvpe(argv[0], argv, dict(environment))  # noqa: S606 (becoming the caller's command is the purpose)
    except FileNotFoundError:
        sys.stderr.write(f"{argv[0]}: not found\n")
        sys.exit(127)
    except OSError as error:
        sys.stderr.write(f"{argv[0]}: {error.strerror}\n")
        sys.exit(126)


def _setns(handle: int) -> None:
    """setns(2); os.setns only exists from Python 3.12 on."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(handle, 0) != 0:
        number = ctypes.get_errno()
        raise TestbedError(f"cannot enter the namespace: {os.strerror(number)}")
