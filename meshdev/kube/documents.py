"""Kubeconfig text as kubectl reads it (sigs.k8s.io/yaml): YAML with Go's idea of scalars, the first document only.

Go's reader is a port of libyaml, which takes JSON with tabs; dates, sexagesimal numbers and ``=`` are texts to it.
"""

import json
import re
from typing import Any, Final, Self

import yaml

_NULL: Final = "tag:yaml.org,2002:null"
_SCALARS: Final = (
    (_NULL, r"~|null|Null|NULL|", "~nN"),
    (
        "tag:yaml.org,2002:bool",
        r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
        "yYnNtTfFoO",
    ),
    (
        "tag:yaml.org,2002:int",
        r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)",
        "-+0123456789",
    ),
    ("tag:yaml.org,2002:float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("tag:yaml.org,2002:merge", r"<<", "<"),
)

#: libyaml's scanner where the wheel has it: PyYAML's own refuses tabs between tokens.
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]  # one of two classes with the same methods
    """Scalars as Go resolves them; numbers need no more than not to be texts."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 -- PyYAML's own name and way


for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), list(_first))
_Loader.yaml_implicit_resolvers.setdefault("", []).append((_NULL, re.compile(r"\Z")))
for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", lambda _loader, node: _Number(node.value))


class _Number(float):
    """A number, whichever: all that counts is that it stands where a text should."""

    def __new__(cls, _text: str) -> Self:
        return super().__new__(cls, 1.0)


def parse(data: bytes) -> Any:  # noqa: ANN401 -- whatever stands there
    """The first document. Raises yaml.YAMLError, which may have a ``problem_mark``; UnicodeDecodeError."""
    try:
        return json.loads(data)  # the same, faster, with tabs by any scanner
    except ValueError:
        pass
    loader = _Loader(data)
    try:
        return loader.get_data() if loader.check_data() else None
    finally:
        loader.dispose()
