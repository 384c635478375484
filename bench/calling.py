"""In a pod: as many unary gRPC calls as possible, as ``python3 -c "$(cat calling.py)"``; grpcio and the library only.

A line of input is a piece of work: ``{"to": [address, port], "connections": n, "seconds": s}``. So many calls are under
way at a time, on one channel. A line of output is what came of it, as in pressing.py.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc.aio

_WARM_SECONDS = 0.15
_TIMEOUT_SECONDS = 5.0
_MESSAGE = b"original"


class Calls:
    """One piece of work."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._begun = 0.0
        self._times: list[float] = []
        self._said: Counter[str] = Counter()
        self._wrong: Counter[str] = Counter()

    async def run(self) -> dict[str, object]:
        """What came of it; the first moments, in which the connection is made, do not count."""
        host, port = self._plan["to"]
        seconds: float = self._plan["seconds"]
        async with grpc.aio.insecure_channel(f"{host}:{port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), _TIMEOUT_SECONDS)
            call = channel.unary_unary("/sample.Echo/Unary")
            self._begun = time.perf_counter() + _WARM_SECONDS
            cpu = time.process_time()
            until = self._begun + seconds
            await asyncio.gather(*(self._ask(call, until) for _ in range(self._plan["connections"])))
            cores = (time.process_time() - cpu) / (seconds + _WARM_SECONDS)
        times = sorted(self._times)
        return {
            "requests": len(times),
            "errors": sum(self._wrong.values()),
            "wrong": dict(self._wrong.most_common(3)),
            "said": dict(self._said),
            "per_second": len(times) / seconds,
            "p50_ms": times[len(times) // 2] * 1e3 if times else 0.0,
            "p99_ms": times[int(len(times) * 0.99)] * 1e3 if times else 0.0,
            "cores": cores,
        }

    async def _ask(self, call: Callable[..., Awaitable[bytes]], until: float) -> None:
        while (since := time.perf_counter()) < until:
            try:
                answer = await call(_MESSAGE, timeout=_TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError as error:
                self._wrong[f"{error.code().name} {error.details()}"] += 1
                continue
            now = time.perf_counter()
            if self._begun <= since and now <= until:
                self._times.append(now - since)
                self._said[answer.decode()] += 1


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(asyncio.run(Calls(json.loads(line)).run())), flush=True)
