"""The key that a child process makes: whole, another one each time, and nothing of it is loaded here."""

import base64
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from meshdev.identity.authority import Authority
from meshdev.identity.keys import key_id
from meshdev.identity.tls import load_identity
from meshdev.sidecar.agent.own_key import make_key

_MAKE = """
import base64, sys
from meshdev.sidecar.agent.own_key import PendingKey
found = PendingKey().result()
assert not {"cryptography", "meshdev.identity"} & sys.modules.keys()
for part in (found.private_pem, found.certificate, found.request):
    print(base64.b64encode(part).decode())
assert "PRIVATE" not in repr(found)
"""
_BREAK = """
import sys
sys.modules["cryptography"] = None
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_a_child_makes_key_certificate_and_request(tmp_path: Path) -> None:
    ids = set()
    for _ in range(2):
        done = run(_MAKE)
        assert (done.returncode, done.stderr) == (0, "")
        private, certificate, request = map(base64.b64decode, done.stdout.split())
        now = datetime.now(UTC)
        issued = Authority.open(tmp_path / "a", "uid", now).issue_workload(
            request, "ns/default/pod/b-1/pod/uid", now=now, lifetime=timedelta(hours=1)
        )
        load_identity(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), private, [certificate])
        load_identity(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), private, [issued])
        ids.add(key_id(certificate))
    assert len(ids) == 2


def test_why_there_is_none_is_told() -> None:
    done = run(_BREAK + _MAKE)
    assert done.returncode != 0
    assert "ModuleNotFoundError" in done.stderr
    assert "no private key can be made: the process ended with 1" in done.stderr


def test_in_this_process_too() -> None:
    first, second = make_key(), make_key()
    assert key_id(first.certificate) != key_id(second.certificate)
