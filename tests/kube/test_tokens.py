"""The workload's token: made once, read by the others, deleted by who made it only."""

import asyncio
import base64
import hashlib

import pytest

from meshdev.errors import ForbiddenError, InterceptError
from meshdev.kube import tokens
from meshdev.kube.client import KubeApi
from tests.intercept.values import B
from tests.kube.fake_api import FakeApi


async def test_the_first_makes_it_and_the_others_read_it(fake: FakeApi, api: KubeApi) -> None:
    first = await tokens.ensure(api, B)
    second = await tokens.ensure(api, B, "f" * 64)
    assert (first.created, second.created) == (True, False)
    assert (first.value, first.secret, first.uid) == (second.value, second.secret, second.uid)
    assert first.key == hashlib.sha256(first.value.encode()).hexdigest()
    assert first.value not in repr(first)
    stored = fake.objects["", "secrets"]["default", first.secret]
    assert base64.b64decode(stored["data"]["token"]).decode() == first.value
    assert stored["metadata"]["ownerReferences"][0]["uid"] == B.uid
    assert stored["immutable"] is True


async def test_two_at_the_same_moment_have_the_same(api: KubeApi) -> None:
    both = await asyncio.gather(tokens.ensure(api, B), tokens.ensure(api, B))
    assert len({token.value for token in both}) == 1
    assert sorted(token.created for token in both) == [False, True]


async def test_one_that_was_deleted_comes_back_as_it_was(fake: FakeApi, api: KubeApi) -> None:
    first = await tokens.ensure(api, B)
    fake.remove("secrets", first.secret)
    again = await tokens.ensure(api, B, first.value)
    assert (again.value, again.created, again.uid != first.uid) == (first.value, True, True)


async def test_only_who_made_it_undoes_it(fake: FakeApi, api: KubeApi) -> None:
    first, second = await tokens.ensure(api, B), await tokens.ensure(api, B)
    await tokens.undo(api, second)
    assert len(fake.names("secrets")) == 1
    await tokens.undo(api, first)
    await tokens.undo(api, first)
    assert fake.names("secrets") == []


@pytest.mark.parametrize(
    "data", [None, {}, {"token": ""}, {"token": "@"}, {"token": base64.b64encode(b"short").decode()}]
)
async def test_a_secret_that_is_none(fake: FakeApi, api: KubeApi, data: dict[str, str] | None) -> None:
    fake.put("secrets", {"metadata": {"name": tokens.name_of(B)}, "data": data})
    with pytest.raises(InterceptError, match="holds no token") as caught:
        await tokens.ensure(api, B)
    assert "delete secret" in (caught.value.hint or "")


async def test_who_may_not_is_told_the_rule(fake: FakeApi, api: KubeApi) -> None:
    fake.allow = lambda asked: asked.verb != "create"
    with pytest.raises(ForbiddenError, match="create secrets in namespace default"):
        await tokens.ensure(api, B)
