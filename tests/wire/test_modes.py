"""The modes: what tells them apart, and how they travel."""

import pytest

from meshdev.wire.codecs import InvalidValueError
from meshdev.wire.modes import MESH, MODE, MODES, PROXY, Mode


def test_what_the_modes_take() -> None:
    found = {
        mode.name: (mode.needs_match, mode.carries_udp, mode.takes_bytes, mode.exclusive) for mode in MODES.values()
    }
    assert found == {"proxy": (False, True, True, True), "mesh": (True, False, False, False)}


@pytest.mark.parametrize("mode", MODES.values(), ids=str)
def test_a_mode_travels_as_its_name(mode: Mode) -> None:
    assert MODE.dump(mode) == mode.name == str(mode)
    assert MODE.load(mode.name) is mode


@pytest.mark.parametrize("value", ["", "link", "Proxy", "mesh ", None, 1, ["mesh"], {"name": "mesh"}, "mesh\0"])
def test_nothing_else_is_a_mode(value: object) -> None:
    with pytest.raises(InvalidValueError, match="invalid value"):
        MODE.load(value)


def test_modes_can_be_sorted() -> None:
    assert sorted([PROXY, MESH], key=str) == sorted([PROXY, MESH]) == [MESH, PROXY]
