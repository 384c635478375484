"""Which claims on one workload exclude each other, and which of them yields.

* An exclusive mode (proxy) allows no other intercept on the workload.
* Equal matches exclude each other where they have a port in common.
* Different matches can coexist; :func:`meshdev.intercept.match.specificity` decides request by request.
"""

from collections.abc import Iterable

from meshdev.errors import InterceptError
from meshdev.intercept import match
from meshdev.intercept.lease import Record, rank
from meshdev.intercept.spec import Spec
from meshdev.text import age


def exclude(one: Spec, other: Spec) -> bool:
    """Whether they cannot both be."""
    if one.workload.uid != other.workload.uid:
        return False
    if one.mode.exclusive or other.mode.exclusive:
        return True
    ports = ({(port.remote, port.transport) for port in spec.ports} for spec in (one, other))
    return one.match == other.match and bool(set.intersection(*ports))


def in_the_way(spec: Spec, records: Iterable[Record]) -> tuple[Record, ...]:
    """The records of others that a claim conflicts with, the oldest first."""
    return tuple(sorted((each for each in records if each.spec != spec and exclude(spec, each.spec)), key=rank))


def losers(records: Iterable[Record]) -> frozenset[str]:
    """The names of Leases that must withdraw: going from the oldest on, each that a kept one excludes.

    Sessions that created at the same moment all come to the same answer from the same list.
    """
    kept: list[Record] = []
    lost: set[str] = set()
    for each in sorted(records, key=rank):
        if any(exclude(each.spec, other.spec) for other in kept):
            lost.add(each.name)
        else:
            kept.append(each)
    return frozenset(lost)


def conflict_error(spec: Spec, others: Iterable[Record], now: float, silent: float | None = None) -> InterceptError:
    """The refusal, naming each holder with host, age and match.

    *now* is the API server's clock; *silent* is for how many seconds the first that seems dead was not renewed.
    """
    holders = "; ".join(f"{_who(each)} has {_what(each)} for {age(now - each.created)}" for each in others)
    hint = "--takeover replaces it"
    if silent is not None:
        hint = f"not renewed for {age(silent)}, so most probably dead: {hint}"
    return InterceptError(f"{spec.workload} in namespace {spec.workload.namespace} is taken: {holders}", hint=hint)


def _who(each: Record) -> str:
    user, at, host = each.holder.rpartition("@")
    return f"{user} on {host}" if at else each.holder


def _what(each: Record) -> str:
    ports = ", ".join(str(port.remote) for port in each.spec.ports)
    return f"{match.text(each.spec.match)} ({each.spec.mode}, {'ports' if ',' in ports else 'port'} {ports})"
