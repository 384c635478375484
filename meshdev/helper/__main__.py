"""``python -I -m meshdev.helper``: the session's socket on stdin. With ``--restore UID``: undo what a killed one left.

Started by sudo or by root itself. It detaches from sudo by forking twice, so that sudo exits with code 0 once the
helper is starting; everything after that is reported on the socket.

With ``--isolated FOLDER`` it needs no root: it serves in namespaces that it makes, with FOLDER/resolv.conf as theirs.
"""

import contextlib
import ctypes
import json
import os
import socket
import stat
import struct
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final, NoReturn

from meshdev.errors import LaptopError, MeshdevError, SudoError, UsageError
from meshdev.helper import privileges, trust

_PATH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
_PR_SET_DUMPABLE: Final = 4  # include/uapi/linux/prctl.h
_MAX_UID: Final = (1 << 32) - 2


def main(arguments: list[str]) -> int:
    """Serve or restore; the exit code."""
    try:
        if arguments[:1] == ["--isolated"] and len(arguments) == 2:
            _serve_isolated(Path(arguments[1]))
        if os.geteuid() != 0:
            raise SudoError("the helper needs root", hint="meshdev connect starts it with sudo")
        through_sudo = trust.callers(0)
        _harden()
        match arguments:
            case []:
                _serve(through_sudo)
            case ["--restore", uid] if uid.isascii() and uid.isdecimal() and int(uid) <= _MAX_UID:
                return _restore(int(uid), through_sudo)
            case _:
                raise UsageError("usage: python -I -m meshdev.helper [--restore UID | --isolated FOLDER]")
    except MeshdevError as error:
        print(json.dumps({"error": error.as_json()}), file=sys.stderr)
        return error.exit_code


def _harden() -> None:
    """Discard the caller's environment, directory, umask and descriptors."""
    _discard()
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _discard() -> None:
    os.environ.clear()
    os.environ["PATH"] = _PATH
    os.umask(0o077)
    os.chdir("/")
    os.closerange(3, 1 << 16)


def _session_socket() -> socket.socket:
    if not stat.S_ISSOCK(os.fstat(0).st_mode):
        raise LaptopError(
            "the helper's stdin is not the session's socket",
            hint="sudo records input here (log_input): exempt this command, or run meshdev as root",
        )
    sock = socket.socket(fileno=os.dup(0))
    if sock.family != socket.AF_UNIX:
        raise LaptopError("the helper's stdin is not a local socket")
    return sock


def _serve_isolated(folder: Path) -> NoReturn:
    """Stays dumpable (prctl(2)): the user's own programs enter its namespaces by /proc, and nobody else may."""
    from meshdev.helper.journal import RESOLV_CONF  # noqa: PLC0415 -- not before root is hardened in the other ways
    from meshdev.helper.laptop import OwnNetwork  # noqa: PLC0415 -- as above
    from meshdev.helper.server import refuse, serve_isolated  # noqa: PLC0415 -- as above
    from meshdev.isolation.own import enter_own_network  # noqa: PLC0415 -- as above
    from meshdev.isolation.socket_server import fork_server  # noqa: PLC0415 -- as above

    _discard()
    sock = _session_socket()
    resolv_conf = folder / RESOLV_CONF.name
    try:
        with contextlib.suppress(FileNotFoundError):
            resolv_conf.write_bytes(RESOLV_CONF.read_bytes())
        resolv_conf.touch()
        enter_own_network(resolv_conf)
        _leave_caller()
        network = fork_server()
        privileges.drop()
    except MeshdevError as error:
        sys.exit(refuse(sock, error))
    except OSError as error:
        sys.exit(refuse(sock, LaptopError(f"the helper cannot make a network of its own: {error}")))
    code = serve_isolated(sock, os.getuid(), OwnNetwork(network, resolv_conf))
    sys.stderr.flush()
    os._exit(code)  # as below


def _serve(through_sudo: frozenset[int]) -> NoReturn:
    sock = _session_socket()
    # The kernel knows who made the socketpair; an environment variable of sudo's would be a guess.
    _, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    trust.check_loaded(through_sudo | {uid})
    _leave_caller()
    # After the fork: sudo exits sooner. Before the next one: both processes need the code.
    # All of it before the drop: without CAP_DAC_OVERRIDE root cannot read code in a home directory of mode 0700.
    import pytun  # noqa: F401, PLC0415 -- see above

    from meshdev.helper.keeper import fork_helper  # noqa: PLC0415 -- see above
    from meshdev.helper.server import refuse, serve  # noqa: PLC0415 -- see above

    try:
        trust.check_loaded(through_sudo | {uid})
        privileges.drop()
    except MeshdevError as error:
        sys.exit(refuse(sock, error))
    code = serve(sock, uid, fork_helper(uid))
    sys.stderr.flush()
    os._exit(code)  # all is undone: the caller need not wait for the interpreter's shutdown


def _leave_caller() -> None:
    """Detach: no controlling terminal, no parent that waits, no output that somebody collects."""
    if child := os.fork():
        os.waitpid(child, 0)  # until it has left: sudo's terminal hangs up on whoever is still in its session
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    if not stat.S_ISREG(os.fstat(2).st_mode):  # a log file may stay
        os.dup2(null, 2)
    os.close(null)


def _restore(uid: int, through_sudo: frozenset[int]) -> int:
    from meshdev.helper.restore import restore  # noqa: PLC0415 -- only this way needs it

    trust.check_loaded(through_sudo | {uid})
    privileges.drop()
    done = restore(uid)
    print(json.dumps(asdict(done)))
    if done.failed:
        raise LaptopError(f"not everything could be undone: {'; '.join(done.failed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
