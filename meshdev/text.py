"""Other people's words on this machine's terminal and in its logs: API servers, webhooks, proxies, managers, Leases."""

import re
from typing import Final

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
    """*url* without ``user:password@``; also where it cannot be taken apart."""
    return _USER_INFO.sub("", url)


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")
