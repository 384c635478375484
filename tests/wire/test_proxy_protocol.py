"""The header's bytes, and who is no IPv4 address."""

import pytest

from meshdev.wire.proxy_protocol import SIZE, header


def test_the_bytes_are_those_of_the_specification() -> None:
    made = header(("10.244.1.7", 43210), ("10.244.1.9", 8080))
    assert made.hex(" ") == ("0d 0a 0d 0a 00 0d 0a 51 55 49 54 0a 21 11 00 0c 0a f4 01 07 0a f4 01 09 a8 ca 1f 90")
    assert len(made) == SIZE


@pytest.mark.parametrize("name", ["", "::1", "b"])
def test_other_addresses_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"Expected|Address"):
        header((name, 1), ("10.0.0.1", 2))
