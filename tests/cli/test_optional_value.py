"""Options whose value may be left out."""

import pytest

from meshdev.cli.optional_value import filled


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("", ""),
        ("--socks", "--socks=1"),
        ("--socks --debug", "--socks=1 --debug"),
        ("--socks 2 --debug", "--socks 2 --debug"),
        ("--socks=2", "--socks=2"),
        ("-n a --socks", "-n a --socks=1"),
    ],
)
def test_where_no_value_follows_the_default_does(words: str, found: str) -> None:
    assert filled(words.split(), {"--socks": "1"}) == found.split()
