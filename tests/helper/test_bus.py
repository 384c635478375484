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

_RETURN, _ERROR, _SIGNAL = 2, 3, 4


def _message(kind: int, answers: int = 0, text: bytes = b"") -> bytes:
    fields = struct.pack("<BBcBI", 5, 1, b"u", 0, answers) if answers else b""
    body = struct.pack("<I", len(text)) + text + b"\0" if text else b""
    return struct.pack("<4BIII", ord("l"), kind, 0, 1, len(body), 1, len(fields)) + fields + body


def _serve(listener: socket.socket) -> None:
    """Greets, answers Hello, and then sends nothing but signals."""
    client, _ = listener.accept()
    with client:
        client.recv(1 << 16)
        client.sendall(b"OK 1234\r\n")
        while b"Hello" not in client.recv(1 << 16):
            pass
        client.sendall(_message(_RETURN, 1))
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


def _answer_others(listener: socket.socket) -> None:
    """Before each answer comes one to another call, and a failure of another."""
    client, _ = listener.accept()
    with client:
        client.recv(1 << 16)
        client.sendall(b"OK 1234\r\n")
        for serial, member in ((1, b"Hello"), (2, b"Ask")):
            while member not in client.recv(1 << 16):
                pass
            others = _message(_RETURN, serial + 7, b"another's") + _message(_ERROR, serial + 8, b"no")
            client.sendall(others + _message(_RETURN, 0, b"nobody's") + _message(_RETURN, serial, b"ours"))


def test_the_answer_to_another_call_is_not_taken_for_ours(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "bus"))
        listener.listen()
        serving = threading.Thread(target=_answer_others, args=(listener,), daemon=True)
        serving.start()
        client = SystemBus(tmp_path / "bus")
        assert b"ours" in client.call("org.example", "/", "org.example", "Ask")
        client.close()
        serving.join(5)
        assert not serving.is_alive()
