"""Answers that Envoy makes itself give the reason: a body that begins with ``meshdev:`` and a header.

What an app answers never passes here. The reasons are stable; docs/intercepts.md lists them.
"""

from typing import Any, Final

from meshdev.sidecar.envoy import names

Object = dict[str, Any]

HEADER: Final = "meshdev-answer"

#: Reason, Envoy's response flags (access log documentation, "%RESPONSE_FLAGS%"), beginning of the body. The first that
#: fits counts.
_BY_FLAGS: Final = (
    ("not-reached", ("UF", "UH"), f"%METADATA(ROUTE:{names.METADATA}:{names.END})%: %LOCAL_REPLY_BODY%"),
    ("invalid-answer", ("UPE",), f"%METADATA(ROUTE:{names.METADATA}:{names.END})%: its answer is no HTTP: %DETAILS%"),
    ("connection-lost", ("UC", "UR", "LR"), f"%METADATA(ROUTE:{names.METADATA}:{names.END})%: %LOCAL_REPLY_BODY%"),
    ("timeout", ("UT", "SI", "DT", "UMSDR"), "no answer in time: %DETAILS%"),
    ("overloaded", ("UO", "OM"), "the sidecar has no room for this request: %DETAILS%"),
    ("no-route", ("NR", "NC"), "no route for this request: %DETAILS%"),
)
_BY_STATUS: Final = (
    ("too-large", (413, 431), "this request is too large: %DETAILS%"),
    ("invalid-request", (400, 501), "no HTTP that a proxy can pass on: %DETAILS%"),
    ("no-route", (404,), "no route for this request: %DETAILS%"),
    # Without a flag: the overload manager (bootstrap) answers before there is a route.
    ("overloaded", (503,), "the sidecar has no room for this request: %DETAILS%"),
    ("upgrade-refused", (403, 426), "this upgrade cannot be passed on: %DETAILS%"),
)
_OTHER: Final = ("refused", "the sidecar refused this request: %DETAILS%")
REASONS: Final = frozenset((*(reason for reason, _, _ in (*_BY_STATUS, *_BY_FLAGS)), _OTHER[0]))


def local_replies() -> Object:
    """The connection manager's ``local_reply_config``."""
    mappers = [
        _mapper({"response_flag_filter": {"flags": list(flags)}}, reason, text) for reason, flags, text in _BY_FLAGS
    ]
    for reason, statuses, text in _BY_STATUS:
        mappers += [_mapper(_status("EQ", status), reason, text) for status in statuses]
    return {"mappers": [*mappers, _mapper(_status("GE", 0), *_OTHER)]}


def _mapper(which: Object, reason: str, text: str) -> Object:
    body = f"meshdev: {text}\n".replace("%DETAILS%", "%RESPONSE_CODE_DETAILS%")
    header = {"header": {"key": HEADER, "value": reason}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    return {
        "filter": which,
        "headers_to_add": [header],
        "body_format_override": {"text_format_source": {"inline_string": body}},
    }


def _status(comparison: str, value: int) -> Object:
    # Envoy asks for a name by which the value could be changed at run time.
    return {
        "status_code_filter": {
            "comparison": {"op": comparison, "value": {"default_value": value, "runtime_key": "meshdev.none"}}
        }
    }
