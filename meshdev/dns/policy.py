"""Which names go where: from a query to a plan of attempts. Pure.

The forwarder must not break, slow or take over names that are not the cluster's. With domain ``cluster.local`` and
namespace ``ns`` (of ``connect -n``), ``x`` a label whose standing as a namespace :class:`~meshdev.dns.known.Known`
knows (OURS: known to exist, no public suffix):

===============================  ============================================  ================  ==========  ======
asked                            the cluster is asked for                      former            head start  window
===============================  ============================================  ================  ==========  ======
``*.cluster.local``              the same, bytes untouched                     never
``wpad.ns.svc.cluster.local``    nothing: there is no such name                never
PTR of an address in our routes  the same, bytes untouched                     never
``b.svc``                        ``b.svc.ns.svc.…``, ``b.svc.svc.…``           never
``*.*.svc``                      ``*.*.svc.cluster.local``                     never
``wpad``, ``wpad.*``; isatap     nothing                                       only
the API server, its proxy        nothing                                       only
the laptop's domains             nothing                                       only
``b``                            ``b.ns.svc.…``                                then              300 ms      300 ms
``b.x``, x OURS                  ``b.x.ns.svc.…``, ``b.x.svc.…``               then              30 ms       300 ms
``p.b.x``, x OURS                ``p.b.x.svc.…`` (pod of a headless Service)   then              30 ms       300 ms
``b.x``, x SHARED or POSSIBLE    ``b.x.ns.svc.…``, ``b.x.svc.…``               beside, and wins
``p.b.x``, the same              ``p.b.x.svc.…``                               beside, and wins
``p.b``, b a Service of ns       ``p.b.ns.svc.…`` (pod of a headless Service)  beside, and wins
``_http._tcp.b`` (``.x``)        ``_http._tcp.b.ns.svc.…`` (``.b.x.svc.…``)    as ``b`` (``b.x``)
``1-2-3-4.x.pod``                also ``1-2-3-4.x.pod.cluster.local``          beside, and wins
other names of 2 and 3 labels    nothing                                       only
four labels and more             nothing                                       only
labels no object can have        nothing                                       only
``localhost``, ``*.arpa``, root  nothing                                       only
NS, SOA, DNSSEC types, transfers nothing (only names in the cluster's domain)  only
other classes, UPDATE, NOTIFY    nothing                                       only
===============================  ============================================  ================  ==========  ======

*Former* is the laptop's former resolver. *Then*: during *head start* only the cluster is asked; afterwards both are
asked, and within *window* of the start the cluster's answer counts even if the former resolver has one. Later it counts
only while the former resolver is silent, or within :data:`NEGATIVE_WINDOW` of its negative answer. *Beside, and wins*:
both are asked at once, and the cluster's answer counts only where the former resolver does not have the name, so that a
pod with the hostname ``example`` behind a Service ``test`` does not answer for the public ``example.test``.

The attempts are those of a pod's search list (``ndots:5``: ns.svc.cluster.local, svc.cluster.local, cluster.local)
without those that cannot exist: the names of Kubernetes have fixed shapes (its DNS specification 1.1, sections 2.3 to
2.5). Where the user may list namespaces and Services (or the list of top-level domains decides) most names are known
not to be the cluster's; they are not disclosed to it, nor the cluster's names to others without need.

A stub resolver with our search list asks for ``wpad.ns.svc.cluster.local`` where a program asked for ``wpad``: the two
look the same, and a Service that any tenant of the namespace may create must not become the laptop's proxy.
"""

import contextlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

import dns.name
import dns.opcode
import dns.rdataclass
import dns.rdatatype
from dns.name import Name

from meshdev.dns.known import NEVER, Known, Standing
from meshdev.dns.reverse import reverse_address
from meshdev.dns.tlds import SPECIAL
from meshdev.wire.dns import Query

#: The cluster's head start where the name is likely its own, and how long its answer wins: the table's columns.
CLUSTER_WINDOW: Final = 0.3
PAIR_HEAD_START: Final = 0.03
#: How long to wait for a positive answer of the cluster after a negative one of the former resolver.
NEGATIVE_WINDOW: Final = 2.0

DEFAULT_DOMAIN: Final = "cluster.local"

