"""KubeApi against the fake server: credentials, renewal, impersonation, watches."""

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import aclosing
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from meshdev.errors import ClusterError, CredentialError, ForbiddenError, UnreachableError
from meshdev.kube.client import KubeApi, deployments_path, leases_path, pods_path
from meshdev.kube.credentials import Credentials
from meshdev.kube.errors import ConflictError, GoneError, NotFoundError
from meshdev.kube.kubeconfig import Options
from meshdev.kube.watching import follow, listed
from tests.kube.conftest import write_kubeconfig
from tests.kube.fake_api import FakeApi, Object
from tests.loops import open_descriptors
from tests.waiting import until

DEPLOYMENTS, PODS = deployments_path("default"), pods_path("default")


def pod(name: str) -> Object:
    return {"metadata": {"name": name, "labels": {"app": name[0]}}}


def name_of(item: Object) -> str:
    return str(item["metadata"]["name"])


async def test_lists_come_in_pages(fake: FakeApi, api: KubeApi) -> None:
    for number in range(1201):
        fake.put("pods", pod(f"p{number}"))
    found, version = await listed(api, PODS, {}, name_of)
    assert len(found) == 1201
    assert int(version) == fake.version
    assert len(fake.asked) == 3


async def test_a_watch_gives_what_happens_after_a_version(fake: FakeApi, api: KubeApi) -> None:
    fake.put("pods", pod("a"))
    _, version = await listed(api, PODS, {}, name_of)
    fake.put("pods", pod("b"))
    fake.put("pods", pod("b"))
    fake.remove("pods", "a")
    seen = []
    async with aclosing(api.watch(PODS, {}, version)) as events:
        async for kind, item in events:
            seen.append((kind, name_of(item)))
            if len(seen) == 3:
                break
    assert seen == [("ADDED", "b"), ("MODIFIED", "b"), ("DELETED", "a")]


async def test_an_old_version_is_gone(fake: FakeApi, api: KubeApi) -> None:
    fake.forget()
    with pytest.raises(GoneError):
        await anext(api.watch(PODS, {}, "1"))


async def test_follow_outlives_ends_restarts_and_compaction(fake: FakeApi, api: KubeApi) -> None:
    told: list[str] = []
    async with aclosing(follow(api, PODS, {}, name_of, lambda error: told.append(error.message))) as states:
        assert list((await anext(states)).values()) == []
        fake.put("pods", pod("a"))
        assert list((await anext(states)).values()) == ["a"]
        fake.end_watches()
        fake.put("pods", pod("b"))
        assert list((await anext(states)).values()) == ["a", "b"]
        assert told == []
        fake.forget()
        fake.remove("pods", "a")
        assert list((await anext(states)).values()) == ["b"]


async def test_follow_waits_for_a_server_that_is_away(fake: FakeApi, api: KubeApi) -> None:
    fake.refuse["list"] = (503, "starting")
    told: list[str] = []

    def trouble(error: ClusterError | object) -> None:
        told.append(str(error))
        fake.refuse.clear()

    async with aclosing(follow(api, PODS, {}, name_of, trouble)) as states:
        assert list(await anext(states)) == []
    assert "starting" in told[0]


async def test_follow_raises_what_waiting_does_not_cure(fake: FakeApi, api: KubeApi) -> None:
    fake.allow = lambda _: False
    with pytest.raises(ForbiddenError, match="list pods in namespace default"):
        await anext(follow(api, PODS, {}, name_of))


async def test_changes_of_a_deployment(api: KubeApi) -> None:
    made = await api.create(DEPLOYMENTS, {"metadata": {"name": "d"}})
    with pytest.raises(ConflictError, match="already exists"):
        await api.create(DEPLOYMENTS, {"metadata": {"name": "d"}})
    with pytest.raises(ConflictError, match="modified"):
        await api.replace(f"{DEPLOYMENTS}/d", {"metadata": {"name": "d", "resourceVersion": "1"}})
    with pytest.raises(ConflictError, match="UID"):
        await api.delete(f"{DEPLOYMENTS}/d", uid="another")
    await api.delete(f"{DEPLOYMENTS}/d", uid=made["metadata"]["uid"])
    with pytest.raises(NotFoundError):
        await api.get(f"{DEPLOYMENTS}/d")


async def opened(tmp_path: Path, fake: FakeApi, user: Object, **options: Any) -> KubeApi:
    path = write_kubeconfig(tmp_path / "config", fake.url, user=user)
    return await KubeApi.open(Options(kubeconfig=str(path), environment={}, **options))


async def test_a_rejected_token_is_renewed_once(tmp_path: Path, fake: FakeApi) -> None:
    count = tmp_path / "count"
    script = (
        f"import json; n = open({str(count)!r}, 'a+'); n.write('x'); n.seek(0);"
        "print(json.dumps({'status': {'token': 't' + str(len(n.read()))}}))"
    )
    fake.authenticate = lambda header: header == "Bearer t2"
    async with await opened(tmp_path, fake, {"exec": {"command": sys.executable, "args": ["-c", script]}}) as api:
        await listed(api, PODS, {}, name_of)
        assert [h["Authorization"] for h in fake.headers] == ["Bearer t1", "Bearer t2"]
        fake.authenticate = lambda _: False
        with pytest.raises(CredentialError):
            await listed(api, PODS, {}, name_of)
        assert len(fake.headers) == 4


