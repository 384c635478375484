"""What of a pod's traffic meets Envoy: new connections from outside, on ports that are wanted, while it makes sense."""

from tests.netns.sidecar import MINE, ask, claim, sidecar
from meshdev.wire.agent import PodPort

WEB = PodPort(8080)


async def test_new_connections_meet_envoy_and_older_ones_keep_their_way() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        reader, writer = await pod.connect(8080)
        assert await ask(reader, writer, a="1") == "original"
        await pod.manager.claim(claim(MINE))
        state = await pod.manager.until(lambda state: state.redirected)
        assert state.redirected == (WEB,)
        assert state.older == ((WEB, 1),)
        assert [await pod.get(), await pod.get(a="1")] == ["original", "laptop"]
        assert await ask(reader, writer, a="1") == "original"
        writer.close()
        await pod.manager.until(lambda state: not state.older)
