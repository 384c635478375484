"""Messages, declared once: a class with a codec for each field defines what is sent, what is accepted, and the limits.

::

    @message(strict=True)
    class SetAddress:
        address: IPv4Address = field(Parsed(values.session_address))
        mtu: int = field(Integer(576, 65535))

:func:`message` turns it into a frozen dataclass; :func:`load` and :func:`dump` convert it from and to JSON objects.

How messages may change, and what a peer of another version does:

* An added field is ``optional``: when a peer does not send it yet, it has the default. A peer that does not know it yet
  ignores it, unless the message is ``strict``: there unknown fields are an error, because doing half of what was asked
  is worse than an error (requests to root, requests of the user).
* A message whose meaning changes gets the next ``version``, which is sent beside its fields; the default is 1. Versions
  newer than the one declared here are refused.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar, dataclass_transform

from meshdev.errors import ProtocolError
from meshdev.wire.codecs import Choice, Codec, InvalidValueError

#: The key of a message's version; no field may use it.
VERSION_KEY: Final = "v"
FLAT: Final = "*"

_MISSING: Final[Any] = dataclasses.MISSING

T = TypeVar("T")


def field(codec: Codec[T], *, default: T = _MISSING, key: str = "", optional: bool = False, sparse: bool = False) -> T:
    """A field of a message. *key* is its name on the wire where that differs; "a.b" is b in the object at a. With FLAT,
    the fields of a nested message are among those of the outer one.

    An *optional* field may be missing on the wire, and then has the *default*; all others are required. A *sparse* one
    is optional and left out where it has the default.
    """
    metadata = {"codec": codec, "key": key, "optional": optional or sparse, "omitted": default if sparse else _MISSING}
    return dataclasses.field(default=default, metadata=metadata)


class _Member(NamedTuple):
    """One key of an object, or (None) the keys of a FLAT message; *name* is the attribute.

    Without a name the object at *key* has several attributes.
    """

    name: str
    key: str | None
    codec: Codec[Any]
    optional: bool
    omitted: Any = _MISSING
    """The value that is not sent."""


class _Object(Codec[Any]):
    """Some attributes of a message as one object: ``load`` returns a dict of them, ``dump`` takes the message."""

    def __init__(self, members: tuple[_Member, ...], strict: bool) -> None:
        self.members = members
        self.strict = strict

    def load(self, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise InvalidValueError(" is not an object")
        found: dict[str, Any] = {}
        for name, key, codec, optional, _ in self.members:
            if key not in value:
                if key is None:
                    found[name] = codec.load(value)
                elif not optional:
                    raise InvalidValueError(f" has no {key}")
                continue
            try:  # not take(): a call per field would cost a fifth of the time
                loaded = codec.load(value.pop(key))
            except ValueError as error:
                raise InvalidValueError.inside(str(key), error) from None
            if name:
                found[name] = loaded
            else:
                found |= loaded
        if self.strict and value:
            raise InvalidValueError(f" has unknown keys: {', '.join(sorted(value))[:200]}")
        return found

    def dump(self, value: object) -> dict[str, object]:
        found: dict[str, object] = {}
        for name, key, codec, _, omitted in self.members:
            attribute = getattr(value, name) if name else value
            if omitted is not _MISSING and attribute == omitted:
                continue
            part: Any = codec.dump(attribute)
            if key is None:
                found |= part
            else:
                found[key] = part
        return found


class Schema(Codec[T]):
    """The declaration of one message."""

    def __init__(self, kind: Callable[..., T], attributes: _Object, version: int) -> None:
        self.attributes = attributes
        self.version = version
        self.kind = kind

    def load(self, value: object) -> T:
        if isinstance(value, dict) and VERSION_KEY in value:
            self._check(value.pop(VERSION_KEY))
        return self.kind(**self.attributes.load(value))

    def _check(self, version: object) -> None:
        if type(version) is not int or not 1 <= version <= self.version:
            raise InvalidValueError(f" is of version {version!r:.20}, and this meshdev reads up to {self.version}")

    def dump(self, value: T) -> dict[str, object]:
        found = self.attributes.dump(value)
        return {VERSION_KEY: self.version, **found} if self.version > 1 else found


#: Of every message in the loaded modules.
SCHEMAS: Final[dict[type, Schema[Any]]] = {}


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def message(
    *, strict: bool = False, version: int = 1, kw_only: bool = False, order: bool = False, slots: bool = False
) -> Callable[[type[T]], type[T]]:
    """Declare a class as a message. *strict* and *version*: see above; the others are those of a dataclass."""

    def declare(cls: type[T]) -> type[T]:
        made: type[Any] = dataclass(frozen=True, kw_only=kw_only, order=order, slots=slots)(cls)
        fields = {each.metadata["key"] or each.name: each for each in dataclasses.fields(made)}
        SCHEMAS[made] = Schema(made, _object(fields, strict), version)
        return made

    return declare


def _object(fields: Mapping[str, dataclasses.Field[Any]], strict: bool) -> _Object:
    """The object of *fields* by key; keys with the same prefix before a dot form one nested object."""
    groups: dict[str, dict[str, dataclasses.Field[Any]]] = {}
    for key, each in fields.items():
        first, _, rest = key.partition(".")
        groups.setdefault(first, {})[rest] = each
    return _Object(tuple(_member(key, group, strict) for key, group in groups.items()), strict)


def _member(key: str, group: dict[str, dataclasses.Field[Any]], strict: bool) -> _Member:
    if "" not in group:
        return _Member("", key, _object(group, strict), optional=False)
    metadata = group[""].metadata
    name, on_wire = group[""].name, None if key == FLAT else key
    return _Member(name, on_wire, metadata["codec"], metadata["optional"], metadata["omitted"])


def nested(kind: type[T]) -> Codec[T]:
    """A message as a field of another."""
    return SCHEMAS[kind]


def load(kind: type[T], value: object) -> T:
    """The message in a decoded JSON object, from which its keys are removed. Raises ValueError."""
    found: T = SCHEMAS[kind].load(value)
    return found


def dump(value: object) -> dict[str, object]:
    """A message as ``json.dumps`` accepts it; tuples, for example, stay tuples."""
    return SCHEMAS[type(value)].dump(value)


class Tagged(Codec[T]):
    """The messages of one channel, tagged by a string at *key* beside their fields."""

    def __init__(self, key: str, kinds: Mapping[str, type[T]]) -> None:
        self.key = key
        self.kinds = kinds
        self._tag = Choice(tuple(kinds))
        self._tags = {kind: tag for tag, kind in kinds.items()}

    def load(self, value: object) -> T:
        if not isinstance(value, dict):
            raise InvalidValueError(" is not an object")
        return load(self.kinds[take(value, self.key, self._tag)], value)

    def dump(self, value: T) -> dict[str, object]:
        return {self.key: self._tags[type(value)], **dump(value)}


class Keyed(Codec[T]):
    """The messages of one channel, each recognized by a key that only it has."""

    def __init__(self, *whole: type[T], **inside: type[T]) -> None:
        """*inside*: messages whose object is at that key; *whole*: those recognized by their first own key."""
        self._inside = inside
        self._whole = {str(SCHEMAS[kind].attributes.members[0].key): kind for kind in whole}
        self._keys = {kind: key for key, kind in inside.items()}

    def load(self, value: object) -> T:
        if not isinstance(value, dict):
            raise InvalidValueError(" is not an object")
        for key, kind in self._inside.items():
            if key in value:
                return take(value, key, nested(kind))
        for key, kind in self._whole.items():
            if key in value:
                return load(kind, value)
        raise InvalidValueError(" is of unknown kind")

    def dump(self, value: T) -> dict[str, object]:
        key = self._keys.get(type(value))
        return {key: dump(value)} if key else dump(value)


def take(value: dict[str, object], key: str, codec: Codec[T]) -> T:
    """Decode and remove *key*, so that what is left in *value* is unknown. Raises InvalidValueError."""
    if key not in value:
        raise InvalidValueError(f" has no {key}")
    try:
        return codec.load(value.pop(key))
    except ValueError as error:
        raise InvalidValueError.inside(key, error) from None


def decode(data: bytes, what: str, read: Callable[[dict[str, object]], T]) -> T:
    """Apply *read* to the JSON object in *data*. Raises ProtocolError, which names the data by *what*."""
    try:
        return read(_json_object(data))
    except ValueError as error:
        raise ProtocolError(str(InvalidValueError.inside(what, error))) from None


def _json_object(data: bytes) -> dict[str, object]:
    try:
        found = json.loads(str(data, "utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise InvalidValueError(" is not JSON") from None
    if not isinstance(found, dict):
        raise InvalidValueError(" is not an object")
    return found


def _no_number(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are Python's extension of JSON
