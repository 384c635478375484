"""A Spec as a Lease: what is written, read, expired; and Leases that somebody else wrote to do harm."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.intercept import lease as codec
from meshdev.intercept.lease import EXPIRED_SECONDS, LeaseStatus, name_of, record, records
from meshdev.intercept.match import HeaderMatch
from meshdev.intercept.spec import Port, Spec, Workload, encode
from tests.intercept.values import HTTP, SPECS, B, mesh, proxy

NOW = 1_767_225_600.25  # 2026-01-01T00:00:00.25Z
NONSENSE: tuple[Any, ...] = (None, True, "30", 1e999, {}, "x" * 300)


def stored(spec: Spec, holder: str = "jane@laptop", *, created: float = NOW, number: int = 1) -> dict[str, Any]:
    """As the API server gives it back."""
    there = codec.lease(spec, holder, "default", created)
    there["metadata"] |= {
        "uid": f"lease-{number}",
        "resourceVersion": str(number),
        "creationTimestamp": there["spec"]["acquireTime"][:19] + "Z",
    }
    return there


def test_what_is_written() -> None:
    spec = mesh()
    assert codec.lease(spec, "jane@laptop", "tools", NOW) == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name_of(spec),
            "namespace": "default",
            "labels": {
                "app.kubernetes.io/managed-by": "meshdev",
                "app.kubernetes.io/component": "intercept",
                "meshdev.dev/workload-uid": "uid-b",
            },
            "annotations": {
                "meshdev.dev/spec": encode(spec),
                "meshdev.dev/status": '{"state": "pending", "acked": 0, "total": 0}',
                "meshdev.dev/manager-namespace": "tools",
            },
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "b", "uid": "uid-b"}],
        },
        "spec": {
            "holderIdentity": "jane@laptop",
            "leaseDurationSeconds": 30,
            "acquireTime": "2026-01-01T00:00:00.250000Z",
            "renewTime": "2026-01-01T00:00:00.250000Z",
        },
    }


@given(SPECS, st.text(max_size=20))
def test_what_is_written_is_read(spec: Spec, holder: str) -> None:
    found = record(stored(spec, holder.replace("\0", "")))
    assert found.spec == spec
    assert found.holder.isprintable()
    assert (found.manager_namespace, found.status, found.created) == ("default", LeaseStatus(), NOW - 0.25)
    assert (found.written, found.duration) == (None, EXPIRED_SECONDS)


def test_the_owner_of_a_bare_pod() -> None:
    assert codec.owner(Workload("default", "pod", "p", "u")) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "name": "p",
        "uid": "u",
    }


def test_renewing_keeps_what_others_wrote() -> None:
    there = stored(mesh())
    there["metadata"]["annotations"]["theirs"] = "x"
    there["metadata"]["labels"]["theirs"] = "x"
    before = deepcopy(there)
    again = codec.renewed(there, LeaseStatus("active", 2, 3), NOW + 10)
    assert there == before
    assert (again["metadata"]["annotations"]["theirs"], again["metadata"]["labels"]["theirs"]) == ("x", "x")
    assert record(again).status == LeaseStatus("active", 2, 3)
    assert (again["spec"]["renewTime"], record(again).created) == ("2026-01-01T00:00:10.250000Z", NOW - 0.25)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(15, 30), (30, 30), (40, 40), (2**31 - 1, 120), (10**400, 120), (-5, 30), (0, 30), *((x, 30) for x in NONSENSE)],
)
def test_how_long_a_renewal_counts_has_bounds(value: Any, seconds: float) -> None:
    there = stored(mesh())
    there["spec"]["leaseDurationSeconds"] = value
    assert record(there).duration == seconds
    del there["spec"]["leaseDurationSeconds"]
    assert record(there).duration == EXPIRED_SECONDS


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "now", *NONSENSE])
def test_the_holders_clock_is_not_read(time: Any) -> None:
    there = stored(mesh())
    there["spec"]["renewTime"] = there["spec"]["acquireTime"] = time
    assert record(there) == record(stored(mesh()))


def test_the_server_says_when_it_was_written() -> None:
    there = stored(mesh())
    there["metadata"]["managedFields"] = [
        {"manager": "a", "time": "2026-01-01T00:00:05Z"},
        {"manager": "b", "time": "2026-01-01T00:00:09Z"},
        *({"time": x} for x in (*NONSENSE, "0001-01-01T00:00:00+14:00", "2026-01-01T00:00:30")),
        *NONSENSE,
    ]
    assert record(there).written == NOW - 0.25 + 9
    for entries in (*NONSENSE, []):
        there["metadata"]["managedFields"] = entries
        assert record(there).written is None


def test_the_name_is_of_what_is_claimed_and_of_nothing_else() -> None:
    one = name_of(mesh(number=1))
    assert name_of(mesh(number=2)) == one  # another session, the same claim
    others = {
        name_of(mesh(HeaderMatch("a", "exact", "2"))),
        name_of(mesh(HeaderMatch("a", "regex", "1"))),
        name_of(mesh(ports=(Port(8081, "http", 8080),))),
        name_of(mesh(workload=Workload("default", "deployment", "b", "another"))),
        name_of(proxy()),
    }
    assert len(others | {one}) == 6
    assert name_of(mesh(ports=(Port(8080, "tcp", 1),))) == one  # neither the local port nor what is said on it
    assert len(one) < 64


def at(there: Any, path: str) -> tuple[Any, str]:
    *outer, last = path.split("/")
    for name in outer:
        there = there[int(name)] if isinstance(there, list) else there[name]
    return there, last


@pytest.mark.parametrize("value", [..., None, 1, [], {}, "", "x", "\0", "x" * 300_000, "{}", "[" * 9000, "\ud800"])
@pytest.mark.parametrize(
    "path",
    [
        "metadata/annotations",
        "metadata/annotations/meshdev.dev~spec",
        "metadata/ownerReferences",
        "metadata/name",
        "metadata/uid",
        "metadata/resourceVersion",
        "metadata/creationTimestamp",
        "metadata/namespace",
        "metadata",
        "spec",
        "spec/holderIdentity",
    ],
)
def test_a_hostile_lease_is_an_error_and_nothing_else(path: str, value: Any) -> None:
    there = stored(mesh())
    inside, last = at(there, path)
    last = last.replace("~", "/")
    if value is ...:
        del inside[last]
    else:
        inside[last] = value
    found, troubles = records([there])
    if found:  # any short text is a uid, a version, a holder
        assert path in {"metadata/uid", "metadata/resourceVersion", "spec/holderIdentity"}
        assert isinstance(value, str)
    else:
        assert [len(trouble) < 1000 for trouble in troubles] == [True]


@pytest.mark.parametrize("there", [None, 1, "x", [], {}, {"metadata": 1}, {"metadata": {"name": 1}, "spec": []}])
def test_what_is_no_lease_at_all(there: Any) -> None:
    with pytest.raises(ProtocolError):
        record(there)


@pytest.mark.parametrize(
    "status",
    [
        '{"state": "boss"}',
        '{"acked": -1}',
        '{"total": "x"}',
        "[]",
        "nonsense",
        '{"pending": ["x"]}',
        '{"pending": "9/tcp"}',
        '{"acked": 1e999}',
    ],
)
def test_a_hostile_status(status: str) -> None:
    there = stored(mesh())
    there["metadata"]["annotations"]["meshdev.dev/status"] = status
    with pytest.raises(ProtocolError, match="its status"):
        record(there)


def test_ports_without_a_listener_in_the_pods() -> None:
    status = LeaseStatus("active", 0, 2, ("9999/tcp", "53/udp"))
    assert record(codec.renewed(stored(mesh()), status, NOW)).status == status


def test_a_status_that_says_more_or_less_is_read() -> None:
    there = stored(mesh())
    there["metadata"]["annotations"]["meshdev.dev/status"] = json.dumps({"state": "active", "mood": "fine"})
    assert record(there).status == LeaseStatus("active")
    del there["metadata"]["annotations"]["meshdev.dev/status"]
    assert record(there).status == LeaseStatus()


def test_nobody_claims_a_workload_that_does_not_own_the_lease() -> None:
    elsewhere = stored(mesh(workload=Workload("team-1", "deployment", "b", "uid-b")))
    elsewhere["metadata"]["namespace"] = "default"
    other = stored(mesh())
    other["metadata"]["ownerReferences"][0]["uid"] = "another"
    renamed = stored(mesh())
    renamed["metadata"]["name"] = "meshdev-x"
    found, troubles = records([elsewhere, stored(mesh()), other, renamed])
    assert [each.name for each in found] == [name_of(mesh())]
    assert ["does not own it" in each for each in troubles] == [True, True, False]


def test_the_oldest_comes_first() -> None:
    leases = [
        stored(mesh(HeaderMatch(name, "present")), created=NOW + age) for age, name in ((2, "a"), (0, "b"), (0, "c"))
    ]
    found, _ = records(leases)
    assert [each.created for each in found] == [NOW - 0.25, NOW - 0.25, NOW + 1.75]
    assert found[0].name < found[1].name


def test_ports_make_the_name() -> None:
    both = (HTTP, Port(8080, "udp", 8080))
    assert name_of(proxy(ports=both)) != name_of(proxy())
    assert proxy().workload == B
