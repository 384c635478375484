"""Requests as typed become intents, or say what is wrong with them."""

from typing import Any

import pytest

from meshdev.errors import UsageError
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.ports import PortRequest
from meshdev.intercept.target import Target
from meshdev.modes.intent import Intent, intent
from meshdev.wire.session_intercepts import InterceptRequest


def test_a_mesh() -> None:
    asked = InterceptRequest(
        target="deploy/b",
        namespace="team-1",
        mode="mesh",
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
        mode="mesh",
        match=Match((HeaderMatch("a", "exact", "1"),), "/v2", "POST"),
        ports=(PortRequest(8080, "http"),),
        strategy="patch",
        takeover=True,
        reset_existing=True,
        fallback=False,
    )


def test_a_proxy_has_no_match() -> None:
    assert intent(InterceptRequest(target="svc/b", mode="proxy")).match is None


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"mode": "mesh"}, "which requests are yours"),
        ({"mode": "mesh", "headers": ("a~(",)}, "column"),
        ({"mode": "proxy", "headers": ("a=1",)}, "a proxy takes all traffic"),
        ({"mode": "proxy", "baggage": ("a=1",)}, "a proxy takes all traffic"),
        ({"mode": "proxy", "ports": ("x",)}, "no port of this machine"),
        ({"mode": "proxy", "target": "b"}, "has no kind"),
    ],
)
def test_what_cannot_be_meant(asked: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        intent(InterceptRequest(**{"target": "deployment/b", **asked}))
