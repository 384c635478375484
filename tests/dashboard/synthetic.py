"""What the session could report: a small shop as people know it, and a large cluster. All of it is made up."""

import itertools
import random
from typing import Any, Final

Json = dict[str, Any]

#: 12:31:05 UTC on a day in 2026.
NOW: Final = 1_795_955_465.0

_WORKLOADS: Final = (
    ("gateway", 2, 2),
    ("web", 3, 3),
    ("orders", 2, 2),
    ("catalog", 2, 2),
    ("payments", 1, 2),
    ("inventory", 2, 2),
    ("mail", 1, 1),
)
_CALLS: Final = (
    ("address/203.0.113.7", "deployment/gateway", 18.2, 0.0, 24.1),
    ("address/others", "deployment/gateway", 6.4, 0.0, 22.8),
    ("deployment/gateway", "deployment/web", 21.5, 0.0, 16.2),
    ("deployment/gateway", "deployment/orders", 9.1, 0.0, 11.8),
    ("deployment/web", "deployment/catalog", 30.7, 0.0, 3.4),
    ("deployment/web", "deployment/orders", 4.2, 0.0, 9.7),
    ("deployment/orders", "deployment/payments", 5.5, 0.042, 41.0),
    ("deployment/orders", "deployment/inventory", 7.3, 0.0, 2.2),
    ("deployment/orders", "laptop/ann@laptop", 3.6, 0.0, 4.9),
    ("laptop/ann@laptop", "deployment/inventory", 2.1, 0.0, 6.3),
    ("deployment/payments", "statefulset/ledger", 5.2, 0.0, 1.8),
)


def _node(kind: str, name: str, ready: int | None, total: int | None, *intercepts: str) -> Json:
    id_ = f"{kind}/{name}"
    return {"id": id_, "kind": kind, "name": name, "ready": ready, "total": total, "intercepts": [*intercepts]}


def _edge(from_: str, to: str, rate: float, errors: float, p50: float) -> Json:
    return {"from": from_, "to": to, "rate": rate, "errors": errors, "p50_ms": p50}


def _check(check: str, state: str, detail: str, hint: str | None = None) -> Json:
    return {"check": check, "state": state, "detail": detail, "hint": hint}


def intercept(id_: str, target: str, **others: object) -> Json:
    """One of ann, whose pods have all taken it."""
    return {
        "id": id_,
        "target": target,
        "namespace": "shop",
        "mode": "mesh",
        "match": "x-user=ann",
        "ports": ["3000:8080/tcp"],
        "holder": "ann@laptop",
        "mine": True,
        "state": "active",
        "pods": {"acked": 2, "total": 2},
        "reports": [
            {"pod": f"{target.partition('/')[2]}-7d9f6c-{each}", "state": "acked", "detail": ""}
            for each in ("x2k4p", "m8qvz")
        ],
        **others,
    }


def small(time: float = NOW) -> Json:
    """A state with something of everything."""
    claims = {"orders": ["i1"], "payments": ["i2"]}
    return {
        "time": time,
        "session": {
            "state": "connected",
            "context": "staging",
            "namespace": "shop",
            "holder": "ann@laptop",
            "address": "10.89.0.2",
            "manager": "ops/meshdev-traffic-manager-5c7",
            "notes": [],
        },
        "nodes": [
            *(_node("deployment", name, ready, total, *claims.get(name, ())) for name, ready, total in _WORKLOADS),
            _node("statefulset", "ledger", 3, 3),
            _node("laptop", "ann@laptop", None, None),
            _node("address", "203.0.113.7", None, None),
            _node("address", "others", None, None),
        ],
        "edges": [_edge(*call) for call in _CALLS],
        "intercepts": [
            intercept("i1", "deployment/orders"),
            intercept(
                "i2",
                "deployment/payments",
                holder="bob@desk",
                mine=False,
                match="/v2/*",
                pods={"acked": 1, "total": 2},
                state="pending",
                reports=[
                    {"pod": "payments-66b5f-9s7tq", "state": "acked", "detail": ""},
                    {
                        "pod": "payments-66b5f-r4hnw",
                        "state": "joined",
                        "detail": "nothing listens in the pod on 9000/tcp",
                    },
                ],
            ),
        ],
        "tunnel": {
            "carriers": [
                {"kind": "websocket", "up": True, "rtt_ms": 11.8},
                {"kind": "websocket", "up": True, "rtt_ms": 12.6},
            ],
            "to_cluster": 84_200.0,
            "to_laptop": 412_800.0,
        },
        "health": [
            _check("tunnel", "ok", "2 of 2 carriers are up, round trip 11.8 ms"),
            _check("manager", "ok", "pod ops/meshdev-traffic-manager-5c7, protocol 4"),
            _check("API server", "ok", "https://203.0.113.40:6443"),
            _check("names", "ok", "resolved by 10.96.0.10 (resolved)"),
            _check("routes", "ok", "3 routes lead to the tunnel"),
            _check(
                "intercept of deployment/orders",
                "warning",
                "2 of 2 pods have it; nothing listens here on 3000/tcp",
                "start your program on that port",
            ),
            _check("requests", "skipped", "3 more workloads are not drawn"),
        ],
    }


