"""Rights that are asked for before they are needed."""

import pytest

from meshdev.errors import ForbiddenError
from meshdev.kube.access import Access
from meshdev.kube.client import KubeApi
from meshdev.kube.rights import require
from tests.kube.fake_api import FakeApi

LOG = Access("get", "", "pods/log", "default")
FORWARD = Access("create", "", "pods/portforward", "default")


async def test_all_of_them_are_asked_for_and_nothing_else(fake: FakeApi, api: KubeApi) -> None:
    await require(api, LOG, FORWARD)
    assert {asked.resource for asked in fake.asked} == {"selfsubjectaccessreviews"}
    assert len(fake.asked) == 2


@pytest.mark.parametrize("missing", [LOG, FORWARD])
async def test_the_one_that_is_missing_is_named_with_its_rule(fake: FakeApi, api: KubeApi, missing: Access) -> None:
    fake.allow = lambda asked: asked != missing
    with pytest.raises(ForbiddenError, match=f"you may not {missing.verb} {missing.resource} in namespace d") as caught:
        await require(api, LOG, FORWARD)
    assert "meshdev rbac" in (caught.value.hint or "")
    assert f'resources: ["{missing.resource}"]' in (caught.value.hint or "")


@pytest.mark.parametrize("code", [403, 404])
async def test_where_nobody_may_ask_the_request_itself_will_tell(fake: FakeApi, api: KubeApi, code: int) -> None:
    words = 'User "dev" cannot create resource "selfsubjectaccessreviews"'
    fake.refuse = {"create selfsubjectaccessreviews": (code, words)}
    await require(api, LOG, FORWARD)
