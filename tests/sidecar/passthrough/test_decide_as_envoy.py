"""The passthrough proxy and the real Envoy decide the same: random claims and heads, each asked of both.

``MESHDEV_DECISIONS`` is how many heads, 10,000 (10 s) unless it says otherwise; ``MESHDEV_SEED`` begins elsewhere.
"""

import asyncio
import os
from collections import Counter
from contextlib import AsyncExitStack
from typing import Any

from meshdev.sidecar.passthrough.decide import Decider
from meshdev.sidecar.passthrough.http1 import RequestFollower, RequestHead
from tests.sidecar.passthrough.asked import Vocabulary
from tests.sidecar.passthrough.edges import EDGES
from tests.sidecar.pod import End, Pod, pod

HEADS_A_ROUND = 25
CLAIMS = 5


async def say_who(end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers by a header: of HEAD there is no body, and Envoy's own answers have none of these."""
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(b"HTTP/1.1 200 OK\r\nDate: then\r\nEnd: %b\r\nContent-Length: 0\r\n\r\n" % end.name.encode())
        await writer.drain()


async def envoys(app: Pod, head: bytes) -> int | str | None:
    """The claim that takes it, None for the original; or the status with which Envoy answers itself."""
    async with asyncio.timeout(20):
        reader, writer = await app.connect()
        writer.write(head)
        answer = await reader.readuntil(b"\r\n\r\n")
        while answer.startswith(b"HTTP/1.1 100 "):
            answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    _, found, rest = answer.lower().partition(b"\r\nend: ")
    if not found:
        return answer[9:12].decode()
    name = rest.partition(b"\r\n")[0].decode()
    return None if name == "original" else int(name)


def ours(decider: Decider, head: bytes) -> int | None:
    event, end = RequestFollower().next(head)
    assert isinstance(event, RequestHead), head
    assert end == len(head)
    return decider.decide(event)


async def test_edges() -> None:
    async with pod(End("original", say_who), End("0", say_who)) as app:
        for match, asked in EDGES:
            app.claim(match)
            await app.serve()
            for data, taken in asked:
                assert (await envoys(app, data) == 0) == taken, (match, data)


async def test_random_claims_and_heads() -> None:
    rounds = -(-int(os.environ.get("MESHDEV_DECISIONS", "10000")) // HEADS_A_ROUND)
    seed = int(os.environ.get("MESHDEV_SEED", "0"))
    differ: list[Any] = []
    seen: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(pod(End("original", say_who), End("unused", say_who)))
        ends = [End(str(number), say_who) for number in range(CLAIMS)]
        for end in ends:
            await end.start()
            stack.push_async_callback(end.stop)
        for number in range(seed, seed + rounds):
            draw = Vocabulary(number)
            matches = [draw.match() for _ in range(draw.one(range(1, CLAIMS + 1)))]
            app.claims.clear()
            app.probes = draw.probes(app.port.number)
            for place, match in enumerate(matches):
                app.claim(match, name=str(place) * 32, to=ends[place])
            await app.serve()
            decider = Decider(matches, app.probes)
            for head in [draw.head() for _ in range(HEADS_A_ROUND)]:
                theirs, found = await envoys(app, head), ours(decider, head)
                seen["refused" if isinstance(theirs, str) else "original" if theirs is None else "claimed"] += 1
                # What Envoy refuses is the app's to answer.
                if found != (None if isinstance(theirs, str) else theirs):
                    differ.append((number, head, theirs, found, matches, app.probes))
    assert min(seen.values()) > sum(seen.values()) / 20, "one kind of end is hardly ever drawn"
    assert differ == [], f"{len(differ)} of {sum(seen.values())} differ, the first: {differ[0]}"
