"""Entry point of ``meshdev``. It is small so that Ctrl-C is a clean end from its first line on."""

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
    from meshdev.cli.commands import run  # noqa: PLC0415 -- 0.1 s, in which nothing is to be undone yet

    code = run(list(sys.argv[1:] if arguments is None else arguments))
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `meshdev status | head -0`: nobody reads, nobody is to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(Cancelled.exit_code)
