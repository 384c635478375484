"""An API server in a few hundred lines: objects with versions, lists in pages, watches, RBAC, uid preconditions.

It speaks real HTTP on a local port, so that the real client is under test. It rejects what the real one rejects: names
that are taken, stale resource versions, wrong uids, namespaces that are not there.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any

from aiohttp import web

from meshdev.kube.access import Access, access
from tests.kube.fake_patches import Patches

Object = dict[str, Any]


@dataclass
class FakeApi:
    """State and switches. *url* is set while it serves."""

    url: str = ""
    namespaces: set[str] = field(default_factory=lambda: {"default"})
    objects: dict[tuple[str, str], dict[tuple[str, str], Object]] = field(default_factory=dict)
    asked: list[Access] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    allow: Callable[[Access], bool] = lambda _: True
    authenticate: Callable[[str], bool] = lambda _: True
    created: Callable[[str, Object], None] = lambda _resource, _item: None  # controllers: what a create sets off
    deleted: Callable[[str], None] = lambda _resource: None
    #: An admission plugin's answer, by verb or by verb and resource: "patch", "patch pods/ephemeralcontainers".
    refuse: dict[str, tuple[int, str]] = field(default_factory=dict)
    #: Of containers, by pod and container; a log that is not there is one of a container that does not run yet.
    logs: dict[tuple[str, str], bytes] = field(default_factory=dict)
    log_queries: list[dict[str, str]] = field(default_factory=list)  # what of them was asked for
    advertised: list[dict[str, str]] = field(default_factory=list)  # what /api says of the server's own addresses
    kubernetes: str = "v1.35.0"  # what /version says
    patches: Patches = field(default_factory=Patches)
    writing: Callable[[Access, Object], None] = lambda _asked, _item: None  # what others do just before a patch
    oldest: int = 0  # watches from before this version are gone (410)
    version: int = 100
    created_at: str = "2026-01-01T00:00:00Z"  # the server's clock
    clock: Callable[[], float] = time.time  # the same, for the Date of answers and for when a Lease was written
    log: list[tuple[int, str, tuple[str, str], Object]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    epoch: int = 0  # a watch ends when it changes
    mute: bool = False  # watches tell nothing, and do not end

    # -- what tests do ---------------------------------------------------------------------------------------------

    def put(self, resource: str, item: Object, namespace: str = "default", group: str = "") -> Object:
        """Create or update, as a controller would."""
        kind, key = (group, resource), (namespace, item["metadata"]["name"])
        there = self.objects.setdefault(kind, {})
        self.version += 1
        meta = {**item["metadata"], "namespace": namespace, "resourceVersion": str(self.version)}
        meta.setdefault("uid", there[key]["metadata"]["uid"] if key in there else f"uid-{self.version}")
        if key in there:
            meta.setdefault("creationTimestamp", there[key]["metadata"]["creationTimestamp"])
        meta.setdefault("creationTimestamp", self.created_at)
        if resource == "leases":
            written = datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            meta["managedFields"] = [{"manager": "meshdev", "operation": "Update", "time": written}]
        event = "MODIFIED" if key in there else "ADDED"
        there[key] = {**deepcopy(item), "metadata": meta}
        self._emit(event, kind, there[key])
        return there[key]

    def remove(self, resource: str, name: str, namespace: str = "default", group: str = "") -> None:
        """Delete."""
        self.version += 1
        self._emit("DELETED", (group, resource), self.objects[group, resource].pop((namespace, name)))

    def names(self, resource: str, group: str = "") -> list[str]:
        """What is there, as ``namespace/name``."""
        return sorted("/".join(key) for key in self.objects.get((group, resource), {}))

    def watched(self, resource: str) -> bool:
        """Whether somebody began to watch."""
        return any((asked.verb, asked.resource) == ("watch", resource) for asked in self.asked)

    def end_watches(self) -> None:
        """As a server does that restarts."""
        self.epoch += 1
        self._wake()

    def forget(self) -> None:
        """Compact: nobody can watch from an old version, and those who do are told so (410)."""
        self.oldest = self.version = self.version + 1
        self.end_watches()

    # -- the server ------------------------------------------------------------------------------------------------

    def _emit(self, event: str, kind: tuple[str, str], item: Object) -> None:
        self.log.append((self.version, event, kind, deepcopy(item)))
        self._wake()

    def _wake(self) -> None:
        async def notify() -> None:
            async with self.changed:
                self.changed.notify_all()

        self._notifier = asyncio.ensure_future(notify())

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Every request."""
        response = await self._handle(request)
        if not response.prepared:
            response.headers["Date"] = formatdate(self.clock(), usegmt=True)
        return response

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.headers.append(dict(request.headers))
        asked = access(request.method, request.path, dict(request.query))
        self.asked.append(asked)
        if not self.authenticate(request.headers.get("Authorization", "")):
            return _status(401, "Unauthorized")
        if asked.resource != "selfsubjectaccessreviews" and not self.allow(asked):  # system:basic-user: all may ask
            where = f'in the namespace "{asked.namespace}"' if asked.namespace else "at the cluster scope"
            return _status(
                403,
                f'{asked.resource} is forbidden: User "dev" cannot {asked.verb} resource "{asked.resource}" '
                f'in API group "{asked.group}" {where}',
            )
        refused = self.refuse.get(asked.verb) or self.refuse.get(f"{asked.verb} {asked.resource}")
        if refused:
            return _status(*refused)
        if "/" in asked.resource and asked.verb != "patch" and asked.resource != "serviceaccounts/token":
            return self._other(asked, request.query)
        if asked.verb == "watch":
            response = web.StreamResponse()
            with suppress(ConnectionError):  # the client may leave at any time
                await self._watch(request, asked, response)
            return response
        body = await request.json() if request.can_read_body else {}
        self._content = request.content_type
        verbs = {"get": self._get, "list": self._list, "create": self._create, "update": self._update}
        return (verbs | {"patch": self._patch, "delete": self._delete})[asked.verb](asked, dict(request.query), body)

    def _other(self, asked: Access, query: Mapping[str, str]) -> web.Response:
        """What is no object."""
        if asked.resource == "/api":
            return web.json_response({"kind": "APIVersions", "serverAddressByClientCIDRs": self.advertised})
        if asked.resource == "/version":
            return web.json_response({"gitVersion": self.kubernetes})
        if asked.resource != "pods/log":
            return _status(400, "Upgrade request required")
        self.log_queries.append(dict(query))
        log = self.logs.get((asked.name, query["container"]))
        waits = f'container "{query["container"]}" in pod "{asked.name}" is waiting to start: ContainerCreating'
        return web.Response(body=log) if log is not None else _status(400, waits)

    def _token(self, asked: Access, request: Object) -> web.Response:
        """A token that says what was asked for."""
        return web.json_response(
            {**request, "status": {"token": f"{asked.name} {json.dumps(request['spec'])}"}}, status=201
        )

    def _reviewed(self, review: Object) -> web.Response:
        about = review["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (about["resource"], about["subresource"])))
        asked = Access(about["verb"], about["group"], resource, about["namespace"], about["name"])
        return web.json_response({**review, "status": {"allowed": self.allow(asked)}}, status=201)

    def _kind(self, asked: Access) -> dict[tuple[str, str], Object]:
        return self.objects.setdefault((asked.group, asked.resource), {})

    def _get(self, asked: Access, _query: dict[str, str], _body: Object) -> web.Response:
        item = self._kind(asked).get((asked.namespace, asked.name))
        return web.json_response(item) if item else _status(404, f'{asked.resource} "{asked.name}" not found')

    def _list(self, asked: Access, query: dict[str, str], _body: Object) -> web.Response:
        items = [item for item in self._kind(asked).values() if _selected(item, asked, query)]
        start, limit = int(query.get("continue", "0")), int(query.get("limit", "500"))
        meta = {"resourceVersion": str(self.version)}
        if start + limit < len(items):
            meta["continue"] = str(start + limit)
        return web.json_response({"metadata": meta, "items": items[start : start + limit]})

    def _create(self, asked: Access, query: dict[str, str], body: Object) -> web.Response:
        if asked.resource == "selfsubjectaccessreviews":
            return self._reviewed(body)
        if asked.resource == "serviceaccounts/token":
            return self._token(asked, body)
        if asked.namespace not in self.namespaces:
            return _status(404, f'namespaces "{asked.namespace}" not found')
        if query.get("dryRun") == "All":
            return web.json_response(body, status=201)
        name = body["metadata"]["name"]
        if (asked.namespace, name) in self._kind(asked):
            return _status(409, f'{asked.resource} "{name}" already exists')
        if asked.resource == "services":
            body["spec"].setdefault("clusterIP", f"10.96.{self.version >> 8 & 255}.{self.version & 255}")
        item = self.put(asked.resource, body, asked.namespace, asked.group)
        self.created(asked.resource, item)
        return web.json_response(item, status=201)

    def _update(self, asked: Access, _query: dict[str, str], body: Object) -> web.Response:
        there = self._kind(asked).get((asked.namespace, asked.name))
        if there is None:
            return _status(404, f'{asked.resource} "{asked.name}" not found')
        if there["metadata"]["resourceVersion"] != body["metadata"].get("resourceVersion"):
            return _status(409, "the object has been modified")
        item = self.put(asked.resource, body, asked.namespace, asked.group)
        self.created(asked.resource, item)
        return web.json_response(item)

    def _patch(self, asked: Access, query: dict[str, str], body: Object) -> web.Response:
        resource, key = asked.resource.partition("/")[0], (asked.namespace, asked.name)
        kind = self.objects.setdefault((asked.group, resource), {})
        if key not in kind:
            return _status(404, f'{resource} "{asked.name}" not found')
        self.writing(asked, kind[key])
        there, wanted = kind[key], body.get("metadata") or {}
        for name in ("uid", "resourceVersion"):
            if wanted.get(name, there["metadata"][name]) != there["metadata"][name]:
                return _status(409, f"the object has been modified: {name}")
        dry_run = query.get("dryRun") == "All"
        item = self.patches.patched(there, body, self._content, query["fieldManager"], dry_run=dry_run)
        if not dry_run and item != there:
            item = self.put(resource, item, asked.namespace, asked.group)
            self.created(resource, item)
        return web.json_response(item)

    def _delete(self, asked: Access, _query: dict[str, str], body: Object) -> web.Response:
        there = self._kind(asked).get((asked.namespace, asked.name))
        if there is None:
            return _status(404, f'{asked.resource} "{asked.name}" not found')
        wanted = (body.get("preconditions") or {}).get("uid", there["metadata"]["uid"])
        if wanted != there["metadata"]["uid"]:
            return _status(409, "the UID in the precondition does not match")
        self.remove(asked.resource, asked.name, asked.namespace, asked.group)
        self.deleted(asked.resource)
        return web.json_response({"kind": "Status", "status": "Success"})

    async def _watch(self, request: web.Request, asked: Access, response: web.StreamResponse) -> None:
        await response.prepare(request)
        since, epoch = int(request.query["resourceVersion"]), self.epoch
        if since < self.oldest:
            gone = {"kind": "Status", "code": 410, "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return
        while epoch == self.epoch:
            for version, event, kind, item in list(self.log):
                if (
                    not self.mute
                    and version > since
                    and kind == (asked.group, asked.resource)
                    and _selected(item, asked, dict(request.query))
                ):
                    await response.write(json.dumps({"type": event, "object": item}).encode() + b"\n")
            since = self.version
            async with self.changed:
                if since == self.version and epoch == self.epoch:
                    await self.changed.wait()


def _selected(item: Object, asked: Access, query: dict[str, str]) -> bool:
    meta = item["metadata"]
    wanted = dict(pair.split("=") for pair in query.get("labelSelector", "").split(",") if pair)
    labels = meta.get("labels") or {}
    return (
        asked.namespace in {"", meta["namespace"]}
        and (not asked.name or asked.name == meta["name"])
        and all(labels.get(name) == value for name, value in wanted.items())
    )


def _status(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


@asynccontextmanager
async def serving(api: FakeApi) -> AsyncIterator[FakeApi]:
    """Serve on a free port of the loopback."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", api.handle)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        api.end_watches()
        await runner.cleanup()
