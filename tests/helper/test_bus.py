"""The system bus as it may behave: whoever sends us signals does not keep the helper waiting."""

import socket
import struct
import threading
import time
from pathlib import Path

import pytest

from meshdev.errors import DnsError
from meshdev.helper import bus
from meshdev.helper.bus import SystemBus

_RETURN, _SIGNAL = 2, 4


def _message(kind: int) -> bytes:
    return struct.pack("<4BIII", ord("l"), kind, 0, 1, 0, 1, 0)


def _serve(listener: socket.socket) -> None:
    """Greets, answers Hello, and then sends nothing but signals."""
    client, _ = listener.accept()
    with client:
        client.recv(1 << 16)
        client.sendall(b"OK 1234\r\n")
        while b"Hello" not in client.recv(1 << 16):
            pass
        client.sendall(_message(_RETURN))
        client.settimeout(0.1)
        while True:
            try:
                client.sendall(_message(_SIGNAL))
                if not client.recv(1 << 16):
                    return
            except TimeoutError:
                continue
            except OSError:
                return


def test_signals_do_not_keep_us_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "_SECONDS", 1)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bus"))
        listener.listen()
        serving = threading.Thread(target=_serve, args=(listener,), daemon=True)
        serving.start()
        client = SystemBus(tmp_path / "bus")
        start = time.monotonic()
        with pytest.raises(DnsError, match="does not answer within 1 s"):
            client.call("org.example", "/", "org.example", "Ask")
        assert time.monotonic() - start < 5
        serving.join(5)
        assert not serving.is_alive()
