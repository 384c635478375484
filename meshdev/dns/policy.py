"""Which names go where: from a question to a plan of tries. Pure.

The forwarder is asked for every name of the laptop and must neither break nor slow what is not the cluster's. With
domain ``cluster.local`` and namespace ``ns`` (of ``connect -n``):

==============================  =====================================================  =========  ==========  =======
asked                           the cluster is asked for                               former     head start  window
==============================  =====================================================  =========  ==========  =======
``*.cluster.local``             the same, bytes untouched                              never
PTR of an address in our routes the same, bytes untouched                              never
``b.svc``                       ``b.svc.ns.svc.…``, ``b.svc.svc.…``                    never
``*.*.svc``                     ``*.*.svc.cluster.local``                              never
``b``                           ``b.ns.svc.…``                                         then       300 ms      300 ms
``b.x``                         ``b.x.ns.svc.…`` (pod of a headless Service),          then       30 ms       300 ms
                                ``b.x.svc.…`` (Service in another namespace)
``_http._tcp.b`` (``.x``)       ``_http._tcp.b.ns.svc.…`` (``_http._tcp.b.x.svc.…``)   as ``b`` (``b.x``)
``p.b.x``                       ``p.b.x.svc.…`` (pod of a headless Service)            alongside  0           100 ms
``1-2-3-4.x.pod``               also ``1-2-3-4.x.pod.cluster.local``                   alongside  0           100 ms
four labels and more            nothing                                                only
labels no object can have       nothing                                                only
``localhost``, ``*.arpa``, root nothing                                                only
NS, SOA, DNSSEC types, transfers nothing (only names inside the cluster's domain)       only
other classes, UPDATE, NOTIFY   nothing                                                only
==============================  =====================================================  =========  ==========  =======

*Former* is the resolver that the laptop had. In *head start* the cluster alone knows of the name; afterwards both are
asked at once, and within *window* of the start the cluster's word counts even where the former resolver has an answer
(``api.dev`` may be a Service here and a public name there; in a pod the Service wins). Later only where the former
resolver is still silent, or for :data:`NEGATIVE_WINDOW` where it says no.

The tries are those of a pod's search list (``ndots:5``: ns.svc.cluster.local, svc.cluster.local, cluster.local) less
those that cannot exist: the names of Kubernetes have fixed shapes (its DNS specification 1.1, sections 2.3 to 2.5), so
``www.example.test`` can only be pod *www* of Service *example* in namespace *test*. It costs one packet beside the one
that is sent anyway, and a delay only where the cluster answers later than the former resolver, 100 ms at the most.
Github.com looks like a Service in namespace *com*: it waits for the cluster's no, a few milliseconds as a rule, 30 ms
before the former resolver is asked too; names of the cluster are not told to others without need.
"""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Final

import dns.name
import dns.opcode
import dns.rdataclass
import dns.rdatatype
from dns.name import Name

from meshdev.wire.dns import Query

#: What the cluster gets for itself where its name is likely, and how long its word counts (design: D11).
CLUSTER_WINDOW: Final = 0.3
PAIR_HEAD_START: Final = 0.03
PUBLIC_WINDOW: Final = 0.1
#: How long the cluster may still say yes after the former resolver has said no: a yes is worth waiting for.
NEGATIVE_WINDOW: Final = 2.0

DEFAULT_DOMAIN: Final = "cluster.local"

