"""A document that fits the schema → :class:`Project`: what a schema cannot say is checked here, with its place."""

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, ip_address
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from meshdev import duration
from meshdev.intercept.match import MATCH_KINDS, parse_match
from meshdev.intercept.ports import parse_port
from meshdev.intercept.target import parse_target
from meshdev.project.document import At, Document, Problems
from meshdev.project.model import (
    CompletedReady,
    HttpReady,
    LogReady,
    Project,
    ProjectIntercept,
    ProjectProcess,
    Readiness,
    TcpReady,
)
from meshdev.project.ordering import cycle
from meshdev.ssh.target import SshTarget
from meshdev.wire.modes import MODES
from meshdev.wire.session_api import ConnectOptions
from meshdev.wire.session_intercepts import InterceptRequest

#: The shell of a command that is one text, as POSIX has it.
SHELL: Final = ("sh", "-c")

T = TypeVar("T")

_HERE: Final = "must be an address of this machine: 127.0.0.1, ::1 or localhost"


def build(document: Document, folder: PurePosixPath) -> Project:
    """The project; paths in it are relative to *folder*, which is absolute. Raises ProjectFileError."""
    return _Builder(document, folder).project()


def camel(key: str) -> str:
    """``path_prefix`` as the file has it: ``pathPrefix``."""
    first, *rest = key.split("_")
    return first + "".join(word.capitalize() for word in rest)


