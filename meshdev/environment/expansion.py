"""References to variables, ``$(NAME)``, as in k8s.io/kubernetes/third_party/forked/golang/expansion."""

import re
from collections.abc import Callable
from typing import Final

#: An escaped operator, or a reference that is closed. Any other ``$`` stands for itself, as does ``$(`` without an end.
_SYNTAX: Final = re.compile(r"\$(?:(?P<escaped>\$)|\((?P<name>[^)]*)\))", re.DOTALL)


def expand(text: str, value_of: Callable[[str], str | None]) -> str:
    """*text* with its references replaced once; those to what *value_of* does not know stay. ``$$`` is ``$``."""

    def replaced(found: re.Match[str]) -> str:
        if found["escaped"]:
            return "$"
        value = value_of(found["name"])
        return found[0] if value is None else value

    return _SYNTAX.sub(replaced, text)