def history(time: float = NOW) -> Json:
    """Five minutes before *time*."""
    dice = random.Random(7)  # noqa: S311 -- a picture
    points, upload, download, rtt = [], 70_000.0, 380_000.0, 12.0
    for second in range(300, 0, -1):
        upload = max(4_000.0, upload + dice.gauss(0, 9_000) + (80_000 - upload) * 0.06)
        download = max(9_000.0, download + dice.gauss(0, 42_000) + (400_000 - download) * 0.05)
        rtt = max(8.0, rtt + dice.gauss(0, 0.7) + (12 - rtt) * 0.1 + (18 if second == 140 else 0))
        points.append({"time": time - second, "to_cluster": upload, "to_laptop": download, "rtt_ms": rtt})
    return {"points": points}


_PATHS: Final = (
    ("GET", "/api/orders?limit=20", 200, "laptop", None),
    ("GET", "/api/orders/8812", 200, "original", "no header x-user"),
    ("POST", "/api/orders", 201, "laptop", None),
    ("GET", "/api/orders/8813", 200, "original", "x-user=bob, not x-user=ann"),
    ("POST", "/api/orders?token=***", 502, "original", "x-user=eve, not x-user=ann"),
    ("GET", "/api/orders/8814/items", 200, "fallback", "fell back: nothing listens on 3000"),
    ("DELETE", "/api/orders/8790", 404, "laptop", None),
    ("GET", "/api/orders/recent", 200, "original", "no header x-user"),
    ("PUT", "/api/orders/8812/state", 503, "meshdev", "the local program closed the connection"),
)


def request(number: int, time: float, **others: object) -> Json:
    """One as `meshdev inspect -o json` prints it, with its number."""
    method, path, status, by, reason = _PATHS[number % len(_PATHS)]
    claimed = by != "original"
    return {
        "number": number,
        "time": time,
        "namespace": "shop",
        "target": "deployment/orders",
        "pod": "orders-7d9f6c-x2k4p",
        "source": {
            "address": f"10.244.1.{17 + number % 3}",
            "workload": ("deployment/web", "deployment/gateway")[number % 2],
        },
        "protocol": "HTTP/1.1",
        "method": method,
        "authority": "orders.shop.svc",
        "path": path,
        "status": status,
        "duration_ms": (3.4, 11.2, 7.9, 2.1, 1240.0, 0.6)[number % 6],
        "request_bytes": 0 if method == "GET" else 412,
        "response_bytes": 1834,
        "intercept": "i1" if claimed else None,
        "holder": "ann@laptop" if claimed else None,
        "served_by": by,
        "reason": reason,
        "trace_id": f"{number + 0xA1B2C3:032x}",
        **others,
    }


def requests(count: int, first: int = 0, time: float = NOW, **others: object) -> Json:
    """An event of so many, the last of them at *time*."""
    found = [request(first + each, time - (count - each) * 0.137, **others) for each in range(count)]
    return {"requests": found, "skipped": 0}


class Large:
    """200 workloads with 1,000 calls between them, in ten tiers as services have them."""

    def __init__(self, nodes: int = 200, edges: int = 1000) -> None:
        self._dice = random.Random(11)  # noqa: S311 -- traffic that is the same each time
        tiers = 10
        self._nodes = [_node("deployment", f"service-{each:03d}", 2, 2) for each in range(nodes)]
        pairs = set[tuple[int, int]]()
        while len(pairs) < edges:
            from_ = self._dice.randrange(nodes - nodes // tiers)
            to = self._dice.randrange((from_ * tiers // nodes + 1) * nodes // tiers, nodes)
            pairs.add((from_, to))
        self._pairs = sorted(pairs)
        self._numbers = itertools.count()

    def state(self, time: float) -> Json:
        """All rates are others than in the state before."""
        dice = self._dice
        edges = [
            _edge(
                self._nodes[from_]["id"],
                self._nodes[to]["id"],
                dice.uniform(0.1, 40),
                dice.choice((0.0, 0.0, 0.0, 0.01)),
                dice.uniform(1, 80),
            )
            for from_, to in self._pairs
        ]
        return {**small(time), "nodes": self._nodes, "edges": edges}

    def requests(self, count: int, time: float) -> Json:
        """The next *count*."""
        return {"requests": [request(next(self._numbers), time) for _ in range(count)], "skipped": 0}