#: A name of Kubernetes (RFC 1123 label), in any case.
_LABEL: Final = re.compile(rb"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.IGNORECASE)
_SVC: Final = b"svc"
_POD: Final = b"pod"
#: No Kubernetes object has such a name: one label below the domain is none of its names.
_PROBE: Final = b"meshdev-probe"
_REVERSE: Final = dns.name.from_text("in-addr.arpa.")
#: RFC 6761: localhost stays on the machine; everything below arpa has a structure of its own.
_RESERVED: Final = frozenset({b"localhost", b"arpa"})
#: Types that are asked of zones, not of names, by validating stubs (a made-up answer would break their chain of trust)
#: and for transfers.
_OF_ZONES: Final = frozenset(
    {
        dns.rdatatype.NS,
        dns.rdatatype.SOA,
        dns.rdatatype.DS,
        dns.rdatatype.DNSKEY,
        dns.rdatatype.RRSIG,
        dns.rdatatype.NSEC,
        dns.rdatatype.NSEC3,
        dns.rdatatype.NSEC3PARAM,
        dns.rdatatype.CDS,
        dns.rdatatype.CDNSKEY,
        dns.rdatatype.AXFR,
        dns.rdatatype.IXFR,
    }
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to try for one question; see the table above. Seconds count from the start."""

    #: What to ask the cluster for, at once; the first in this order that exists is the answer.
    names: tuple[Name, ...] = ()
    #: Whether the former resolver may be asked.
    former: bool = False
    head_start: float = 0.0
    window: float = 0.0


FORMER_ONLY: Final = Plan(former=True)


@dataclass(frozen=True, slots=True)
class Zone:
    """The cluster's side of the names: its domain and the namespace that short names mean."""

    domain: Name
    namespace: str

    @classmethod
    def of(cls, domain: str = DEFAULT_DOMAIN, namespace: str = "default") -> "Zone":
        """From text, with or without the last dot."""
        return cls(dns.name.from_text(domain, dns.name.root), namespace)

    @property
    def search(self) -> tuple[str, ...]:
        """The search list of a pod in the namespace."""
        domain = self.domain.to_text(omit_final_dot=True)
        return f"{self.namespace}.svc.{domain}", f"svc.{domain}", domain

    @property
    def domains(self) -> tuple[str, ...]:
        """The suffixes that only the cluster is asked for."""
        return self.domain.to_text(omit_final_dot=True), "svc"

    @property
    def probe(self) -> Name:
        """A name that the forwarder answers by itself: whoever gets that answer has reached it."""
        return Name((_PROBE, *self.domain.labels))

    def plan(self, query: Query, inside: Callable[[IPv4Address], bool]) -> Plan:
        """What to try for *query*; *inside* tells whether an address lies in one of our routes."""
        name = query.name
        if query.opcode != dns.opcode.QUERY or query.rdclass != dns.rdataclass.IN or name == dns.name.root:
            return FORMER_ONLY
        if name.is_subdomain(self.domain):
            return Plan(names=(name,))
        if query.rdtype == dns.rdatatype.PTR and (address := reverse_address(name)) and inside(address):
            return Plan(names=(name,))
        labels = tuple(label.lower() for label in name.labels[:-1])
        if len(labels) > 1 and labels[-1] == _SVC:
            infixes = self._pair_infixes() if len(labels) == 2 else ((),)
            return Plan(names=self._joined(name, *infixes) if query.plain else ())
        if not query.plain or query.rdtype in _OF_ZONES:
            return FORMER_ONLY
        return self._likely(name, labels)

    def _likely(self, name: Name, labels: tuple[bytes, ...]) -> Plan:
        service = len(labels) > 2 and labels[0].startswith(b"_") and labels[1].startswith(b"_")
        named = labels[2:] if service else labels
        if named[-1] in _RESERVED or not all(_LABEL.fullmatch(label) for label in named):
            return FORMER_ONLY
        match len(named):
            case 1:
                names = self._joined(name, self._namespace_infix())
                plan = Plan(names, former=True, head_start=CLUSTER_WINDOW, window=CLUSTER_WINDOW)
            case 2:
                names = self._joined(name, *([(_SVC,)] if service else self._pair_infixes()))
                plan = Plan(names, former=True, head_start=PAIR_HEAD_START, window=CLUSTER_WINDOW)
            case 3 if not service:
                names = self._joined(name, *([(_SVC,), ()] if named[-1] == _POD else [(_SVC,)]))
                plan = Plan(names, former=True, window=PUBLIC_WINDOW)
            case _:
                plan = FORMER_ONLY
        return plan if plan.names else FORMER_ONLY

    def _namespace_infix(self) -> tuple[bytes, ...]:
        return self.namespace.encode("ascii"), _SVC

    def _pair_infixes(self) -> tuple[tuple[bytes, ...], ...]:
        return self._namespace_infix(), (_SVC,)

    def _joined(self, name: Name, *infixes: tuple[bytes, ...]) -> tuple[Name, ...]:
        """*name*, each infix and the domain as one name; less those that would be too long for a name."""
        names = []
        for infix in infixes:
            with contextlib.suppress(dns.name.NameTooLong):
                names.append(Name((*name.labels[:-1], *infix, *self.domain.labels)))
        return tuple(names)


def reverse_address(name: Name) -> IPv4Address | None:
    """The address whose PTR name (RFC 1035 section 3.5) *name* is."""
    if len(name.labels) != 7 or not name.is_subdomain(_REVERSE):
        return None
    try:
        return IPv4Address(b".".join(reversed(name.labels[:4])).decode("ascii"))
    except (AddressValueError, UnicodeDecodeError):
        return None


def domain_of(search: Sequence[str]) -> str:
    """The cluster's domain by a pod's search list (``ns.svc.DOMAIN svc.DOMAIN DOMAIN …``)."""
    for entry in search:
        if entry.startswith("svc."):
            return entry.removeprefix("svc.").rstrip(".")
    return DEFAULT_DOMAIN
