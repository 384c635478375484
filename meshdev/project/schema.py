"""The JSON schema of a project file: the one declaration of what may be in it, as data beside this module."""

import json
from importlib import resources
from typing import Any, Final

NAME: Final = "meshdev.schema.json"


def text() -> str:
    """As ``meshdev schema`` prints it."""
    return resources.files(__package__).joinpath(NAME).read_text(encoding="utf-8")


def load() -> dict[str, Any]:
    """As an object."""
    loaded: dict[str, Any] = json.loads(text())
    return loaded
