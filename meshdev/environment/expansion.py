"""References to variables, ``$(NAME)``, as in k8s.io/kubernetes/third_party/forked/golang/expansion."""

import re
from collections.abc import Callable
from typing import Final

#: An escaped operator, or a reference that is closed. Any other ``$`` stands for itself, as does ``$(`` without an end.
_SYNTAX: Final = re.compile(r"\$(?:(?P<escaped>\$)|\((?P<name>[^)]*)\))", re.DOTALL)


#: More than the kernel takes as arguments and environment of a program together (execve(2): 6 MiB).
MAX_EXPANDED: Final = 8 << 20


class ExpansionError(ValueError):
    """A text would become longer than it may be."""


def expand(text: str, value_of: Callable[[str], str | None], most: int = MAX_EXPANDED) -> str:
    """*text* with its references replaced once; those to what *value_of* does not know stay. ``$$`` is ``$``.

    Raises ExpansionError where the values need more than *most* characters: ten variables of ten references each to
    the one before are no container's, and would fill the memory.
    """
    left = most

    def replaced(found: re.Match[str]) -> str:
        nonlocal left
        if found["escaped"]:
            return "$"
        value = value_of(found["name"])
        if value is None:
            return found[0]
        left -= len(value)
        if left < 0:
            raise ExpansionError("its references make it too long")
        return value

    return _SYNTAX.sub(replaced, text)
