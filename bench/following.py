"""``python -m bench.following``: what following and deciding cost of CPU, in µs a request with its response.

No cluster and no sockets: only the pure core of the passthrough proxy (``meshdev.sidecar.passthrough``).
"""

import time
import timeit
from collections.abc import Callable
from typing import Final

from rich.console import Console
from rich.table import Table

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.sidecar.passthrough.decide import Decider
from meshdev.sidecar.passthrough.http1 import RequestFollower, RequestHead, ResponseFollower

#: As the requests library and nginx write them: 304 and 169 bytes.
REQUEST: Final = (
    b"GET /api/v1/items/42?expand=all&lang=en HTTP/1.1\r\nHost: shop.default.svc.cluster.local:8080\r\n"
    b"User-Agent: python-requests/2.32.3\r\nAccept-Encoding: gzip, deflate, br\r\n"
    b"Accept: application/json, */*;q=0.1\r\nConnection: keep-alive\r\n"
    b"X-Request-Id: 0f8fad5b-d9cb-469f-a165-70867728950e\r\nCookie: session=abcdef\r\n\r\n"
)
RESPONSE: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 28 Nov 2026 23:00:00 GMT\r\nContent-Type: text/plain\r\n"
    b'Content-Length: 9\r\nConnection: keep-alive\r\nETag: "6b8"\r\n\r\noriginal\n'
)
_ROUNDS: Final = 7
_TIMES: Final = 20_000


def following() -> Callable[[], None]:
    """One request and its response on a kept connection."""
    requests, responses = RequestFollower(), ResponseFollower()

    def once() -> None:
        head, _ = requests.next(REQUEST)
        if isinstance(head, RequestHead):
            responses.expect(head)
        _, end = responses.next(RESPONSE)
        responses.next(RESPONSE, end)

    return once


def deciding(claims: int, value: str) -> Callable[[], None]:
    """One new head, with a header that *claims* claims ask for where *value* is not empty, decided about."""
    decider = Decider([Match(headers=(HeaderMatch("x-user", "exact", str(each)),)) for each in range(claims)])
    data = REQUEST.replace(b"\r\n\r\n", f"\r\nX-User: {value}\r\n\r\n".encode()) if value else REQUEST

    def once() -> None:
        head, _ = RequestFollower().next(data)
        if isinstance(head, RequestHead):
            decider.decide(head)

    return once


def main() -> None:
    """Measure and print."""
    table = Table("", "µs")
    for name, once in (
        ("request and response, followed", following()),
        ("a new follower, a head, decided: no claim", deciding(0, "")),
        ("… 60 claims, their header is not there", deciding(60, "")),
        ("… 60 claims, one takes it", deciding(60, "7")),
    ):
        seconds = min(timeit.repeat(once, number=_TIMES, repeat=_ROUNDS, timer=time.process_time)) / _TIMES
        table.add_row(name, f"{seconds * 1e6:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
