"""A sudo whose mood is $FAKE_SUDO: free, password, refused. It asks on /dev/tty, as sudo does."""

import os
import subprocess
import sys


def main() -> None:
    mood = os.environ["FAKE_SUDO"]
    words = sys.argv[1:]
    may_ask = "-n" not in words
    prompt = words[words.index("-p") + 1] if "-p" in words else ""
    command = words[words.index("--") + 1 :]
    if mood == "refused":
        sys.exit("sudo: dev is not in the sudoers file.")
    if mood == "password":
        if not may_ask:
            sys.exit("sudo: a password is required")
        ask(prompt.replace("%p", "dev"))
    sys.exit(subprocess.run(command, check=False).returncode)


def ask(prompt: str) -> None:
    with open("/dev/tty", "r+b", buffering=0) as terminal:  # noqa: PTH123 -- Path.open would buffer
        terminal.write(prompt.encode())
        if terminal.readline().strip() != b"secret":
            sys.exit("sudo: 1 incorrect password attempt")


if __name__ == "__main__":
    main()
