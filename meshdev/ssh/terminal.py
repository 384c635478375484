"""Questions on the terminal of the command that started us: passphrases, passwords, host keys.

Always /dev/tty: standard input and output are the command's. Once we are detached there is none, and nobody is asked.
"""

import os
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from meshdev.text import visible

_MAX: Final = 4096


def ask(prompt: str, *, echo: bool = False) -> str | None:
    """What is typed after *prompt*; None where there is no terminal, or at its end of file.

    The prompt may be a server's: control characters of it do nothing.
    """
    try:
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        with _echo_as(descriptor, echo=echo):  # first: who reads the prompt may type
            os.write(descriptor, "\n".join(visible(line) for line in prompt.split("\n")).encode())
            return _line(descriptor)
    except OSError:  # it was closed
        return None
    finally:
        os.close(descriptor)


def there_is_one() -> bool:
    """Whether :func:`ask` could ask."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


@contextmanager
def kept() -> Iterator[None]:
    """The terminal is left as it was found: also where a thread still waits for an answer."""
    descriptor, before = -1, None
    with suppress(OSError, termios.error):
        descriptor = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        before = termios.tcgetattr(descriptor)
    try:
        yield
    finally:
        if before is not None:
            with suppress(OSError, termios.error):
                termios.tcsetattr(descriptor, termios.TCSANOW, before)
        if descriptor >= 0:
            os.close(descriptor)


@contextmanager
def _echo_as(descriptor: int, *, echo: bool) -> Iterator[None]:
    before: list[Any] = termios.tcgetattr(descriptor)
    silent = [*before]
    silent[3] = before[3] & ~termios.ECHO
    # Not TCSAFLUSH: what was typed ahead counts, as for ssh.
    termios.tcsetattr(descriptor, termios.TCSADRAIN, before if echo else silent)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        if not echo:
            os.write(descriptor, b"\n")  # the newline was not shown


def _line(descriptor: int) -> str | None:
    data = os.read(descriptor, _MAX)
    return data.decode(errors="surrogateescape").rstrip("\r\n") if data else None
