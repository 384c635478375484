"""Project files for tests, read as `up` reads them."""

import textwrap
from collections.abc import Mapping
from pathlib import PurePosixPath

from meshdev.project import building, checking, reading, schema, variables
from meshdev.project.model import Project

FOLDER = PurePosixPath("/srv/shop")


def project(text: str, environ: Mapping[str, str] | None = None) -> Project:
    """The project that *text* describes; the name of its file is `p.yaml`."""
    document = reading.read(textwrap.dedent(text).lstrip("\n").encode(), "p.yaml")
    document = variables.substituted(document, environ or {})
    checking.check(document, schema.load())
    return building.build(document, FOLDER)
