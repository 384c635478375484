"""Where chunked bodies end, and the first byte that is wrong, whatever the pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.sidecar.passthrough.chunks import EXTENSION_BYTES, ChunkedBody
from tests.sidecar.passthrough import messages
from tests.sidecar.passthrough.following import cut


def ends(data: bytes, *cuts: int) -> tuple[int, str]:
    """How far the body goes, and what is there."""
    body, taken = ChunkedBody(), 0
    for piece in cut(data, cuts):
        end = body.follow(piece, 0)
        taken += end
        if end < len(piece):
            break
    return taken, "done" if body.done else "failed" if body.failed else "more"


#: A body, with ``|`` where it ends or goes wrong; what is there.
CASES = {
    b"0\r\n\r\n|GET": "done",
    b"3\r\nabc\r\n0\r\n\r\n|": "done",
    b"000\r\n\r\n|": "done",
    b"1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n|x": "done",
    b"1A;x\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n|x": "done",
    b'2;a=b; c="d e"\r\nab\r\n0;last\r\n\r\n|': "done",
    b"0\r\nA: b\r\nC:\r\n\r\n|x": "done",
    b"2\r\n\r\n\r\n0\r\n\r\n|": "done",
    b"000000000000003\r\nabc\r\n0\r\n\r\n|": "done",
    b"2\r\nab|": "more",
    b"2\r\nab\r\n|": "more",
    b"2|": "more",
    b"fffffffffffffff\r\nx|": "more",
    b"|\r\n": "failed",
    b"|;x\r\n": "failed",
    b"|g": "failed",
    b"| 3\r\n": "failed",
    b"3| \r\nabc": "failed",
    b"3|\n": "failed",
    b"3\r|abc": "failed",
    b"0|x3\r\n": "failed",
    b"|-3\r\n": "failed",
    b"3;a|\x00": "failed",
    b"3;a|\n": "failed",
    b"2\r\nab|c\r\n": "failed",
    b"2\r\nab\r|c": "failed",
    b"2\r\nab|\n": "failed",
    b"fffffffffffffff|f\r\n": "failed",
    b"000000000000000|0\r\n\r\n": "failed",
    b"0\r\n| folded\r\n\r\n": "failed",
    b"0\r\nA| : b\r\n\r\n": "failed",
    b"0\r\n|:b\r\n": "failed",
    b"0\r\nA: b|\n": "failed",
    b"0\r\nA: b\r|A": "failed",
    b"0\r\nA: b\r\n\r|A": "failed",
    b"0\r\nA: |\x00b\r\n": "failed",
}


@pytest.mark.parametrize("case", CASES)
def test_bodies(case: bytes) -> None:
    before, _, after = case.partition(b"|")
    for cuts in ((), range(len(case)), range(0, len(case), 2)):
        assert ends(before + after, *cuts) == (len(before), CASES[case])


def test_extensions_have_an_end() -> None:
    fits = b"1;" + b"e" * (EXTENSION_BYTES - 1)
    assert ends(fits + b"e\r\nx") == (len(fits) + 4, "more")
    assert ends(fits + b"ee\r\nx") == (len(fits) + 1, "failed")
    assert ends((fits + b"\r\nx\r\n") * 3) == (3 * len(fits) + 15, "more")


@given(st.data(), messages.BODIES, messages.CUTS)
def test_any_body(data: st.DataObject, body: bytes, cuts: list[int]) -> None:
    sent = data.draw(messages.chunked(body))
    assert ends(sent + b"GET /", *cuts) == (len(sent), "done")
