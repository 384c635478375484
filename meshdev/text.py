"""Text for people: strings from elsewhere (API servers, webhooks, Leases) made safe to print; ages; lists cut short."""

import re
from collections.abc import Sequence
from typing import Final

#: Ages below so many seconds: the unit to count, and a smaller one for the rest (of a whole day, none).
_AGES: Final = (
    (120, 1, "s", 1, ""),
    (600, 60, "m", 1, "s"),
    (3 * 3600, 60, "m", 60, ""),
    (8 * 3600, 3600, "h", 60, "m"),
    (48 * 3600, 3600, "h", 3600, ""),
    (8 * 86400, 86400, "d", 3600, "h"),
    (float("inf"), 86400, "d", 86400, ""),
)
_USER_INFO: Final = re.compile(r"(?<=//)[^/?#\s]*@")


def visible(text: str) -> str:
    """*text* in one line that no terminal acts on: whatever is not printable stands as Python writes it.

    That is control characters and with them ANSI sequences, newlines, marks that turn the direction of what follows
    (Trojan Source, CVE-2021-42574), separators that look like a blank, and lone surrogates. Twice is like once.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def visible_lines(text: str) -> str:
    """The same for text of several lines: newlines and tabs stay."""
    return "".join(letter if letter in "\n\t" else visible(letter) for letter in text)


def without_user_info(url: str) -> str:
    """*url* without ``user:password@``; also where it cannot be parsed."""
    return _USER_INFO.sub("", url)


def age(seconds: float) -> str:
    """As kubectl shows it (k8s.io/apimachinery/pkg/util/duration: HumanDuration): 45s, 12m, 3h20m, 2d."""
    whole = max(0, int(seconds))
    _, unit, name, smaller, its_name = next(each for each in _AGES if whole < each[0])
    number, rest = divmod(whole, unit)
    return f"{number}{name}" + (f"{rest // smaller}{its_name}" if rest // smaller else "")


def first_few(items: Sequence[object], most: int = 3) -> str:
    """The first *most* items, and the number of the others: ``a, b, c and 2 more``."""
    shown = ", ".join(map(str, items[:most]))
    return shown if len(items) <= most else f"{shown} and {len(items) - most} more"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
