"""A helper that only greets: it detaches as the real one does and ends with its session."""

import os
import socket
import sys
import time
from pathlib import Path


def main() -> None:
    if "--restore" in sys.argv:
        if words := os.environ.get("FAKE_HELPER_FAILS"):
            print(words, file=sys.stderr)
            sys.exit(50)
        if "FAKE_HELPER_STUCK" not in os.environ:
            (Path(os.environ["HOME"]) / "run" / f"{sys.argv[-1]}.json").unlink()
        print("{}")
        return
    session = socket.socket(fileno=0)
    if error := os.environ.get("FAKE_HELPER_ERROR"):
        session.sendall(error.encode() + b"\n")
        sys.exit(1)
    if os.environ.get("FAKE_HELPER_CRASH"):
        sys.exit("it fell over")
    time.sleep(float(os.environ.get("FAKE_HELPER_SECONDS", "0")))
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    session.sendall(b'{"helper":1}\n')
    while session.recv(4096):
        pass


if __name__ == "__main__":
    main()
