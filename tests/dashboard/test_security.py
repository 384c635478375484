"""Who is refused, over real sockets: nothing of the feed comes back, and nothing is left."""

import gzip
import logging

import pytest

from meshdev.dashboard import server
from meshdev.dashboard.client_events import FeedEvent
from tests.dashboard.client import TOKEN, Dashboard, SyntheticFeed, dashboard
from tests.metrics.client import exchange, read

SECRET = FeedEvent("state", {"session": "SECRET"})


def refused_headers(port: int) -> dict[str, tuple[int, dict[str, str | None]]]:
    return {
        "no token": (401, {"Authorization": None}),
        "a wrong token": (401, {"Authorization": "Bearer wrong"}),
        "a prefix of the token": (401, {"Authorization": f"Bearer {TOKEN[:-1]}"}),
        "more than the token": (401, {"Authorization": f"Bearer {TOKEN}x"}),
        "another scheme": (401, {"Authorization": f"Basic {TOKEN}"}),
        "a token that is no ASCII": (401, {"Authorization": "Bearer \xff\xfe"}),
        "a name that leads here (DNS rebinding)": (421, {"Host": f"rebound.example:{port}"}),
        "the name without its port": (421, {"Host": "127.0.0.1"}),
        "another port": (421, {"Host": "127.0.0.1:80"}),
        "a name that begins like ours": (421, {"Host": f"127.0.0.1.rebound.example:{port}"}),
        "no name": (421, {"Host": ""}),
        "another origin": (403, {"Origin": "https://evil.example"}),
        "another port's origin": (403, {"Origin": "http://127.0.0.1:80"}),
        "the origin of a file": (403, {"Origin": "null"}),
        "our other name's origin": (403, {"Origin": f"http://localhost:{port}"}),
        "our name by another scheme": (403, {"Origin": f"https://127.0.0.1:{port}"}),
        "another site": (403, {"Sec-Fetch-Site": "cross-site"}),
        "another port of this machine": (403, {"Sec-Fetch-Site": "same-site"}),
        "a site that no browser has": (403, {"Sec-Fetch-Site": "x"}),
    }


CASES = sorted(refused_headers(0))


@pytest.mark.parametrize("case", CASES)
async def test_events_are_not_for(case: str) -> None:
    async with dashboard(SyntheticFeed(SECRET)) as there:
        status, headers = refused_headers(there.port)[case]
        found, answered, body = await there.ask("GET", "/events", headers)
        assert found == status
        assert b"SECRET" not in body
        assert TOKEN.encode() not in body
        assert "access-control-allow-origin" not in answered
        assert there.feed.clients == []


@pytest.mark.parametrize("case", CASES)
async def test_leave_is_not_for(case: str) -> None:
    async with dashboard() as there:
        status, headers = refused_headers(there.port)[case]
        assert (await there.post({"id": "one"}, headers))[0] == status
        assert there.feed.left == []


async def test_two_hosts_or_two_tokens_are_none() -> None:
    async with dashboard() as there:
        for name, other in (("Host", "rebound.example"), ("Authorization", "Bearer wrong")):
            head = there.head("GET", "/events", {}).replace(b"\r\n", f"\r\n{name}: {other}\r\n".encode(), 1)
            assert read(await exchange(there.port, head))[0] in {400, 401, 421}


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST"])
async def test_the_page_itself_may_leave(name: str) -> None:
    async with dashboard() as there:
        headers = {
            "Host": f"{name}:{there.port}",
            "Origin": f"http://{name.lower()}:{there.port}",
            "Sec-Fetch-Site": "same-origin",
        }
        status, _, body = await there.post({"id": "one"}, headers)
        assert (status, body, there.feed.left) == (200, b"{}", ["one"])


@pytest.mark.parametrize(
    "kind",
    [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/plain;application/json"],
)
async def test_what_a_form_can_send_is_refused(kind: str | None) -> None:
    async with dashboard() as there:
        status, _, _ = await there.post({"id": "one"}, {"Content-Type": kind})
        assert (status, there.feed.left) == (415, [])


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"id": 1}', b'{"id": "a", "b": 1}', b"[" * 4000, b'{"id": "' + b"a" * 9000 + b'"}']
)
async def test_other_bodies_are_refused(body: bytes) -> None:
    async with dashboard() as there:
        status, _, _ = await there.post(body)
        assert (status, there.feed.left) == (400, [])


async def test_a_body_is_not_unpacked() -> None:
    """A few bytes may become gigabytes."""
    async with dashboard() as there:
        status, _, _ = await there.post(gzip.compress(b'{"id": "one"}'), {"Content-Encoding": "gzip"})
        assert (status, there.feed.left) == (400, [])


