"""KubeApi: requests to one API server as one user, in plain dicts, with meshdev's errors.

Methods exist for what is called and nothing else; :mod:`meshdev.kube.access` reads the verb and resource of each from
its path, for errors and for the test that compares them with ``meshdev rbac``.
"""

import asyncio
import json
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from email.utils import parsedate_to_datetime
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import quote, urlencode, urlsplit

from meshdev.config import FIELD_MANAGER
from meshdev.errors import ClusterError, CredentialError, MeshdevError
from meshdev.kube import kubeconfig
from meshdev.kube.access import Access, access
from meshdev.kube.credentials import Credentials, CredentialSource
from meshdev.kube.endpoint import Endpoint, endpoint
from meshdev.kube.errors import GoneError, from_status
from meshdev.kube.kubeconfig import REQUEST_SECONDS, Kubeconfig, Options

if TYPE_CHECKING:
    from meshdev.kube.rest import Connections, Response
    from meshdev.ssh.jump import Jump

#: The server ends a watch after this many seconds; it is taken up again. Silence longer than that plus a grace means
#: that the connection is dead.
_WATCH_SECONDS: Final = 300
_WATCH_GRACE_SECONDS: Final = 15

_JSON: Final = "application/json"
Patch = Literal["apply", "strategic"]
#: https://kubernetes.io/docs/reference/using-api/server-side-apply/: JSON is YAML.
_PATCHES: Final[dict[Patch, str]] = {
    "apply": "application/apply-patch+yaml",
    "strategic": "application/strategic-merge-patch+json",
}

#: A Kubernetes object as it is on the wire.
Object = dict[str, Any]
Connect = Callable[[Endpoint, Credentials], "Connections"]


