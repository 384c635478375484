"""What a follower takes for one request the real Envoy takes for one, too, with the same body; and its answers are
followed to their ends.
"""

import asyncio

import h11

from meshdev.sidecar.passthrough.http1 import Body, RequestFollower, RequestHead, ResponseFollower
from tests.sidecar.passthrough.asked import Vocabulary
from tests.sidecar.pod import End, Pod, pod

CONNECTIONS = 40
REQUESTS = 8


async def give_back(_: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers with the target and the body, in chunks or not."""
    while True:
        server = h11.Connection(h11.SERVER)
        target, found = b"", []
        while True:
            event = server.next_event()
            if event is h11.NEED_DATA:
                server.receive_data(await reader.read(1 << 16))
            elif isinstance(event, h11.Request):
                target = event.target
            elif isinstance(event, h11.Data):
                found.append(bytes(event.data))
            else:
                break
        if not isinstance(event, h11.EndOfMessage):
            return
        body = target + b"".join(found)
        chunked = len(body) % 2
        header = ("transfer-encoding", "chunked") if chunked else ("content-length", str(len(body)))
        for part in (h11.Response(status_code=200, headers=[header]), h11.Data(data=body), h11.EndOfMessage()):
            writer.write(server.send(part) or b"")


def requests(follower: RequestFollower, data: bytes) -> list[tuple[RequestHead, bytes]]:
    """Each with all of its bytes."""
    found: list[tuple[RequestHead, bytes]] = []
    at = 0
    while at < len(data):
        event, end = follower.next(data, at)
        if isinstance(event, RequestHead):
            found.append((event, data[at:end]))
        else:
            assert isinstance(event, Body), event
            found[-1] = (found[-1][0], found[-1][1] + data[at:end])
        at = end
    return found


async def exchange(app: Pod, sent: list[tuple[RequestHead, bytes]]) -> list[bytes]:
    """The bodies of the answers, each without its framing."""
    reader, writer = await app.connect()
    follower = ResponseFollower()
    answers = []
    async with asyncio.timeout(20):
        for head, data in sent:
            writer.write(data)
            follower.expect(head)
            client = h11.Connection(h11.CLIENT)
            client.send(h11.Request(method="GET", target="/", headers=[("host", "b")]))
            client.send(h11.EndOfMessage())
            while follower.waiting:
                piece = await reader.read(1 << 16)
                assert piece
                client.receive_data(piece)
                at = 0
                while at < len(piece):
                    _, at = follower.next(piece, at)
                assert follower.raw is None
            parts = []
            while not isinstance(event := client.next_event(), h11.EndOfMessage):
                assert event is not h11.NEED_DATA
                parts += [bytes(event.data)] if isinstance(event, h11.Data) else []
            assert client.trailing_data == (b"", False)
            answers.append(b"".join(parts))
    writer.close()
    return answers


async def test_one_request_is_one_request() -> None:
    async with pod(laptop=End("laptop", give_back)) as app:
        app.claim()
        await app.serve()
        for seed in range(CONNECTIONS):
            draw = Vocabulary(seed)
            drawn = [draw.bodied(f"/{number}") for number in range(REQUESTS)]
            sent = requests(RequestFollower(), b"".join(data for data, _ in drawn))
            assert [data for _, data in sent] == [data for data, _ in drawn]
            answers = await exchange(app, sent)
            assert answers == [b"/%d%b" % (number, body) for number, (_, body) in enumerate(drawn)]
