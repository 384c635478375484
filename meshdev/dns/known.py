"""What is known to exist in the cluster and on the laptop, which decides what a name may mean. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import dns.name
from dns.name import Name

from meshdev.dns.tlds import PRIVATE, SPECIAL, TOP_LEVEL

#: Names by which programs discover a proxy or a tunnel (WPAD, RFC 5214 section 9): whoever may create a Service of that
#: name would see the laptop's traffic. And RFC 6761: localhost stays on the machine.
NEVER: Final = frozenset({b"wpad", b"isatap", b"localhost"})


class Standing(Enum):
    """What a label is as the name of a namespace."""

    #: It exists, and other names do not end with it.
    OURS = 1
    #: It exists, and other names end with it, too (``dev``, ``app``, ``internal``).
    SHARED = 2
    #: It is unknown whether it exists.
    POSSIBLE = 3
    NONE = 4


@dataclass(frozen=True, slots=True)
class Known:
    """Labels are in lower case."""

    #: Namespaces that exist, and whether these are all.
    namespaces: frozenset[bytes] = frozenset()
    complete: bool = False
    #: All Services of the connected namespace; None: unknown.
    services: frozenset[bytes] | None = None
    #: Domains in the laptop's own configuration.
    foreign: frozenset[Name] = frozenset()
    #: Names that the tunnel itself needs: those of the API server and its proxy.
    reserved: frozenset[Name] = frozenset()

    def namespace(self, label: bytes) -> Standing:
        """What *label* is as a namespace."""
        if label in SPECIAL:
            return Standing.NONE
        if label in self.namespaces:
            return Standing.SHARED if is_public(label) else Standing.OURS
        return Standing.NONE if self.complete or is_public(label) else Standing.POSSIBLE

    def service(self, label: bytes) -> bool:
        """Whether *label* may be a Service of the connected namespace."""
        if label in SPECIAL:
            return False
        return label in self.services if self.services is not None else not is_public(label)

    def is_foreign(self, name: Name) -> bool:
        """Whether *name* is in one of the laptop's own domains, or needed by the tunnel itself."""
        return name in self.reserved or any(name.is_subdomain(domain) for domain in self.foreign)

    def is_kept(self, name: Name) -> bool:
        """Whether the cluster is never asked for *name*, even if it has it."""
        return name.labels[0].lower() in NEVER or self.is_foreign(name)

    @property
    def suffixes(self) -> tuple[str, ...]:
        """The namespaces with which only names of the cluster end."""
        ours = (label for label in self.namespaces if self.namespace(label) is Standing.OURS)
        return tuple(sorted(label.decode("ascii") for label in ours if not self.is_foreign(Name((label, b"")))))


def is_public(label: bytes) -> bool:
    """Whether names outside the cluster are known to end with *label*."""
    return label in TOP_LEVEL or label in PRIVATE


def domains(texts: Iterable[str]) -> frozenset[Name]:
    """The domains of a search list, without the root and what is not a name."""
    found = set()
    for text in texts:
        try:
            name = dns.name.from_text(text)
        except dns.exception.DNSException:
            continue
        if name != dns.name.root:
            found.add(name)
    return frozenset(found)