async def test_a_fixed_token_is_not_tried_twice(tmp_path: Path, fake: FakeApi) -> None:
    fake.authenticate = lambda _: False
    async with await opened(tmp_path, fake, {"token": "t"}) as api:
        with pytest.raises(CredentialError, match="does not accept the credentials: Unauthorized"):
            await listed(api, PODS, {}, name_of)
        assert not await api.renew()
    assert len(fake.headers) == 1


async def test_impersonation_and_agent(tmp_path: Path, fake: FakeApi) -> None:
    async with await opened(tmp_path, fake, {}, as_user="jane") as api:
        await listed(api, PODS, {}, name_of)
    assert fake.headers[0]["Impersonate-User"] == "jane"
    assert fake.headers[0]["User-Agent"].startswith("meshdev/")


async def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "config", "https://127.0.0.1:1")
    async with await KubeApi.open(Options(kubeconfig=str(path), environment={})) as api:
        with pytest.raises(UnreachableError, match=r"https://127\.0\.0\.1:1: connect"):
            await listed(api, PODS, {}, name_of)
        assert await api.addresses() == {IPv4Address("127.0.0.1")}


async def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    path = write_kubeconfig(tmp_path / "config", f"http://127.0.0.1:{port}")
    async with await KubeApi.open(Options(kubeconfig=str(path), environment={}, request_timeout=0.2)) as api:
        with pytest.raises(UnreachableError, match="no answer in time"):
            await listed(api, PODS, {}, name_of)
    server.close()


async def test_a_peer_that_is_gone_is_noticed_while_nothing_is_said(fake: FakeApi, api: KubeApi) -> None:
    """Else a watch would be blind for minutes after the laptop slept."""
    seen: list[int] = []

    def created(_resource: str, _item: object) -> None:
        seen.extend(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) for sock in _sockets_to(fake.url))

    fake.created = created
    await api.create(leases_path("default"), {"kind": "Lease", "metadata": {"name": "s"}})
    assert 10 in seen


def _sockets_to(url: str) -> Iterator[socket.socket]:
    """This process's connections to there."""
    for file in list(Path("/proc/self/fd").iterdir()):
        if not file.is_socket():
            continue
        with socket.socket(fileno=os.dup(int(file.name))) as sock, contextlib.suppress(OSError):
            if sock.family == socket.AF_INET and url.endswith(f":{sock.getpeername()[1]}"):
                yield sock


def sockets() -> int:
    return sum("socket:" in each for each in open_descriptors())


async def test_certificates_that_rotate_leak_no_connection(fake: FakeApi, tmp_path: Path) -> None:
    """A plugin hands out another one each time; requests run side by side, and a watch goes on meanwhile."""
    for number in range(4):
        files = ["-keyout", str(tmp_path / f"key{number}"), "-out", str(tmp_path / f"crt{number}")]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={number}"]
        process = await asyncio.create_subprocess_exec(
            *("openssl", "req", "-x509", *curve, *files), stderr=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == 0
    script = (
        f"import json, os; d = {str(tmp_path)!r}; r = d + '/runs'; open(r, 'a').write('x');"
        "n = os.path.getsize(r) % 4; read = lambda name: open(f'{d}/{name}{n}').read();"
        "print(json.dumps({'status': {'expirationTimestamp': '2020-01-01T00:00:00Z',"
        "'clientCertificateData': read('crt'), 'clientKeyData': read('key')}}))"
    )
    user = {"exec": {"command": sys.executable, "args": ["-c", script]}}
    path = write_kubeconfig(tmp_path / "config", fake.url, user=user)
    fake.put("pods", pod("a"))
    before = sockets()
    async with await KubeApi.open(Options(kubeconfig=str(path), environment={})) as api:
        _, version = await listed(api, PODS, {}, name_of)
        async with aclosing(api.watch(PODS, {}, version)) as events:
            seen = asyncio.ensure_future(anext(events))
            await until(lambda: fake.watched("pods"))
            for _ in range(6):
                await asyncio.gather(*(api.get(f"{PODS}/a") for _ in range(4)))
            fake.put("pods", pod("b"))
            assert name_of((await seen)[1]) == "b", "a watch ends on the connection that it began on"
            # Both ends of the watch, and of what the last requests used.
            await until(lambda: sockets() - before <= 2 * (1 + 4))
        assert len((tmp_path / "runs").read_text()) > 20
        await api.get(f"{PODS}/a")
        assert api._retired == []
    await until(lambda: sockets() <= before)


class Closing:
    """Connections whose end takes a moment."""

    idle = True
    closed = False

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.closed = True


async def test_nobody_gets_connections_that_were_replaced_meanwhile(tmp_path: Path, fake: FakeApi) -> None:
    """Two requests with certificates of their own, side by side, while former connections are being closed."""
    async with await opened(tmp_path, fake, {}) as api:
        api._connect = lambda *_: Closing()  # type: ignore[assignment]  # all that is asked of them
        busy = [Closing(), Closing()]
        api._retired += busy  # type: ignore[arg-type]  # the same

        async def get(name: bytes) -> bool:
            found: Any = await api._current(Credentials(certificate=name, key=name))
            return bool(found.closed)

        assert await asyncio.gather(*(get(name) for name in (b"a", b"b", b"c", b"d"))) == [False] * 4
        await get(b"d")
        assert all(each.closed for each in busy)
