"""Whether a text is an expression that RE2 takes, and where it is not: Envoy would refuse the route otherwise.

A subset of https://github.com/google/re2/wiki/Syntax: what is accepted here RE2 accepts, too, in the size that Envoy
allows and in milliseconds (docs/design/0015 says why RE2 itself is not asked). To Envoy each byte is a character. Left
out are Unicode classes (\\p), \\Q…\\E, \\C and octal escapes. What Python knows and RE2 does not is named.
"""

import re
from typing import Final

#: RE2 repeats at most 1000 times; expressions that expand to more atoms than that are of no use on a header.
MAX_SIZE: Final = 1000
MAX_DEPTH: Final = 100
#: Members of a class that weigh as one atom: 1000 classes of so many stay below Envoy's limit of 65,536 instructions.
_MEMBERS: Final = 8

_REPEAT: Final = re.compile(r"\{(\d{1,9})(?:(,)(\d{1,9})?)?\}", re.ASCII)
_GROUP: Final = re.compile(r"\?(?:P<([A-Za-z_]\w*)>|([imsU]*(?:-[imsU]+)?)([:)]))", re.ASCII)
_ESCAPE: Final = re.compile(r"\\(?:[dDsSwWafnrtvbBAz]|x[0-9A-Fa-f]{2}|x\{0{0,4}[0-9A-Fa-f]{1,2}\}|[!-/:-@\[-`{-~])")
_POSIX: Final = re.compile(
    r"\[:\^?(?:alnum|alpha|ascii|blank|cntrl|digit|graph|lower|print|punct|space|upper|word|xdigit):\]"
)
_UNKNOWN: Final = {
    "(?=": "lookahead",
    "(?!": "lookahead",
    "(?<": "lookbehind or a group's name without P",
    "(?>": "atomic groups",
    "(?P=": "backreferences",
    "(?#": "comments",
    "(?(": "conditions",
}


def check(text: str) -> tuple[str, int] | None:
    """What is wrong and at which character (from 0); None for an expression that can be used."""
    try:
        _Reader(text).expression()
    except _Wrong as wrong:
        return wrong.message, wrong.at
    return None


class _Wrong(Exception):  # noqa: N818 -- never leaves this file
    def __init__(self, message: str, at: int) -> None:
        super().__init__(message)
        self.message, self.at = message, at


class _Group:
    """An open parenthesis: where it is, and how many atoms it expands to."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.size = 0


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._open = [_Group(-1)]
        self._names: set[str] = set()
        self._last: int | None = None  # the size of what a repetition would repeat

    def expression(self) -> None:
        if not self._text:
            raise _Wrong("the expression is empty", 0)
        while self._at < len(self._text):
            self._next(self._text[self._at])
        if len(self._open) > 1:
            raise _Wrong("the ( is never closed", self._open[-1].at)

    def _next(self, letter: str) -> None:
        match letter:
            case "(":
                self._enter()
            case ")":
                self._leave()
            case "|" | "^" | "$":
                self._skip(1)
            case "*" | "+" | "?":
                self._repeated(letter, 1, 2)
            case "{" if found := _REPEAT.match(self._text, self._at):
                self._counted(found)
            case "[":
                self._class()
            case "\\":
                anchor = self._escape()[1] in "bBAz"
                self._last = None if anchor else self._grown(1)
            case _:
                self._at += 1
                self._last = self._grown(1)

    def _skip(self, count: int) -> None:
        self._at += count
        self._last = None

    def _grown(self, size: int, at: int | None = None) -> int:
        group = self._open[-1]
        group.size += size
        if group.size > MAX_SIZE:
            raise _Wrong(
                f"the expression stands for more than {MAX_SIZE} characters", self._at - 1 if at is None else at
            )
        return size

    def _enter(self) -> None:
        start = self._at
        if len(self._open) > MAX_DEPTH:
            raise _Wrong("too many parentheses in each other", start)
        self._skip(1)
        if self._text.startswith("?", self._at):
            found = _GROUP.match(self._text, self._at)
            if found is None:
                raise self._no_group(start)
            self._skip(found.end() - self._at)
            name, flags, end = found.groups()
            if name is not None and name in self._names:
                raise _Wrong(f"two groups are named {name}", start)
            if end == ")" and not flags:
                raise _Wrong("(?) means nothing", start)
            self._names.add(name or "")
            if end == ")":
                return  # flags for the rest
        self._open.append(_Group(start))

    def _no_group(self, start: int) -> _Wrong:
        for beginning, name in _UNKNOWN.items():
            if self._text.startswith(beginning, start):
                return _Wrong(f"RE2 has no {name}", start)
        return _Wrong("(? is followed by nothing that RE2 knows", start)

    def _leave(self) -> None:
        if len(self._open) == 1:
            raise _Wrong("the ) closes nothing", self._at)
        group = self._open.pop()
        self._at += 1
        self._last = self._grown(max(group.size, 1))

    def _repeated(self, operator: str, least: int, times: int) -> None:
        if self._last is None:
            raise _Wrong(f"{operator} has nothing to repeat", self._at)
        self._grown(self._last * (max(times, least, 1) - 1), self._at)
        self._skip(len(operator))
        if self._text.startswith("?", self._at):
            self._skip(1)  # as few as possible
        elif self._text.startswith("+", self._at):
            raise _Wrong("RE2 has no possessive repetition", self._at)

    def _counted(self, found: re.Match[str]) -> None:
        least = int(found[1])
        most = int(found[3]) if found[3] else least
        if max(least, most) > 1000 or least > most:
            raise _Wrong(f"{found[0]} is no repetition (at most 1000, the smaller number first)", self._at)
        self._repeated(found[0], least, most + (1 if found[2] and not found[3] else 0))

    def _escape(self) -> str:
        found = _ESCAPE.match(self._text, self._at)
        if found is None:
            written = self._text[self._at : self._at + 2]
            if written == "\\":
                raise _Wrong("\\ at the end escapes nothing", self._at)
            raise _Wrong(
                f"{written} is {'a backreference, which RE2 has not' if written[1].isdecimal() else 'unknown'}",
                self._at,
            )
        self._at = found.end()
        return found[0]

    def _class(self) -> None:
        start = self._at
        self._at += 2 if self._text.startswith("[^", start) else 1
        first, count = self._at, 0
        while self._at == first or not self._text.startswith("]", self._at):
            if self._at >= len(self._text):
                raise _Wrong("the [ is never closed", start)
            begun, count = self._at, count + 1
            low = self._member()
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                if self._at >= len(self._text):
                    raise _Wrong("the [ is never closed", start)
                high = self._member()
                if low is None or high is None or low > high:
                    raise _Wrong("this is no range of characters", begun)
        self._at += 1
        self._last = self._grown(1 + count // _MEMBERS)

    def _member(self) -> int | None:
        """One character of a class as its code, None for a class in the class."""
        text, at = self._text, self._at
        if text.startswith("[:", at):
            found = _POSIX.match(text, at)
            if found is None:
                raise _Wrong("[: begins no class that RE2 knows", at)
            self._at = found.end()
            return None
        if text[at] != "\\":
            self._at += 1
            return ord(text[at])
        escape = self._escape()
        if escape[1] in "bBAz":
            raise _Wrong(f"{escape} cannot stand in a class", at)
        if escape[1] in "dDsSwW":
            return None
        if escape[1] == "x":
            return int(escape[2:].strip("{}"), 16)
        return ord({"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}.get(escape[1], escape[1]))
