"""YAML text → :class:`Document`: values with their places.

Scalars are those of YAML 1.2's core schema (10.3.2), which is what Kubernetes' users expect: ``on`` and ``8080:53``
are texts, not a boolean and a number in base 60. Anchors, aliases and ``<<`` work; a key that stands twice, a tag and a
second document are errors. Size, depth and the number of nodes, each alias counted, are limited.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from meshdev.errors import ProjectFileError
from meshdev.project.document import At, Document, Position, Problem, failure

MAX_BYTES: Final = 256 << 10
MAX_DEPTH: Final = 24
MAX_NODES: Final = 20_000

_CORE: Final = "tag:yaml.org,2002:"
_KNOWN: Final = frozenset(
    f"{_CORE}{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "value", "merge", "map", "seq")
)
_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT: Final = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read(data: bytes, name: str) -> Document:
    """The document in *data*; *name* is the file's, for errors. Raises ProjectFileError."""
    if len(data) > MAX_BYTES:
        raise ProjectFileError(f"{name} has {len(data):,} bytes, more than {MAX_BYTES:,}")
    try:
        text = data.decode("utf-8-sig")
        _check_depth(text, name)
        node = yaml.compose(text, Loader=_Base)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _wrong(name, Position(line, 1), f"byte {error.start} is no UTF-8") from error
    except yaml.MarkedYAMLError as error:
        what = ", ".join(part for part in (error.problem, error.context) if part)
        raise _wrong(name, _place(error.problem_mark or error.context_mark), f"no YAML: {what}") from error
    except yaml.YAMLError as error:
        raise _wrong(name, Position(1, 1), f"no YAML: {' '.join(str(error).split())}") from error
    return _YamlReader(name).document(node)


def _check_depth(text: str, name: str) -> None:
    """Before it is composed: that is recursive."""
    depth = 0
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _wrong(name, _place(event.start_mark), f"nested more than {MAX_DEPTH} deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _YamlReader:
    """One reading: nodes to values, with the place of each."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._values: dict[At, Position] = {}
        self._keys: dict[At, Position] = {}
        self._texts: dict[At, str] = {}
        self._nodes = 0

    def document(self, node: yaml.Node | None) -> Document:
        value = {} if node is None else self._value(node, ())
        return Document(self._name, {} if value is None else value, self._values, self._keys, self._texts)

    def _value(self, node: yaml.Node, at: At) -> Any:  # noqa: ANN401 -- whatever stands there
        self._count(node, at)
        if node.tag not in _KNOWN:
            raise self._wrong(node, at, f"the tag {node.tag} is not supported")
        self._values[at] = _place(node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return {key: self._value(value, (*at, key)) for key, value in self._pairs(node, at).items()}
        if isinstance(node, yaml.SequenceNode):
            return [self._value(value, (*at, index)) for index, value in enumerate(node.value)]
        self._texts[at] = node.value
        return _scalar(node.value, plain=not getattr(node, "style", None) and node.tag != f"{_CORE}str")

    def _count(self, node: yaml.Node, at: At) -> None:
        """One more. What is merged counts each time, with its keys: merges of merges grow as aliases do."""
        self._nodes += 1
        if self._nodes > MAX_NODES or len(at) > MAX_DEPTH:
            raise self._wrong(
                node, at, f"more than {MAX_NODES:,} values, or nested too deep; each use of an alias counts"
            )

    def _pairs(self, node: yaml.MappingNode, at: At, depth: int = 0) -> dict[str, yaml.Node]:
        """Its own keys, and before them those that it merges, which its own replace."""
        if depth > MAX_DEPTH:
            raise self._wrong(node, at, "a mapping merges itself")
        own: dict[str, yaml.Node] = {}
        merged: dict[str, yaml.Node] = {}
        for key, value in node.value:
            self._count(key, at)
            if key.tag == f"{_CORE}merge":
                for source in reversed(list(self._merged(value, at))):
                    self._count(source, at)
                    merged |= self._pairs(source, at, depth + 1)
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise self._wrong(key, at, "a key is no text")
            if key.value in own:
                raise self._wrong(key, (*at, key.value), "this key stands twice")
            own[key.value] = value
            self._keys[*at, key.value] = _place(key.start_mark)
        return merged | own

    def _merged(self, value: yaml.Node, at: At) -> Iterator[yaml.MappingNode]:
        for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
            if not isinstance(each, yaml.MappingNode):
                raise self._wrong(value, at, "<< takes a mapping or a list of mappings")
            yield each

    def _wrong(self, node: yaml.Node, at: At, message: str) -> ProjectFileError:
        return failure(self._name, [Problem(_place(node.start_mark), at, message)])


def _scalar(text: str, *, plain: bool) -> str | int | float | bool | None:
    """*plain*: written without quotes, and of a form that may be more than a text."""
    if not plain:
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _place(mark: Any) -> Position:  # noqa: ANN401 -- PyYAML has two classes of marks, and None
    return Position(mark.line + 1, mark.column + 1) if mark else Position(1, 1)


def _wrong(name: str, place: Position, message: str) -> ProjectFileError:
    return failure(name, [Problem(place, (), message)])
