"""What conditions may consist of: rules of HTTP, W3C and Envoy, and the place where a text breaks one."""

import re
from collections.abc import Callable
from typing import Final

#: Characters of a header's name or a member's key, and of a value.
MAX_NAME: Final = 256
MAX_VALUE: Final = 1024

Check = Callable[[str], str]

# Not compiled here: few commands need one, and `re` keeps those that it was given.
_TCHARS: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]*"  # RFC 9110, 5.6.2
#: RFC 9110, 5.5: no control characters; nor what is no UTF-8, as odd bytes of a command line become.
_FIELD: Final = r"[\t -~\x80-\ud7ff\ue000-\U0010ffff]*"
_PATH: Final = r"[!-\"$->@-~]*"  # printable, but "?" and "#", which end a path, and space
#: W3C Baggage, 3.3.1: a value is percent-encoded where it needs to be.
_BAGGAGE: Final = r"[!#-+\--:<-\[\]-~]*"
#: W3C Trace Context, 3.3.1.3.
_STATE_KEY: Final = r"[a-z][a-z0-9_*/-]*|[a-z0-9][a-z0-9_*/-]*@[a-z][a-z0-9_*/-]*"
_STATE_VALUE: Final = r"[ -+\--<>-~]*"

#: These belong to one connection: Envoy reads and removes them before it looks for a route (RFC 9110, 7.6.1).
_PER_CONNECTION: Final = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding"})


class Fault(ValueError):  # noqa: N818 -- of a text, not of the program
    """What is wrong with a text, and *at* which of its characters, counted from 0."""

    def __init__(self, message: str, at: int = 0, hint: str | None = None) -> None:
        super().__init__(message)
        self.at = at
        self.hint = hint


def shifted(by: int, check: Check, text: str) -> str:
    """*check* of a text that begins at the character *by* of a longer one."""
    try:
        return check(text)
    except Fault as fault:
        fault.at += by
        raise


def header_name(text: str) -> str:
    """The name of a header, in lower case."""
    _token(text, "a header's name", MAX_NAME)
    if text.lower() in _PER_CONNECTION:
        raise Fault(f"the header {text} belongs to one connection and is not there to be matched")
    return text.lower()


def header_value(text: str) -> str:
    """What a header can be equal to: HTTP drops blanks at both ends."""
    _within(text, _FIELD, "a header's value", MAX_VALUE)
    if text != text.strip(" \t"):
        raise Fault("a header's value never begins or ends with a blank", 0 if text[0] in " \t" else len(text) - 1)
    return text


def regex(text: str) -> str:
    """An expression of RE2 that is to match the whole value."""
    _within(text, _FIELD, "an expression", MAX_VALUE)
    from meshdev.intercept import re2  # noqa: PLC0415 -- few matches have an expression

    if (found := re2.check(text)) is not None:
        raise Fault(*found)
    return text


def nothing(text: str) -> str:
    """The value of a condition that has none."""
    if text:
        raise Fault("there is no value to compare")
    return text


def path_prefix(text: str) -> str:
    """The beginning of a path."""
    if not text.startswith("/"):
        raise Fault("a path begins with /")
    return _within(text, _PATH, "a path", MAX_VALUE)


def method(text: str) -> str:
    """An HTTP method; case matters, and all in use are upper case."""
    _token(text, "a method", 32)
    return text.upper()


def baggage_key(text: str) -> str:
    """The key of a member of ``baggage``."""
    return _token(text, "a key of baggage", MAX_NAME)


def baggage_value(text: str) -> str:
    """The value of a member of ``baggage``, as it stands in the header."""
    return _within(text, _BAGGAGE, "a value of baggage (percent-encode it)", MAX_VALUE)


def tracestate_key(text: str) -> str:
    """The key of a member of ``tracestate``, with its tenant where it has one."""
    if re.fullmatch(_STATE_KEY, text) is None or len(text) > MAX_NAME:
        raise Fault(f"{text!r} is not a key of tracestate: lower-case letters, digits and _-*/, with at most one @")
    return text


def tracestate_value(text: str) -> str:
    """The value of a member of ``tracestate``."""
    _within(text, _STATE_VALUE, "a value of tracestate", 256)
    if not text or text[-1] == " ":
        raise Fault("a value of tracestate is not empty and does not end with a blank", max(len(text) - 1, 0))
    return text


def _token(text: str, what: str, limit: int) -> str:
    if not text:
        raise Fault(f"{what} is missing")
    return _within(text, _TCHARS, what, limit)


def _within(text: str, allowed: str, what: str, limit: int) -> str:
    found = re.match(allowed, text)
    end = found.end() if found else 0
    if end < len(text):
        raise Fault(f"{text[end]!r} cannot stand in {what}", end)
    if len(text) > limit:
        raise Fault(f"{what} is longer than {limit} characters", limit)
    return text