async def test_a_preflight_is_refused() -> None:
    async with dashboard() as there:
        headers = {
            "Authorization": None,
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        status, answered, _ = await there.ask("OPTIONS", "/leave", headers)
        assert status == 403
        assert not any(name.startswith("access-control") for name in answered)


@pytest.mark.parametrize("path", ["/", "/index.html"])
async def test_the_page_needs_no_token(path: str) -> None:
    async with dashboard() as there:
        status, headers, body = await there.ask("GET", path, {"Authorization": None})
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"meshdev" in body
        assert TOKEN.encode() not in body


async def test_a_file_may_open_the_page_and_a_site_embed_nothing_of_it() -> None:
    async with dashboard() as there:
        opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert (await there.ask("GET", "/", opened))[0] == 200
        for mode, kind in (("navigate", "iframe"), ("no-cors", "script"), ("cors", "empty")):
            headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": kind}
            assert (await there.ask("GET", "/", headers))[0] == 403
        assert (await there.ask("GET", "/", {"Host": "rebound.example"}))[0] == 421


async def test_events_cannot_be_opened_as_a_page() -> None:
    async with dashboard() as there:
        opened = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
        assert (await there.ask("GET", "/events", opened))[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        *("/../security.py", "/static/../../security.py", "/%2e%2e/security.py", "/..%2fsecurity.py", "//etc/passwd"),
        *("/static/index.html", "/index.html/", "/./index.html", "/index.html%00", "/\\..\\security.py", "/x"),
    ],
)
async def test_no_path_leads_to_another_file(path: str) -> None:
    async with dashboard() as there:
        status, _, body = await there.ask("GET", path)
        assert status in {400, 404}
        assert b"import" not in body
        assert (await there.ask("GET", path, {"Authorization": None}))[0] in {400, 401}


@pytest.mark.parametrize("path", ["/", "/events", "/leave", "/x"])
async def test_every_answer_has_the_headers_that_keep_others_out(path: str) -> None:
    async with dashboard() as there:
        for headers in ({}, {"Authorization": None}, {"Host": "rebound.example"}):
            _, answered, _ = await there.ask("POST", path, headers)
            policy = answered["content-security-policy"]
            assert policy.startswith("default-src 'none'; script-src 'self'; ")
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert answered["x-content-type-options"] == "nosniff"
            assert answered["referrer-policy"] == "no-referrer"
            assert answered["cache-control"] == "no-store"
            assert answered["cross-origin-opener-policy"] == "same-origin"
            assert answered["cross-origin-resource-policy"] == "same-origin"
            assert answered["server"] == "meshdev"


async def test_huge_headers_are_refused() -> None:
    async with dashboard() as there:
        for headers in ({"X": "a" * 70_000}, {f"X-{number}": "a" * 60 for number in range(2000)}):
            assert (await there.ask("GET", "/", headers))[0] == 400
        assert (await there.ask("GET", f"/?{'a' * 70_000}"))[0] == 400


async def test_other_methods_are_refused() -> None:
    async with dashboard(SyntheticFeed(SECRET)) as there:
        for method, path in (("CONNECT", f"127.0.0.1:{there.port}"), ("TRACE", "/events"), ("PRI", "*")):
            status, _, body = await there.ask(method, path)
            assert (400 <= status < 500, b"SECRET" in body, TOKEN.encode() in body) == (True, False, False)
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Authorization": None}
        assert (await there.ask("GET", "/events", upgrade))[0] == 401
        for method, path in (("POST", "/"), ("DELETE", "/leave"), ("GET", "/leave"), ("PUT", "/events")):
            assert (await there.ask(method, path))[0] == 405


async def _everything(there: Dashboard) -> None:
    """All that may come with the right token, well and badly formed."""
    token = f"Bearer {TOKEN}"
    await there.ask("GET", "/")
    await there.ask("GET", f"/events?token={TOKEN}", {"Authorization": None})
    await there.ask("GET", "/x", {"Origin": "null"})
    await there.post({"id": TOKEN})
    async with there.streaming() as stream:
        assert await stream.status() == 200
        await stream.next()
    for head in (b"GET / HTTP/1.1\r\nAuthorization", b"GET /events HTTP/9\r\nAuthorization", b"\x16\x03Authorization"):
        await exchange(there.port, head + f": {token}\r\nBad\x01Header: {token}\r\n\r\n".encode())
    await there.ask("GET", "/", {"Authorization": token + "x" * 9000})
    await there.ask("GET", "/events", {"Authorization": token + "\x01"})


async def test_the_log_never_has_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with dashboard(SyntheticFeed(SECRET)) as there:
        await _everything(there)
    assert TOKEN not in caplog.text
    assert TOKEN[:8] not in caplog.text


async def test_the_log_does_have_what_breaks(caplog: pytest.LogCaptureFixture) -> None:
    async with dashboard() as there:
        there.feed.error = RuntimeError("broken")
        status, _, body = await there.post({"id": "one"})
    assert (status, b"broken" in body) == (500, False)
    assert "RuntimeError: broken" in caplog.text
    assert server.log.name in {record.name.removesuffix(".http") for record in caplog.records}
