"""Requests as typed become intents, or say what is wrong with them."""

from typing import Any

import pytest

from meshdev.errors import UsageError
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.ports import PortRequest
from meshdev.intercept.target import Target
from meshdev.modes.intent import Intent, intent
from meshdev.wire.modes import MESH, PROXY
from meshdev.wire.session_intercepts import InterceptRequest


def test_a_mesh() -> None:
    asked = InterceptRequest(
        target="deploy/b",
        namespace="team-1",
        mode=MESH,
        headers=("a=1",),
        path_prefix="/v2",
        method="POST",
        ports=("8080:http",),
        strategy="patch",
        takeover=True,
        reset_existing=True,
        fallback=False,
    )
    assert intent(asked) == Intent(
        target=Target("deployment", "b"),
        namespace="team-1",
        mode=MESH,
        match=Match((HeaderMatch("a", "exact", "1"),), "/v2", "POST"),
        ports=(PortRequest(8080, "http"),),
        strategy="patch",
        takeover=True,
        reset_existing=True,
        fallback=False,
    )


def test_a_proxy_has_no_match() -> None:
    assert intent(InterceptRequest(target="svc/b", mode=PROXY)).match is None


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"mode": MESH}, "which requests are yours"),
        ({"mode": MESH, "headers": ("a~(",)}, "column"),
        ({"mode": PROXY, "headers": ("a=1",)}, "a proxy takes all traffic"),
        ({"mode": PROXY, "baggage": ("a=1",)}, "a proxy takes all traffic"),
        ({"mode": PROXY, "ports": ("x",)}, "no port of this machine"),
        ({"mode": PROXY, "target": "b"}, "has no kind"),
    ],
)
def test_what_cannot_be_meant(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        intent(InterceptRequest(**{"target": "deployment/b", **asked}))
