"""A short chaos on both laptops at once; ten minutes of it: ``python -m tests.e2e.chaos``."""

import pytest

from tests.e2e.chaos import unleash_all
from tests.e2e.conftest import Laptop

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]


def test_status_never_lies(laptop: Laptop, laptop2: Laptop) -> None:
    with laptop.connected(), laptop2.connected():
        stories = unleash_all((laptop, laptop2), seed=1404, seconds=25)
    assert sorted(stories) == [1, 2]
    for number, story in stories.items():
        print(f"\nlaptop {number}: {story.summary()}")
        assert len(story.harms) >= 3
        assert story.lies() == []
