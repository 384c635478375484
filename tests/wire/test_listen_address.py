"""Where a server of the session may be told to listen."""

import pytest

from meshdev.wire.values import listen_address


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("1080", "127.0.0.1:1080"),
        ("127.0.0.1:1080", "127.0.0.1:1080"),
        ("localhost:1", "127.0.0.1:1"),
        ("0", "127.0.0.1:0"),
        ("0.0.0.0:65535", "0.0.0.0:65535"),
        ("[::1]:1080", "[::1]:1080"),
        ("[0:0::1]:1080", "[::1]:1080"),
    ],
)
def test_an_address_and_a_port(text: str, found: str) -> None:
    assert str(listen_address(text)) == found
    assert listen_address(found) == listen_address(text)


@pytest.mark.parametrize(
    "text",
    ["", ":1080", "x:1", "1080:", "127.0.0.1", "1:65536", "::1:1080", "[127.0.0.1]:1", "224.0.0.1:1"],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        listen_address(text)
