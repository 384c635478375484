"""``--port`` as it is typed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import UsageError
from meshdev.intercept.ports import PortRequest, parse_port


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("8080", PortRequest(8080)),
        ("8080:80", PortRequest(8080, 80)),
        ("8080:http", PortRequest(8080, "http")),
        ("8080/udp", PortRequest(8080, None, "udp")),
        ("8080:80/http", PortRequest(8080, 80, "http")),
        ("1:9-a/tcp", PortRequest(1, "9-a", "tcp")),
        ("65535:65535", PortRequest(65535, 65535)),
    ],
)
def test_forms(typed: str, expected: PortRequest) -> None:
    assert parse_port(typed) == expected
    assert str(expected) == typed


@pytest.mark.parametrize(
    ("typed", "column"),
    [
        ("", 1),
        ("http", 1),
        ("0", 1),
        ("65536", 1),
        ("8080:", 6),
        ("8080:0", 6),
        ("8080:65536", 6),
        ("8080:Http", 6),
        ("8080:a_b", 6),
        ("80:-a", 4),
        ("8080/", 6),
        ("8080/sctp", 6),
        ("8080:80/TCP", 9),
        ("8080:80:90", 6),
        ("+1", 1),
        (" 1", 1),
        ("٣", 1),
    ],
)
def test_what_cannot_be_meant_names_the_column(typed: str, column: int) -> None:
    with pytest.raises(UsageError, match=rf"\(column {column}\)$") as caught:
        parse_port(typed)
    assert "LOCAL[:REMOTE]" in (caught.value.hint or "")


@given(st.text("0123456789:/abhtpucd-", max_size=16))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert parse_port(str(parse_port(text))) == parse_port(text)
    except UsageError:
        return
