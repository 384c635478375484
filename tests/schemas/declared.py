"""From a declared message to a JSON schema."""

from typing import Any

from meshdev.wire.codecs import Choice, Codec, Flag, Integer, Many, Nullable, Number, Pairs, Parsed, Text
from meshdev.wire.message import _MISSING, FLAT, SCHEMAS, Schema, _Object
from meshdev.wire.modes import MODE, MODES
from meshdev.wire.objects import Line
from meshdev.wire.session_api import DnsStatus, _Dns

JsonSchema = dict[str, Any]


def message_schema(kind: type) -> JsonSchema:
    """Of what ``dump`` makes of a message of that *kind*."""
    return of(SCHEMAS[kind])


def of(codec: Codec[Any]) -> JsonSchema:  # noqa: C901, PLR0911 -- one case for each codec
    """Of what the codec sends. Unknown keys are allowed everywhere: later versions add some."""
    if codec is MODE:
        return {"type": "string", "enum": list(MODES)}
    match codec:
        case Flag():
            return {"type": "boolean"}
        case Integer(low=low, high=high):
            return {"type": "integer", "minimum": low, "maximum": high}
        case Number(low=low, high=high):
            return {"type": "number", "minimum": low, "maximum": high}
        case Text(limit=limit) | Parsed(limit=limit) | Line(limit=limit):
            return {"type": "string", "maxLength": limit}
        case Choice(allowed=allowed):
            return {"type": "string", "enum": list(allowed)}
        case Nullable(item=item):
            return _or_null(of(item))
        case Many(item=item, most=most):
            return {"type": "array", "items": of(item), "maxItems": most}
        case Pairs(item=item, most=most):
            return {"type": "object", "additionalProperties": of(item), "maxProperties": most}
        case Schema(attributes=attributes, kind=kind):
            description = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
            return {"description": description.replace("``", "`"), **of(attributes)}
        case _Object():
            return _object(codec)
        case _Dns():
            return {"anyOf": [{"type": "object", "maxProperties": 0}, message_schema(DnsStatus)]}
        case _:
            raise NotImplementedError(type(codec).__name__)


def _object(found: _Object) -> JsonSchema:
    properties: JsonSchema = {}
    required: list[str] = []
    for member in found.members:
        inner = of(member.codec)
        if member.key is None or member.key == FLAT:
            properties |= inner["properties"]
            required += inner["required"]
            continue
        properties[member.key] = inner
        if member.omitted is _MISSING:
            required.append(member.key)
    return {"type": "object", "properties": properties, "required": required}


def _or_null(schema: JsonSchema) -> JsonSchema:
    if "enum" in schema or "properties" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}