class KubeApi:
    """One context of a kubeconfig. Made by :meth:`open`; an async context manager.

    Every method raises MeshdevError kinds only: UnreachableError, UntrustedError, CredentialError, ForbiddenError,
    AdmissionError, and from :mod:`meshdev.kube.errors` NotFoundError, ConflictError, GoneError or their ClusterError.
    """

    def __init__(self, config: Kubeconfig, options: Options, connect: Connect, jump: "Jump | None" = None) -> None:
        self._seconds = options.request_timeout or REQUEST_SECONDS
        self._connect = connect
        self._source = CredentialSource(config, options.environment, options.directory)
        self._impersonate: str | None = options.as_user or config.user.get("as")
        self._connections: Connections | None = None
        self._retired: list[Connections] = []  # of former certificates, until their last answer is read
        self._certificate: tuple[bytes | None, bytes | None] = (None, None)
        self._server_clock: tuple[float, float] | None = None
        self.context: Final = config.context
        self.namespace: Final = config.namespace
        self.endpoint: Final = endpoint(config, options.environment, jump)
        self.server: Final = config.server
        #: Called with each question put to the authorizer; tests set it.
        self.on_access: Callable[[Access], None] = lambda _: None

    @classmethod
    async def open(cls, options: Options, jump: "Jump | None" = None) -> Self:
        """Read the kubeconfig and get the credentials; no request is made yet. Raises ConfigError and its kinds.

        *jump*, which becomes the API's, is the bastion's of ``options.ssh``; without it that is logged in at here.
        """
        config = kubeconfig.load(options)
        jump = jump or await asyncio.to_thread(open_jump, options)
        # In a thread, so that the caller's other tasks go on meanwhile.
        api = cls(config, options, await asyncio.to_thread(_import_connections), jump)
        await api._current(await api._source.get())
        return api

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; a second call does nothing."""
        if self._connections is not None:
            self._retired.append(self._connections)
            self._connections = None
        while self._retired:
            await self._retired.pop().close()
        if self.endpoint.jump is not None:
            self.endpoint.jump.close()

    # -- for carriers ----------------------------------------------------------------------------------------------

    async def auth_headers(self) -> dict[str, str]:
        """Headers that identify the user, renewed if they were about to expire."""
        return self._headers(await self._source.get())

    async def tls(self) -> ssl.SSLContext | None:
        """The context for connections to the server, None where it speaks plain HTTP."""
        if not self.endpoint.secure:
            return None
        return (await self._current(await self._source.get())).context

    async def renew(self) -> bool:
        """After a 401 outside of :meth:`request`: get other credentials. False where there are no others."""
        current = await self._source.get()
        return await self._source.get(rejected=current) != current

    def server_time(self) -> float | None:
        """Seconds since the epoch by the API server's clock, to the second; None before its first dated answer."""
        if self._server_clock is None:
            return None
        server, local = self._server_clock
        return server + time.monotonic() - local

    async def addresses(self) -> frozenset[IPv4Address]:
        """Every IPv4 address that connections to the server may go to: the server's own and its proxy's, or the
        bastion's.
        """
        if self.endpoint.jump is not None:
            return await self.endpoint.jump.addresses()
        found: set[IPv4Address] = set()
        for url in filter(None, (self.server, self.endpoint.proxy)):
            with suppress(OSError):  # behind a proxy the server's name may mean nothing here
                infos = await asyncio.get_running_loop().getaddrinfo(
                    urlsplit(url).hostname, None, family=socket.AF_INET, type=socket.SOCK_STREAM
                )
                found |= {IPv4Address(info[4][0]) for info in infos}
        return frozenset(found)

    # -- requests --------------------------------------------------------------------------------------------------

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        """The object or list at *path*; NotFoundError where there is none."""
        return await self.request("GET", path, query)

    async def create(self, path: str, body: Object, *, dry_run: bool = False) -> Object:
        """The object as created; ConflictError where the name is taken. *path* is that of the collection."""
        return await self.request("POST", path, _writing(dry_run), body)

    async def replace(self, path: str, body: Object) -> Object:
        """*body* holds metadata.resourceVersion; ConflictError where the object changed since."""
        return await self.request("PUT", path, _writing(), body)

    async def patch(self, path: str, kind: Patch, body: Object, *, dry_run: bool = False) -> Object:
        """The object as changed. "apply" takes over what others wrote of the same fields (``force``)."""
        query = _writing(dry_run) | ({"force": "true"} if kind == "apply" else {})
        return await self.request("PATCH", path, query, body, content=_PATCHES[kind])

    async def delete(self, path: str, *, uid: str) -> None:
        """Delete exactly the object with *uid*, what it owns in the background; ConflictError if it is another one."""
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
            "preconditions": {"uid": uid},
        }
        await self.request("DELETE", path, {}, options)

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        *,
        content: str = _JSON,
    ) -> Object:
        """One request; a 401 is tried again once with renewed credentials. *content* is the type of *body*."""
        response = await self._send(method, path, query or {}, body, self._seconds, content)
        try:
            parsed: Object = json.loads(await response.read())
        except ValueError as error:
            raise ClusterError(f"the API server {self.endpoint} answered {method} {path} with no JSON") from error
        finally:
            response.close()
        return parsed

    async def watch(self, path: str, query: Mapping[str, str], version: str) -> AsyncGenerator[tuple[str, Object]]:
        """Events (type, object) after resource *version* until the server ends the watch; BOOKMARKs among them.

        Raises GoneError when *version* is too old. Close the iterator (``contextlib.aclosing``) to end it early.
        """
        asked = {
            **query,
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(_WATCH_SECONDS),
        }
        response = await self._send("GET", path, asked, None, _WATCH_SECONDS + _WATCH_GRACE_SECONDS, stream=True)
        try:
            while line := await response.line():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise self._watch_error(path, asked, event["object"])
                yield event["type"], event["object"]
        except (ValueError, KeyError) as error:
            raise ClusterError(f"the API server {self.endpoint} sent a watch event that is none") from error
        finally:
            response.close()

    async def follow_log(self, namespace: str, pod: str, container: str, seconds: float) -> AsyncGenerator[bytes]:
        """The log of a container from its beginning, in pieces, until the container ends or *seconds* of silence.

        Close the iterator (``contextlib.aclosing``) to end it early. ClusterError where the container does not run yet.
        """
        query = {"container": container, "follow": "true"}
        async with aclosing(self.log(namespace, pod, query, seconds)) as pieces:
            async for piece in pieces:
                yield piece

    async def log(self, namespace: str, pod: str, query: Mapping[str, str], seconds: float) -> AsyncGenerator[bytes]:
        """A log in pieces, as *query* asks for it (core/v1: PodLogOptions); else as above."""
        response = await self._send("GET", pods_path(namespace, pod, "log"), query, None, seconds, stream=True)
        try:
            while piece := await response.piece():
                yield piece
        finally:
            response.close()

    def _watch_error(self, path: str, query: Mapping[str, str], status: Object) -> MeshdevError:
        if status.get("code") == 410:
            return GoneError(str(status.get("message")))
        return from_status(access("GET", path, query), int(status.get("code") or 500), json.dumps(status).encode())

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Object | None,
        seconds: float,
        content: str = _JSON,
        *,
        stream: bool = False,
    ) -> "Response":
        """An answer with status < 300, not yet read."""
        asked = access(method, path, query)
        self.on_access(asked)
        url = f"{self.server}{path}{'?' + urlencode(query, quote_via=quote) if query else ''}"
        credentials = await self._source.get()
        for attempt in (1, 2):
            connections = await self._current(credentials)
            headers = {"Accept": _JSON, "Content-Type": content, **self._headers(credentials)}
            response = await connections.send(method, url, headers, body, seconds, watch=stream)
            if response.status < 300:
                self._note_time(response.date)
                return response
            try:
                refusal = from_status(asked, response.status, await response.read())
            finally:
                response.close()
            if not isinstance(refusal, CredentialError) or attempt == 2:
                raise refusal
            rejected, credentials = credentials, await self._source.get(rejected=credentials)
            if credentials == rejected:
                raise refusal
        raise AssertionError  # pragma: no cover -- the second attempt returns or raises

    def _note_time(self, date: str) -> None:
        """*date* as in RFC 9110, 6.6.1; the server sends whole seconds, and is asked about half a minute and more."""
        with suppress(ValueError, OverflowError):
            self._server_clock = (parsedate_to_datetime(date).timestamp(), time.monotonic())

    def _headers(self, credentials: Credentials) -> dict[str, str]:
        headers = {}
        if credentials.authorization:
            headers["Authorization"] = credentials.authorization
        if self._impersonate:
            headers["Impersonate-User"] = self._impersonate
        return headers

    async def _current(self, credentials: Credentials) -> "Connections":
        """The connections for *credentials*: new ones where a plugin handed out another certificate.

        Requests under way and watches end on the former connections, which are closed then.
        """
        self._choose(credentials)
        while idle := next((each for each in self._retired if each.idle), None):
            self._retired.remove(idle)
            await idle.close()
        return self._choose(credentials)  # another caller may have replaced and closed them meanwhile

    def _choose(self, credentials: Credentials) -> "Connections":
        """Nothing is awaited between looking and replacing: of two callers with the same news one makes them."""
        certificate = (credentials.certificate, credentials.key)
        if self._connections is None or certificate != self._certificate:
            if self._connections is not None:
                self._retired.append(self._connections)
            self._connections = self._connect(self.endpoint, credentials)
            self._certificate = certificate
        return self._connections


