"""What `up` and other commands say to each other about a project, as JSON lines."""

import json

import pytest

from meshdev.errors import ProtocolError
from meshdev.wire.project_api import (
    ProjectRequest,
    ProjectStatus,
    encode_project_request,
    encode_project_status,
    parse_project_request,
    parse_project_status,
)

STATUS = ProjectStatus(
    phase="up",
    pid=7,
    undo_s=65.0,
    digests=(("process b", "0123456789abcdef"),),
    processes=(("b", "ready"),),
    intercepts=(("b", "up"),),
)


def test_requests() -> None:
    line = encode_project_request(ProjectRequest("down"))
    assert json.loads(line) == {"op": "down"}
    assert parse_project_request(line) == ProjectRequest("down")


def test_the_status() -> None:
    line = encode_project_status(STATUS)
    assert json.loads(line)["processes"] == {"b": "ready"}
    assert parse_project_status(line) == STATUS


@pytest.mark.parametrize("line", [b"", b"[]", b"{}", b'{"op":"up"}', b'{"op":"down","now":true}', b"{" * 9000])
def test_what_is_no_request(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_project_request(line)


@pytest.mark.parametrize("change", [{"phase": "off"}, {"pid": 0}, {"processes": {"": "x"}}, {"digests": []}])
def test_what_is_no_status(change: dict[str, object]) -> None:
    line = json.dumps({**json.loads(encode_project_status(STATUS)), **change}).encode()
    with pytest.raises(ProtocolError):
        parse_project_status(line)
