"""Records between the SSH client of --ssh and who dials through it."""

from ipaddress import IPv4Address

import pytest

from meshdev.errors import ProtocolError, SshError, UnreachableError
from meshdev.wire import ssh
from meshdev.wire.session_api import Failed


@pytest.mark.parametrize(
    ("report", "record"),
    [
        (ssh.BastionReady(0.25), b'{"ssh":"ready","seconds":0.25}\n'),
        (
            Failed("ssh", "no", None, 13),
            b'{"ssh":"error","error":{"code":"ssh","message":"no","hint":null},"exit_code":13}\n',
        ),
    ],
)
def test_reports(report: ssh.BastionReady | Failed, record: bytes) -> None:
    assert ssh.encode_report(report) == record
    assert ssh.parse_report(record) == report


@pytest.mark.parametrize(
    ("request_", "record"),
    [
        (ssh.DialRequest("k8s.example", 6443), b'{"op":"dial","host":"k8s.example","port":6443}\n'),
        (ssh.AddressesRequest(), b'{"op":"addresses"}\n'),
    ],
)
def test_requests(request_: ssh.SshClientRequest, record: bytes) -> None:
    assert ssh.encode_dial(request_) == record
    assert ssh.parse_dial(record) == request_


def test_answers() -> None:
    answer = ssh.BastionAddresses("bastion", (IPv4Address("192.0.2.1"),))
    line = ssh.encode_dialled(answer)
    assert line == b'{"ok":{"host":"bastion","addresses":["192.0.2.1"]}}\n'
    assert ssh.parse_dialled(line) == answer
    with pytest.raises(UnreachableError, match="gone"):
        ssh.parse_dialled(ssh.encode_dialled(Failed.of(UnreachableError("gone"))))
    with pytest.raises(SshError, match="refused"):
        ssh.parse_dialled(ssh.encode_dialled(Failed.of(SshError("refused"))))


@pytest.mark.parametrize(
    "record",
    [
        *(b"", b"{", b"[]", b'{"op":"other"}', b'{"op":"dial","host":"x"}', b'{"op":"dial","host":"x","port":0}'),
        *(b'{"op":"dial","host":"x","port":65536}', b'{"op":"dial","host":"x","port":1,"more":1}'),
        b'{"op":"dial","host":"' + 300 * b"x" + b'","port":1}',
    ],
)
def test_what_is_no_request_is_refused(record: bytes) -> None:
    with pytest.raises(ProtocolError):
        ssh.parse_dial(record)
