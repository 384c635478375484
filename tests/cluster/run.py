"""The one way the testbed runs other programs: argument lists, captured output, and the program's own words when it
fails."""

import subprocess
from collections.abc import Mapping
from pathlib import Path


class TestbedError(Exception):
    """Something the person at the keyboard has to know; the text is the whole message."""

    __test__ = False  # the name starts with "Test", pytest would collect it


class CommandFailedError(TestbedError):
    """A program ended with another code than 0; `stderr` is what it said."""

    def __init__(self, argv: tuple[str, ...], code: int, stdout: str, stderr: str) -> None:
        said = (stderr.strip() or stdout.strip())[-4000:]
        super().__init__(f"{' '.join(argv)}: exit code {code}\n{said}")
        self.code = code
        self.stderr = stderr


def run(
    *argv: str | Path,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float | None = None,
) -> str:
    """Run ARGV to its end and return its stdout; CommandFailedError when it fails, TestbedError without it."""
    words = tuple(str(word) for word in argv)
    try:
        done = subprocess.run(
            words, input=stdin, env=env, cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise TestbedError(f"{words[0]} is not installed on this machine") from error
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"{' '.join(words)}: no end after {timeout} s") from error
    if done.returncode != 0:
        raise CommandFailedError(words, done.returncode, done.stdout, done.stderr)
    return done.stdout


def succeeds(*argv: str | Path, timeout: float | None = None) -> bool:
    """Whether ARGV ends with 0; its output is of no interest."""
    try:
        run(*argv, timeout=timeout)
    except TestbedError:
        return False
    return True