def _import_connections() -> Connect:
    from meshdev.kube.rest import Connections  # noqa: PLC0415 -- 0.4 s; the CLI does without

    return Connections


def open_jump(options: Options) -> "Jump | None":
    """Log in at the bastion of *options*, if they have one. Blocks. Raises SshError, UnreachableError."""
    if options.ssh is None:
        return None
    from meshdev.ssh import jump  # noqa: PLC0415 -- with --ssh only

    return jump.opened(options.ssh)


def _writing(dry_run: bool = False) -> dict[str, str]:
    return {"fieldManager": FIELD_MANAGER, **({"dryRun": "All"} if dry_run else {})}


def deployments_path(namespace: str, name: str = "") -> str:
    """Deployments of a namespace, or one of them."""
    return workloads_path(namespace, "deployment", name)


def pods_path(namespace: str, name: str = "", subresource: str = "") -> str:
    """Pods of a namespace, one of them, or a subresource of it (``log``, ``portforward``, …)."""
    return _path("/api/v1", namespace, "pods", name, subresource)


def services_path(namespace: str, name: str = "") -> str:
    """Services of a namespace, or one of them."""
    return _path("/api/v1", namespace, "services", name)


def entries_path(namespace: str, kind: Literal["ConfigMap", "Secret"], name: str) -> str:
    """A ConfigMap or a Secret."""
    return _path("/api/v1", namespace, f"{kind.lower()}s", name)


def token_path(namespace: str, account: str) -> str:
    """Where a token of a service account is asked for (TokenRequest)."""
    return _path("/api/v1", namespace, "serviceaccounts", account, "token")


def node_path(name: str) -> str:
    """A node."""
    return _path("/api/v1", "", "nodes", name)


def leases_path(namespace: str = "", name: str = "") -> str:
    """Leases of a namespace, of all without one, or one of them."""
    return _path("/apis/coordination.k8s.io/v1", namespace, "leases", name)


def workloads_path(namespace: str, kind: str, name: str = "") -> str:
    """Objects of a *kind* of apps/v1, pods or Services, or one of them; *kind* in lower case and singular."""
    return _path("/api/v1" if kind in {"pod", "service"} else "/apis/apps/v1", namespace, f"{kind}s", name)


def _path(group: str, namespace: str, *parts: str) -> str:
    where = ("namespaces", namespace) if namespace else ()
    return "/".join((group, *map(quote, filter(None, (*where, *parts)))))
