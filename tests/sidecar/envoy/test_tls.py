"""TLS between Envoy and the manager: who is let in, who is believed, and what new certificates change."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.sidecar.agent.secret_discovery import SecretServer
from meshdev.sidecar.envoy.bootstrap import Start
from meshdev.sidecar.envoy.tls import CONTROL_NAME, RELAY_NAME
from tests.sidecar.ads import Ads
from tests.sidecar.certificates import Certificates
from tests.sidecar.envoy.load import Load
from tests.sidecar.envoy.test_claimed import numbered, repeat
from tests.sidecar.pod import End, pod
from tests.sidecar.real_envoy import RealEnvoy, running, started
from tests.waiting import until

MINE = Match(headers=(HeaderMatch("a", "exact", "1"),))
_ROTATIONS = 20


async def test_it_shows_its_certificate_to_control_and_relays() -> None:
    async with pod() as app:
        shown = app.certificates.given[-1].certificate
        app.claim(MINE)
        await app.serve()
        assert await app.get(a="1") == "laptop"
        assert app.envoy.ads.peers == [shown]
        assert app.relays.certificates == [shown]


async def test_a_relay_that_refuses_the_certificate_is_a_laptop_that_does_not_answer() -> None:
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        assert await app.get(a="1") == "laptop"
        app.relays.refuses.add(app.laptop.port)
        assert Counter([await app.get(a="1") for _ in range(60)]) == {"original": 60}
        app.relays.refuses.clear()
        assert await app.get(a="1") == "laptop"


async def test_each_connection_shows_it() -> None:
    """Whoever may no longer use a relay has no earlier session to use."""
    async with pod() as app:
        app.relays.become(app.certificates.relay(resumes=True))
        app.claim(MINE)
        await app.serve()
        assert Counter([await app.get(a="1") for _ in range(10)]) == {"laptop": 10}
        assert (len(app.relays.certificates), app.relays.resumed) == (10, 0)


@pytest.mark.parametrize(("name", "other"), [(CONTROL_NAME, False), (RELAY_NAME, True)])
async def test_only_the_managers_relay_gets_requests(name: str, other: bool, tmp_path: Path) -> None:
    """Neither a server of another name nor one of another authority."""
    async with pod() as app:
        certificates = Certificates(tmp_path) if other else app.certificates
        app.relays.become(certificates.relay(name, trusted=app.certificates))
        app.claim(MINE)
        await app.serve()
        assert Counter([await app.get(a="1") for _ in range(10)]) == {"original": 10}


@pytest.mark.parametrize(
    ("name", "other", "believed"),
    [(CONTROL_NAME, False, True), (RELAY_NAME, False, False), (CONTROL_NAME, True, False)],
)
async def test_only_the_managers_control_is_asked(name: str, other: bool, believed: bool, tmp_path: Path) -> None:
    """Neither a server of another name nor one of another authority: the connection ends in the handshake."""
    own = Certificates(tmp_path)
    context = (Certificates(tmp_path / "other") if other else own).relay(name, trusted=own)
    came: list[str | None] = []
    completed = []
    context.sni_callback = lambda _socket, asked, _context: came.append(asked)
    server = await asyncio.start_server(lambda _, writer: completed.append(writer), "127.0.0.1", 0, ssl=context)
    secrets = SecretServer()
    secrets.set(own.secrets())
    start = Start("x", "127.0.0.1", server.sockets[0].getsockname()[1], str(tmp_path / "a"), str(tmp_path / "s"))
    async with secrets.serving(tmp_path / "s"):
        with started(start, tmp_path):
            await until(lambda: completed or len(came) >= 3)
    assert (bool(completed), set(came)) == (believed, {CONTROL_NAME})
    for writer in completed:
        writer.close()
    server.close()


async def until_refused(envoy: RealEnvoy) -> None:
    """Wait until it has dialled somebody who has no certificate of its manager."""
    before = await _failures(envoy)
    async with asyncio.timeout(10):
        while await _failures(envoy) == before:  # noqa: ASYNC110 -- Envoy has no event for it
            await asyncio.sleep(0.01)


async def _failures(envoy: RealEnvoy) -> list[str]:
    lines = (await envoy.admin("/clusters")).splitlines()
    return [line for line in lines if line.startswith("ads::") and "::cx_connect_fail::" in line]


async def test_another_manager_is_asked_as_soon_as_there_are_its_certificates(tmp_path: Path) -> None:
    async with running() as envoy:
        await envoy.ads.stop()
        certificates = Certificates(tmp_path)
        another = Ads(certificates.control())
        another.port = envoy.ads.port
        await another.start()
        try:
            await until_refused(envoy)
            assert not another.connected
            envoy.secrets.set(certificates.secrets())
            await until(lambda: another.connected, seconds=2.0)
        finally:
            await another.stop()


async def test_renewed_certificates_cost_no_request_and_end_no_connection() -> None:
    async with pod(End("original", numbered()), End("laptop", numbered())) as app:
        app.claim(MINE)
        await app.serve()
        load = Load(app)
        async with load.running():
            for _ in range(_ROTATIONS):
                await load.more(40)
                app.envoy.secrets.set(app.certificates.secrets())
            await load.more(40)
        kept = {body for kind, body in load.answers if kind == "kept"}
        assert {body.split()[0] for kind, body in load.answers} == {"laptop", "original"}
        assert len(kept) == 2, "each kept connection has one to its end"
        assert len(set(app.relays.certificates)) > _ROTATIONS


async def test_bytes_go_on_while_certificates_are_renewed() -> None:
    async with pod(laptop=End("laptop", repeat)) as app:
        app.claim(protocol="tcp")
        await app.serve()
        reader, writer = await app.connect()
        for _ in range(_ROTATIONS):
            writer.write(b"x")
            assert await reader.readexactly(2) == b"lx"
            app.envoy.secrets.set(app.certificates.secrets())
            other_reader, other = await app.connect()
            other.write(b"x")
            assert await other_reader.readexactly(2) == b"lx"
            other.close()
        writer.close()
