"""A scraper that speaks plain HTTP, well or badly."""

import asyncio
import http.client
import io


class _Answer:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self._data)


async def exchange(port: int, request: bytes) -> bytes:
    """Everything that comes back, until the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.close()


async def get(
    port: int, target: str = "/metrics", *, host: str | None = None, method: str = "GET"
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (in lower case) and body."""
    head = f"{method} {target} HTTP/1.1\r\nHost: {host or f'127.0.0.1:{port}'}\r\n\r\n"
    return read(await exchange(port, head.encode("latin-1")))


def read(data: bytes) -> tuple[int, dict[str, str], bytes]:
    """The same of an answer's bytes."""
    response = http.client.HTTPResponse(_Answer(data))  # type: ignore[arg-type] # it asks for makefile alone
    response.begin()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
