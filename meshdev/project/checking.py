"""A document against the schema: the library finds what is wrong, here it becomes a sentence with a place."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from jsonschema import Draft7Validator

from meshdev.project.document import Document, Problems

_TYPES: Final = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "object": "a mapping",
    "string": "a text",
}
_LIMITS: Final = {
    "maxItems": "has more than {} items",
    "maxLength": "has more than {} characters",
    "maxProperties": "has more than {} keys",
    "minItems": "is empty",
    "minLength": "is empty",
}


def check(document: Document, schema: Mapping[str, Any]) -> None:
    """Raises ProjectFileError with all that does not fit the schema."""
    problems = Problems(document)
    for error in Draft7Validator(schema).iter_errors(document.value):
        _add(problems, error)
    problems.raise_any()


def _add(problems: Problems, error: Any) -> None:  # noqa: ANN401 -- ValidationError, most of whose attributes have a type for "not set"
    at = tuple(error.absolute_path)
    name: str = error.validator
    value: Any = error.validator_value
    if name == "additionalProperties":
        known = error.schema.get("properties", {})
        for key in error.instance.keys() - known.keys():
            problems.add((*at, key), f"unknown key{_meant(key, known)}", key=True)
    elif name == "pattern" and "propertyNames" in error.absolute_schema_path:
        problems.add((*at, error.instance), f"{error.instance!r} is not {_described(error)}", key=True)
    elif name == "required":
        missing = next(key for key in value if key not in error.instance)
        problems.add(at, f"{missing} is missing", key=True)
    elif name == "type":
        problems.add(at, f"must be {_types(value)}, not {_shown(error.instance)}")
    elif name == "enum":
        one_of = ", ".join(_shown(each) for each in value)
        meant = _meant(error.instance, value) if isinstance(error.instance, str) else ""
        problems.add(at, f"{_shown(error.instance)} is none of {one_of}{meant}")
    elif name == "pattern":
        problems.add(at, f"{error.instance!r} is not {_described(error)}")
    else:
        problems.add(at, _LIMITS[name].format(value))


def _described(error: Any) -> str:  # noqa: ANN401 -- see _add
    described = error.schema.get("description")
    return str(described or error.validator_value)


def _types(wanted: str | list[str]) -> str:
    return " or ".join(_TYPES[each] for each in ([wanted] if isinstance(wanted, str) else wanted))


def _shown(value: object) -> str:
    match value:
        case None:
            return "empty"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case _:
            return str(value)


def _meant(given: str, known: Iterable[str]) -> str:
    """The nearest of those that are known; keys of flags and of Compose files differ in case and dashes only."""
    plain = {each.lower(): each for each in known}
    near = difflib.get_close_matches(given.lower().replace("-", "").replace("_", ""), plain, n=1, cutoff=0.7)
    return f", did you mean {plain[near[0]]}?" if near else ""