class _Builder:
    def __init__(self, document: Document, folder: PurePosixPath) -> None:
        self._document = document
        self._folder = folder
        self._problems = Problems(document)

    def project(self) -> Project:
        found: Mapping[str, Any] = self._document.value
        connection = self._connection(found.get("connection", {}))
        intercepts = [self._intercept(name, each, connection) for name, each in found.get("intercepts", {}).items()]
        processes = [self._process(name, each) for name, each in found.get("processes", {}).items()]
        self._check_names(intercepts, processes)
        self._check_cycles(processes)
        self._check_ports(processes)
        self._problems.raise_any()
        return Project(connection, tuple(intercepts), tuple(processes))

    def _connection(self, found: Mapping[str, Any]) -> ConnectOptions:
        at: At = ("connection",)
        for key in ("also", "never"):
            for index, each in enumerate(found.get(key, ())):
                self._read((*at, key, index), _range, each)
        if "ssh" in found:
            self._problems.check((*at, "ssh"), SshTarget.parse, found["ssh"], "ssh")
        kubeconfig = found.get("kubeconfig")
        return ConnectOptions(
            kubeconfig=None if kubeconfig is None else str(self._folder / kubeconfig),
            context=found.get("context"),
            namespace=found.get("namespace"),
            as_user=found.get("as"),
            request_timeout=duration.parse(found["requestTimeout"]) if "requestTimeout" in found else None,
            manager_namespace=found.get("managerNamespace"),
            image=found.get("image"),
            image_pull_secret=found.get("imagePullSecret"),
            carrier=found.get("carrier", "auto"),
            also=tuple(found.get("also", ())),
            never=tuple(found.get("never", ())),
            ssh=found.get("ssh"),
        )

    def _intercept(self, name: str, found: Mapping[str, Any], connection: ConnectOptions) -> ProjectIntercept:
        at: At = ("intercepts", name)
        self._problems.check((*at, "target"), parse_target, found["target"])
        ports = tuple(self._document.text((*at, "ports", index)) for index in range(len(found.get("ports", ()))))
        for index, port in enumerate(ports):
            self._problems.check((*at, "ports", index), parse_port, port)
        request = InterceptRequest(
            target=found["target"],
            namespace=found.get("namespace", connection.namespace),
            mode=MODES[found["mode"]],
            **self._match(at, found),
            ports=ports,
            strategy=found.get("strategy", "auto"),
            takeover=found.get("takeover", False),
            reset_existing=found.get("existing") == "reset",
            fallback=found.get("fallback", True),
        )
        return ProjectIntercept(name, request)

    def _match(self, at: At, found: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of the request; each condition is checked by itself, so that the place is its own."""
        mode = MODES[found["mode"]]
        given = [kind for kind in MATCH_KINDS if camel(kind.key) in found]
        for kind in given:
            key = camel(kind.key)
            if not mode.needs_match:
                self._problems.add((*at, key), f"mode {mode} takes all requests; conditions need mesh", key=True)
            elif not kind.many:
                self._problems.check((*at, key), kind.parsed, found[key])
            else:
                for index, each in enumerate(found[key]):
                    self._problems.check((*at, key, index), kind.parsed, each)
        typed = {kind.key: tuple(v) if kind.many else v for kind in given if (v := found[camel(kind.key)]) is not None}
        if mode.needs_match and not any(typed.values()):
            self._problems.check((*at, "mode"), parse_match)
        return typed

    def _process(self, name: str, found: Mapping[str, Any]) -> ProjectProcess:
        at: At = ("processes", name)
        command = found["command"]
        words = (*SHELL, command) if isinstance(command, str) else tuple(command)
        for index, word in enumerate([command] if isinstance(command, str) else command):
            place: At = (*at, "command") if isinstance(command, str) else (*at, "command", index)
            if "\0" in word or (index == 0 and not word.strip()):
                self._problems.add(place, "is no command")
        env = {key: self._document.text((*at, "env", key)) for key in found.get("env", {})}
        for key, value in env.items():
            if "\0" in value:
                self._problems.add((*at, "env", key), "has a NUL character")
        if "envFrom" in found:
            self._problems.check((*at, "envFrom"), parse_target, found["envFrom"])
        return ProjectProcess(
            name=name,
            command=words,
            directory=str(self._folder / found.get("workingDir", ".")),
            env=tuple(env.items()),
            env_from=found.get("envFrom"),
            serves=tuple(dict.fromkeys(found.get("serves", ()))),
            depends_on=tuple(dict.fromkeys(found.get("dependsOn", ()))),
            ready=self._ready(at, found),
            ready_seconds=duration.parse(found.get("ready", {}).get("timeout", "60s")),
            restart=found.get("restart", "never"),
            stop_seconds=duration.parse(found.get("stopTimeout", "10s")),
        )

    def _ready(self, process: At, found: Mapping[str, Any]) -> Readiness | None:
        if "ready" not in found:
            return None
        at, kinds = (*process, "ready"), found["ready"].keys() - {"timeout"}
        if len(kinds) != 1:
            self._problems.add(at, "needs exactly one of http, tcp, log and completed", key=True)
            return None
        kind = kinds.pop()
        text = found["ready"][kind]
        if kind == "log":
            return LogReady(text)
        if kind == "completed":
            if found.get("restart") == "always":
                self._problems.add((*process, "restart"), "what is ready once it has completed cannot restart always")
            return CompletedReady()
        return self._read((*at, kind), _READ[kind], text)

    def _read(self, at: At, read: Callable[[str], T], text: str) -> T | None:
        try:
            return read(text)
        except ValueError as error:
            self._problems.add(at, str(error))
            return None

    def _check_names(self, intercepts: list[ProjectIntercept], processes: list[ProjectProcess]) -> None:
        names = {"serves": {each.name for each in intercepts}, "dependsOn": {each.name for each in processes}}
        for process in processes:
            for key, there in names.items():
                for index, name in enumerate(self._document.get(("processes", process.name, key)) or ()):
                    if name not in there:
                        what = "intercept" if key == "serves" else "process"
                        others = f"; there is: {', '.join(sorted(there))}" if there else ""
                        at: At = ("processes", process.name, key, index)
                        self._problems.add(at, f"there is no {what} {name}{others}")

    def _check_cycles(self, processes: list[ProjectProcess]) -> None:
        found = cycle({process.name: process.depends_on for process in processes})
        if found:
            self._problems.add(
                ("processes", found[0], "dependsOn"), f"waits for itself: {' → '.join((*found, found[0]))}", key=True
            )

    def _check_ports(self, processes: list[ProjectProcess]) -> None:
        """Only one program can listen on a port."""
        first: dict[tuple[str, int], str] = {}
        for process in processes:
            if isinstance(process.ready, HttpReady | TcpReady):
                there = first.setdefault((process.ready.host, process.ready.port), process.name)
                if there != process.name:
                    kind = "http" if isinstance(process.ready, HttpReady) else "tcp"
                    at: At = ("processes", process.name, "ready", kind)
                    self._problems.add(at, f"process {there} listens on port {process.ready.port} already")


def _range(text: str) -> IPv4Network:
    try:
        return IPv4Network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no IPv4 range such as 10.20.0.0/16") from None


def _http(text: str) -> HttpReady:
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname or parts.username is not None:
        raise ValueError(f"{text!r} is no URL such as http://localhost:8080/healthz")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or not path.isprintable() or " " in path:
        raise ValueError(f"{text!r} has characters that a URL cannot have")
    return HttpReady(_local(parts.hostname), parts.port or 80, path)


def _tcp(text: str) -> TcpReady:
    host, _, port = text.rpartition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r} is not HOST:PORT, such as localhost:8080")
    return TcpReady(_local(host.removeprefix("[").removesuffix("]") or "localhost"), int(port))


def _local(host: str) -> str:
    """Of this machine: readiness is about a process here. A name would have to be resolved, by a cluster's DNS."""
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ip_address(host))
    except ValueError:
        raise ValueError(f"{host} {_HERE}") from None


_READ: Final[Mapping[str, Callable[[str], HttpReady | TcpReady]]] = {"http": _http, "tcp": _tcp}