#: A Kubernetes name (RFC 1123 label), in upper or lower case.
_LABEL: Final = re.compile(rb"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.IGNORECASE)
_SVC: Final = b"svc"
_POD: Final = b"pod"
#: No Kubernetes object has such a name: all are below ``svc`` or ``pod``.
_PROBE: Final = b"meshdev-probe"
#: The API server's Service: a user who reaches the API server as ``kubernetes`` gets the same one.
_API_SERVICE: Final = (b"kubernetes", b"default", b"svc")
#: Types of zones rather than names, for validating stubs (a synthesized answer would break their chain of trust) and
#: transfers.
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
class QueryPlan:
    """What to try for one query; see the table above. Times are in seconds from the start."""

    #: What to ask the cluster for, all at once; the first in this order that exists is the answer.
    names: tuple[Name, ...] = ()
    #: Whether the former resolver may be asked.
    former: bool = False
    #: Whether the former resolver's answer wins where it has the name.
    former_wins: bool = False
    #: Nothing is asked: there is no such name.
    absent: bool = False
    head_start: float = 0.0
    window: float = 0.0


FORMER_ONLY: Final = QueryPlan(former=True)
ABSENT: Final = QueryPlan(absent=True)


@dataclass(frozen=True, slots=True)
class Zone:
    """The cluster's domain, and the namespace of short names."""

    domain: Name
    namespace: str

    @classmethod
    def of(cls, domain: str = DEFAULT_DOMAIN, namespace: str = "default") -> "Zone":
        """From text, with or without a trailing dot."""
        return cls(dns.name.from_text(domain, dns.name.root), namespace)

    @property
    def search(self) -> tuple[str, ...]:
        """The search list of a pod in the namespace."""
        domain = self.domain.to_text(omit_final_dot=True)
        return f"{self.namespace}.svc.{domain}", f"svc.{domain}", domain

    @property
    def domains(self) -> tuple[str, ...]:
        """The suffixes for which only the cluster is asked."""
        return self.domain.to_text(omit_final_dot=True), "svc"

    @property
    def probe(self) -> Name:
        """A name that the forwarder answers itself, as all below it: whoever gets that answer has reached it."""
        return Name((_PROBE, *self.domain.labels))

    def plan(self, query: Query, inside: Callable[[IPv4Address], bool], known: Known) -> QueryPlan:
        """What to try for *query*; *inside* returns whether an address is in one of our routes."""
        name = query.name
        if query.opcode != dns.opcode.QUERY or query.rdclass != dns.rdataclass.IN or name == dns.name.root:
            return FORMER_ONLY
        if name.is_subdomain(self.domain):
            return ABSENT if self._is_expansion_of_kept(name, known) else QueryPlan(names=(name,))
        if query.rdtype == dns.rdatatype.PTR and (address := reverse_address(name)) and inside(address):
            return QueryPlan(names=(name,))
        labels = tuple(label.lower() for label in name.labels[:-1])
        if len(labels) > 1 and labels[-1] == _SVC:
            infixes = self._pair_infixes() if len(labels) == 2 else ((),)
            return QueryPlan(names=self._joined(name, *infixes) if query.plain else ())
        if not query.plain or query.rdtype in _OF_ZONES or known.is_kept(name):
            return FORMER_ONLY
        return self._likely(name, labels, known)

    def _is_expansion_of_kept(self, name: Name, known: Known) -> bool:
        """Whether *name* is what our search list makes of a name that is never the cluster's."""
        below = name.labels[: -len(self.domain.labels)]
        if tuple(label.lower() for label in below) == _API_SERVICE:
            return False
        for infix in (self._namespace_infix(), (_SVC,), ()):
            asked = below[: len(below) - len(infix)]
            if asked and tuple(label.lower() for label in below[len(asked) :]) == infix:
                return (len(asked) == 1 and asked[0].lower() in NEVER) or Name((*asked, b"")) in known.reserved
        return False

    def _likely(self, name: Name, labels: tuple[bytes, ...], known: Known) -> QueryPlan:
        service = len(labels) > 2 and labels[0].startswith(b"_") and labels[1].startswith(b"_")
        named = labels[2:] if service else labels
        if len(named) > 3 or not all(_LABEL.fullmatch(label) for label in named):
            return FORMER_ONLY
        if len(named) == 1:
            names = self._joined(name, self._namespace_infix())
            plan = QueryPlan(names, former=True, head_start=CLUSTER_WINDOW, window=CLUSTER_WINDOW)
            return FORMER_ONLY if named[0] in SPECIAL or not names else plan
        standing = known.namespace(named[-1])
        names = self._joined(name, *self._infixes(named, standing, known, service=service))
        if not names:
            return FORMER_ONLY
        if standing is Standing.OURS:
            return QueryPlan(names, former=True, head_start=PAIR_HEAD_START, window=CLUSTER_WINDOW)
        return QueryPlan(names, former=True, former_wins=True)

    def _infixes(
        self, named: tuple[bytes, ...], standing: Standing, known: Known, *, service: bool
    ) -> list[tuple[bytes, ...]]:
        """The labels between a name of two or three labels and the domain, where the cluster may have it."""
        infixes: list[tuple[bytes, ...]] = []
        if len(named) == 2 and not service and known.service(named[-1]):
            infixes.append(self._namespace_infix())
        if standing is not Standing.NONE and not (len(named) == 3 and service):
            infixes.append((_SVC,))
        if len(named) == 3 and not service and named[-1] == _POD:
            infixes.append(())
        return infixes

    def _namespace_infix(self) -> tuple[bytes, ...]:
        return self.namespace.encode("ascii"), _SVC

    def _pair_infixes(self) -> tuple[tuple[bytes, ...], ...]:
        return self._namespace_infix(), (_SVC,)

    def _joined(self, name: Name, *infixes: tuple[bytes, ...]) -> tuple[Name, ...]:
        """*name*, each infix and the domain as one name, without those that would be too long."""
        names = []
        for infix in infixes:
            with contextlib.suppress(dns.name.NameTooLong):
                names.append(Name((*name.labels[:-1], *infix, *self.domain.labels)))
        return tuple(names)


def domain_of(search: Sequence[str]) -> str:
    """The cluster's domain, from a pod's search list (``ns.svc.DOMAIN svc.DOMAIN DOMAIN …``)."""
    for entry in search:
        if entry.startswith("svc."):
            return entry.removeprefix("svc.").rstrip(".")
    return DEFAULT_DOMAIN
