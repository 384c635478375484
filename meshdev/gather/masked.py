"""Texts and values as they may be in a bug report: whatever looks like a credential is ``***``. PURE.

It is the second net: what is known to be one is never collected (:mod:`meshdev.gather.allowed`). The rules are those of
requests (:mod:`meshdev.observe.masking`), for each line; besides, *secrets* are masked wherever they stand.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from meshdev.observe import masking
from meshdev.text import visible

#: The longest line that is kept, in characters.
MAX_LINE: Final = 1024
#: Literal secrets that are shorter would be found in words.
_SHORTEST: Final = 6
#: The beginning of a line of ours, which would look like the name of a value: ``… INFO meshdev.session:``.
_HEAD: Final = re.compile(r"[\d:.,TZ -]{19,40}(?:[A-Z]+ )?(?:[a-z_]+(?:\.[a-z_]+)*: )?")
#: A word and what follows: ``token XYZ``, ``--password XYZ``, which are no names of parameters.
_FOLLOWED: Final = re.compile(r"(?<![\w-])(?:--?)?([\w-]{2,40})([ =:]+)(?=[^\s]{12,})(\S+)")
_MADE_UP: Final = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[\x21-\x7e]+")
_PEM: Final = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


class Masker:
    """Masks what is put into one archive. *secrets* are known to be such: tokens and passwords of the kubeconfig."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        found = sorted({each for each in secrets if len(each) >= _SHORTEST}, key=len, reverse=True)
        self._secrets = re.compile("|".join(map(re.escape, found))) if found else None

    def text(self, found: str) -> str:
        """A text of several lines."""
        return "\n".join(map(self.line, self._literally(_PEM.sub(masking.MASK, found)).split("\n")))

    def line(self, found: str) -> str:
        """One line, without what a terminal would act on."""
        found = self._literally(found)
        head = _HEAD.match(found)
        at = head.end() if head is not None else 0
        rest = _FOLLOWED.sub(_masked_word, found[at:])
        return visible(found[:at] + masking.text(rest, MAX_LINE))

    def value(self, found: object) -> object:
        """A value of JSON: its texts are masked, and those behind a name that is one of a credential as a whole."""
        if isinstance(found, str):
            return self.text(found)
        if isinstance(found, Mapping):
            return {str(key): self._member(str(key), each) for key, each in found.items()}
        return [self.value(each) for each in found] if isinstance(found, Sequence) else found

    def _member(self, key: str, found: object) -> object:
        return (
            masking.header(key, found) if isinstance(found, str) and masking.is_credential(key) else self.value(found)
        )

    def _literally(self, found: str) -> str:
        return self._secrets.sub(masking.MASK, found) if self._secrets is not None else found


def _masked_word(found: re.Match[str]) -> str:
    """*found* with its value masked, where the name is a credential's and the value looks made up."""
    name, _, value = found.groups()
    if masking.is_credential(name) and _MADE_UP.fullmatch(value) is not None:
        return found[0][: -len(value)] + masking.MASK
    return found[0]
