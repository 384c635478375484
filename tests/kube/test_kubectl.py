"""The same kubeconfigs and environments to kubectl and to meshdev: what one of them takes, the other takes."""

import asyncio
import base64
import json
import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from meshdev.errors import MeshdevError
from meshdev.kube.client import KubeApi
from meshdev.kube.kubeconfig import Options
from tests.cluster import packages
from tests.kube.proxies import piped

#: The certificate is for it; nobody but the proxy knows where it is.
CORP: Final = "api.corp.test"
TOKEN: Final = "s3cret"  # noqa: S105 -- of the server below


@dataclass
class World:
    """A server that wants TLS and a token, a proxy in front of it, and a kubeconfig to change."""

    folder: Path
    authority: str
    port: int = 0
    plain: int = 0
    proxy: int = 0
    tunnels: list[str] = field(default_factory=list)

    def config(self, server: Any = "", user: Any = None, **cluster: Any) -> dict[str, Any]:
        data = base64.b64encode(self.authority.encode()).decode()
        merged = {"server": server or f"https://127.0.0.1:{self.port}", "certificate-authority-data": data, **cluster}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {key: value for key, value in merged.items() if value is not None}}],
            "users": [{"name": "u", "user": {"token": TOKEN} if user is None else user}],
        }


@pytest.fixture(scope="module")
def kubectl() -> str:
    return str(packages.kubectl())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    names = f"subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:{CORP}"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=k", "-addext", names]
    files = ["-keyout", str(folder / "key"), "-out", str(folder / "crt")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    return folder


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, anybody: bool = False) -> None:
    with_token = ("bearer " + TOKEN, "basic " + base64.b64encode(f"u:{TOKEN}".encode()).decode().lower())
    try:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            given = [line.partition(": ")[2].lower() for line in head.split("\r\n") if line.lower().startswith("auth")]
            status = "200 OK" if anybody or (given and given[0] in with_token) else "401 Unauthorized"
            body = '{"major": "1", "minor": "35", "gitVersion": "v1.35.0"}'
            kind = "Content-Type: application/json"
            writer.write(f"HTTP/1.1 {status}\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


@pytest.fixture
async def world(certificate: Path, tmp_path: Path) -> AsyncIterator[World]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "crt", certificate / "key")
    made = World(tmp_path, (certificate / "crt").read_text())

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = (await reader.readuntil(b"\r\n\r\n")).decode().split()[1]
        made.tunnels.append(target)
        there, back = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(piped(reader, back), piped(there, writer), return_exceptions=True)

    server = await asyncio.start_server(_serve, "127.0.0.1", 0, ssl=context)
    plain = await asyncio.start_server(partial(_serve, anybody=True), "127.0.0.1", 0)  # kubectl sends it no token
    proxy = await asyncio.start_server(connect, "127.0.0.1", 0)
    made.port, made.plain, made.proxy = (each.sockets[0].getsockname()[1] for each in (server, plain, proxy))
    yield made
    for each in (server, plain, proxy):
        each.close()


@dataclass(frozen=True)
class Case:
    """*make* gives the kubeconfig, as JSON's value or as it is to be written."""

    name: str
    make: Callable[[World], Any]
    environment: dict[str, str] = field(default_factory=dict)
    works: bool = True
    through: bool = False
    """Whether the proxy was used."""


def _ca(change: Callable[[bytes], bytes]) -> Callable[[World], Any]:
    def make(world: World) -> Any:
        (world.folder / "ca").write_bytes(change(world.authority.encode()))
        return world.config(**{"certificate-authority": "ca", "certificate-authority-data": None})

    return make


def _plugin(world: World) -> Any:
    """Its arguments are relative to where the user stands, its command to the kubeconfig."""
    (world.folder / "here").mkdir()
    (world.folder / "here" / "credential").write_text(
        json.dumps(
            {
                "apiVersion": "client.authentication.k8s.io/v1",
                "kind": "ExecCredential",
                "status": {"token": TOKEN},
            }
        )
    )
    plugin = world.folder / "plugin"
    plugin.write_text('#!/bin/sh\nexec cat "$1"\n')
    plugin.chmod(0o755)
    version = "client.authentication.k8s.io/v1"
    return world.config(
        user={
            "exec": {"apiVersion": version, "command": "./plugin", "args": ["./credential"], "interactiveMode": "Never"}
        }
    )


