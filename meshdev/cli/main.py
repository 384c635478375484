"""Entry point of ``meshdev``. It is small so that Ctrl-C is a clean end from its first line on."""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from meshdev.errors import Cancelled


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and exit with its code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)
    _hold_standard_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0].startswith("__complete"):
        from meshdev.cli import complete  # noqa: PLC0415 -- a shell only

        complete.main(complete.words_of(words[-1]) if words[0] == complete.LINE else words[1:])
    from meshdev.cli.commands import run  # noqa: PLC0415 -- 0.1 s, in which nothing is to be undone yet

    code = run(words)
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python tries, and fails, once more
        # `meshdev status | head -0`: nothing reads the output, so there is nothing to report.
        if not isinstance(error, BrokenPipeError) and code == 0:  # else it is reported already
            code = 1
            with contextlib.suppress(OSError):
                print(f"meshdev: standard output cannot be written: {error.strerror}", file=sys.stderr, flush=True)
    sys.exit(code)


def _hold_standard_streams() -> None:
    """Descriptors 0 to 2 that the caller has closed (``>&-``) are taken, before a socket or a log gets their number.

    Python has no stream then, and prints what is meant for stderr on stdout. Writing to stdout fails as it would have
    (EBADF), so that missing output is not taken for an answer; output on stderr is lost, as with coreutils.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)  # the lowest that is free is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 -- open until the process exits
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 -- the same


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(Cancelled.exit_code)