def _yaml(extra: str = "", name: str = "c", tabs: bool = False) -> Callable[[World], str]:
    def make(world: World) -> str:
        data = base64.b64encode(world.authority.encode()).decode()
        tab = "\t" if tabs else ""
        return (
            f"clusters:\n- name: {name}\n  cluster: {{{tab}server: 'https://127.0.0.1:{world.port}',"
            f"{tab} certificate-authority-data: {data}}}\n"
            f"contexts:\n- name: {name}\n  context: {{cluster: {name}, user: u}}\n"
            f"users:\n- name: u\n  user:\n    token: {TOKEN}\ncurrent-context: {name}\n{extra}"
        )

    return make


def _corp(world: World) -> Any:
    return world.config(f"https://{CORP}:{world.port}")


def _proxied(name: str, no_proxy: str, *, through: bool, proxy: str = "http://127.0.0.1:PORT") -> Case:
    environment = {"HTTPS_PROXY": proxy, "NO_PROXY": no_proxy}
    return Case(name, _corp, environment, works=through, through=through)


def _loopback(host: str) -> Callable[[World], Any]:
    return lambda world: world.config(f"https://{host}:{world.port}")


PROXY: Final = {"HTTPS_PROXY": "http://127.0.0.1:PORT"}
CASES: Final = (
    Case("plain", lambda world: world.config()),
    Case("wrong token", lambda world: world.config(user={"token": "x"}), works=False),
    Case("JSON with tabs", lambda world: json.dumps(world.config(), indent="\t")),
    Case("YAML with tabs between tokens", _yaml(tabs=True)),
    Case("a trailing ---", _yaml("---\n")),
    Case("a second document that is broken", _yaml("---\n{[\n")),
    Case("a leading ---", lambda world: "---\n" + _yaml()(world)),
    Case("a byte order mark", lambda world: "\ufeff" + _yaml()(world)),
    Case("UTF-16", lambda world: _yaml()(world).encode("utf-16")),
    Case("a date as a name", _yaml(name="2024-01-01")),
    Case("a sexagesimal number as a name", _yaml(name="12:30:45")),
    Case("a number as a name", _yaml(name="7"), works=False),
    Case("yes as a name", _yaml(name="yes"), works=False),
    Case("a number as a token", lambda world: world.config(user={"token": 12}), works=False),
    Case("a null", lambda world: world.config(user={"token": TOKEN, "tokenFile": None})),
    Case("the same name twice", lambda world: {**world.config(), "users": world.config()["users"] * 2}, works=False),
    Case("a server without a scheme", lambda world: world.config(f"127.0.0.1:{world.plain}")),
    Case("a name without a scheme", lambda world: world.config(f"localhost:{world.plain}")),
    Case("a server without a scheme that speaks TLS", lambda w: w.config(f"127.0.0.1:{w.port}"), works=False),
    Case("a server with a path without a scheme", lambda world: world.config(f"localhost:{world.port}/x"), works=False),
    Case("a server with a final slash", lambda world: world.config(f"https://127.0.0.1:{world.port}/")),
    Case("no such scheme", lambda world: world.config(f"ftp://127.0.0.1:{world.port}"), works=False),
    Case(
        "user info in the URL",
        lambda world: world.config(f"https://u:{TOKEN}@127.0.0.1:{world.port}", user={"token": "x"}),
    ),
    Case("user info wins", lambda world: world.config(f"https://u:x@127.0.0.1:{world.port}"), works=False),
    Case("tls-server-name", lambda world: world.config(**{"tls-server-name": CORP})),
    Case("another tls-server-name", lambda world: world.config(**{"tls-server-name": "x.test"}), works=False),
    Case("a CA with a comment in Latin-1", _ca(lambda ca: "# Zürich\n".encode("latin-1") + ca)),
    Case("a CA with blank lines", _ca(lambda ca: b"\n\n \n" + ca)),
    Case("a CA with a byte order mark and a comment", _ca(lambda ca: b"\xef\xbb\xbf# CA\n" + ca)),
    Case("a CA with Windows' line ends", _ca(lambda ca: ca.replace(b"\n", b"\r\n"))),
    Case("a CA with blanks in its lines", _ca(lambda ca: ca.replace(b"\nMII", b"\n  MII"))),
    Case("a CA after a broken one", _ca(lambda ca: ca.replace(b"MII", b"AAA", 1) + ca)),
    Case("a CA after a key", _ca(lambda ca: b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" + ca)),
    Case("no CA at all", _ca(lambda _: b"hello\n"), works=False),
    Case("no base64", lambda world: world.config(**{"certificate-authority-data": "%%%"}), works=False),
    Case("insecure", lambda w: w.config(**{"certificate-authority-data": None, "insecure-skip-tls-verify": True})),
    Case("insecure and a CA", lambda world: world.config(**{"insecure-skip-tls-verify": True}), works=False),
    Case("a plugin with relative arguments", _plugin),
    Case("a token file that is missing", lambda w: w.config(user={"tokenFile": "none"}), works=False),
    Case("a token, and a token file that is missing", lambda w: w.config(user={"token": TOKEN, "tokenFile": "none"})),
    _proxied("a proxy", "", through=True),
    _proxied("a proxy without a scheme", "", through=True, proxy="127.0.0.1:PORT"),
    _proxied("another domain", "corp.example, *.tests", through=True),
    _proxied("*.corp", "*.corp.test", through=False),
    _proxied(".corp", "x,.corp.test", through=False),
    _proxied("corp", " corp.test ", through=False),
    _proxied("the server itself", CORP.upper(), through=False),
    _proxied("another port of it", f"{CORP}:1", through=True),
    _proxied("everything", "*", through=False),
    _proxied("a part of the name", "i.corp.test", through=True),
    _proxied("no network is a name", "0.0.0.0/0", through=True),
    Case("lower case", _corp, {"https_proxy": "http://127.0.0.1:PORT"}, through=True),
    Case("HTTP_PROXY is for http", _corp, {"HTTP_PROXY": "http://127.0.0.1:PORT"}, works=False),
    Case("ALL_PROXY is not Go's", _corp, {"ALL_PROXY": "http://127.0.0.1:PORT"}, works=False),
    Case("loopback by no proxy", _loopback("127.0.0.1"), PROXY),
    Case("localhost by no proxy", _loopback("localhost"), PROXY),
    Case(
        "proxy-url counts, whatever NO_PROXY says",
        lambda world: world.config(f"https://{CORP}:{world.port}", **{"proxy-url": f"http://127.0.0.1:{world.proxy}"}),
        {"NO_PROXY": "*"},
        through=True,
    ),
    Case("proxy-url without a scheme", lambda w: w.config(**{"proxy-url": f"127.0.0.1:{w.proxy}"}), works=False),
    Case(
        "a network", lambda w: w.config(f"https://192.0.2.7:{w.port}", **{"tls-server-name": CORP}), PROXY, through=True
    ),
)


async def _meshdev(path: Path, environment: dict[str, str], directory: Path) -> str:
    options = Options(str(path), environment=environment, directory=str(directory), request_timeout=5)
    try:
        async with await KubeApi.open(options) as api:
            await api.get("/version")
    except MeshdevError as error:
        return f"{type(error).__name__}: {error}"
    return "works"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_kubectl_and_meshdev_agree(world: World, kubectl: str, case: Case) -> None:
    made = case.make(world)
    path, here = world.folder / "config", world.folder / "here"
    here.mkdir(exist_ok=True)
    path.write_bytes(
        made if isinstance(made, bytes) else (made if isinstance(made, str) else json.dumps(made)).encode()
    )
    environment = {name: value.replace("PORT", str(world.proxy)) for name, value in case.environment.items()}
    environment |= {"HOME": str(world.folder), "PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        *(kubectl, "--kubeconfig", str(path), "--request-timeout=5s", "get", "--raw", "/version"),
        cwd=here,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    theirs, world.tunnels = bool(world.tunnels), []
    ours = await _meshdev(path, environment, here)
    told = f"kubectl: {out.decode(errors='replace')}meshdev: {ours}"
    assert (process.returncode == 0, ours == "works") == (case.works, case.works), told
    if case.works:
        assert (theirs, bool(world.tunnels)) == (case.through, case.through), told
