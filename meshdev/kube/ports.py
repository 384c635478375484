"""The ports of a workload: those of containers and Services, and which one a ``--port`` means. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from meshdev.errors import InterceptError, UsageError
from meshdev.intercept.ports import PortRequest
from meshdev.intercept.spec import MAX_PORTS, Port
from meshdev.wire.modes import PROXY, Mode
from meshdev.wire.ports import Protocol, Transport, transport_of

Object = Mapping[str, Any]

_TRANSPORTS: Final[dict[str, Transport]] = {"TCP": "tcp", "UDP": "udp"}
#: Service.spec.ports.appProtocol: IANA names, Kubernetes' own (KEP-3726) and those that meshes read. TLS is not HTTP.
_HTTP: Final = frozenset({"http", "http2", "h2c", "grpc", "grpc-web", "ws", "websocket"})
_UDP_HINT: Final = f"meshdev {PROXY} takes UDP, too"
_KUBERNETES_HTTP: Final = frozenset({"kubernetes.io/h2c", "kubernetes.io/ws"})


@dataclass(frozen=True)
class TargetPort:
    """One port of the pods: *number* is what the app listens on, *names* are the containers' and Services' for it."""

    number: int
    protocol: Protocol
    names: frozenset[str] = frozenset()

    @property
    def transport(self) -> Transport:
        """What of the kernel's two it is."""
        return transport_of(self.protocol)


@dataclass(frozen=True)
class ServicePort:
    """A port of the Service that is the target, and the pods' port behind it."""

    port: int
    name: str
    target: int
    transport: Transport


@dataclass(frozen=True)
class Ports:
    """All that is known. *service* holds the ports of the Service that is the target, none for another target.

    *dead* are those whose targetPort is a name that no container declares: number, name, and that name.
    """

    known: tuple[TargetPort, ...]
    service: tuple[ServicePort, ...] = ()
    dead: tuple[tuple[int, str, str], ...] = ()

    def by_default(self, mode: Mode) -> tuple[TargetPort, ...]:
        """Those of the Service that is the target, else all; UDP where the mode carries it."""
        targets = {(each.target, each.transport) for each in self.service}
        chosen = (port for port in self.known if not targets or (port.number, port.transport) in targets)
        return tuple(port for port in chosen if mode.carries_udp or port.transport == "tcp")


def ports_of(pod: Object, services: Iterable[Object], asked: str | None = None) -> Ports:
    """The ports of a pod spec, and of the *services* that select it; *asked* is the name of the target's own."""
    names: dict[tuple[int, Transport], set[str]] = {}
    declared_http: dict[tuple[int, Transport], list[bool | None]] = {}
    service_ports: list[ServicePort] = []
    dead: list[tuple[int, str, str]] = []
    known_ports = tuple(declared(pod))
    for service in services:
        for port in service["spec"].get("ports") or []:
            target = target_of(port, known_ports)
            name = port.get("name") or ""
            if target is None:
                if service["metadata"]["name"] == asked and isinstance(port.get("targetPort"), str):
                    dead.append((port["port"], name, port["targetPort"]))
                continue
            names.setdefault(target, set()).add(name)
            declared_http.setdefault(target, []).append(_is_http(port.get("appProtocol"), name))
            if service["metadata"]["name"] == asked:
                service_ports.append(ServicePort(port["port"], name, *target))
    for number, transport, name in known_ports:
        names.setdefault((number, transport), set()).add(name)
        declared_http.setdefault((number, transport), []).append(_is_http(None, name))
    known = tuple(
        TargetPort(number, _protocol(transport, declared_http[number, transport]), frozenset(filter(None, found)))
        for (number, transport), found in sorted(names.items())
    )
    return Ports(known, tuple(service_ports), tuple(dead))


def resolve_ports(requests: Sequence[PortRequest], ports: Ports, mode: Mode, what: str) -> tuple[Port, ...]:
    """The ports to intercept; *what* names the target. Raises InterceptError for ports that cannot be meant."""
    found = [_resolved(request, ports, mode, what) for request in requests]
    if not requests:
        found = [Port(port.number, port.protocol, port.number) for port in ports.by_default(mode)]
    if not found:
        udp = not mode.carries_udp and any(port.transport == "udp" for port in ports.known)
        raise InterceptError(
            f"{what} declares no {'' if mode.carries_udp else 'TCP '}port",
            hint=f"{f'{_UDP_HINT}; or ' if udp else ''}name one: --port LOCAL:REMOTE",
        )
    if len(found) > MAX_PORTS:
        raise InterceptError(f"{what} has {len(found)} ports, at most {MAX_PORTS} are possible", hint="choose: --port")
    seen: set[tuple[int, str]] = set()
    for port in found:
        if (port.remote, port.transport) in seen:
            raise UsageError(f"--port names port {port.remote}/{port.transport} of {what} twice")
        seen.add((port.remote, port.transport))
    return tuple(sorted(found))


def _resolved(request: PortRequest, ports: Ports, mode: Mode, what: str) -> Port:
    wanted = transport_of(request.protocol) if request.protocol else None
    number, transport = _remote(request, ports, wanted, mode, what)
    known = next((port for port in ports.known if (port.number, port.transport) == (number, transport)), None)
    protocol = request.protocol or (known.protocol if known else transport)
    if protocol == "udp" and not mode.carries_udp:
        raise InterceptError(f"--port {request}: UDP has no headers to tell requests apart", hint=_UDP_HINT)
    return Port(number, protocol, request.local)


def _remote(
    request: PortRequest, ports: Ports, wanted: Transport | None, mode: Mode, what: str
) -> tuple[int, Transport]:
    remote = request.remote
    if remote is None:
        return _for_local(request, ports, wanted, mode, what)
    matching = [each for each in ports.service if remote in {each.port, each.name} and wanted in {None, each.transport}]
    named = [port for port in ports.known if remote in {port.number, *port.names} and wanted in {None, port.transport}]
    if not matching and len({port.number for port in named}) > 1:
        raise InterceptError(
            f"--port {request}: {what} has more than one port named {remote}: {_listed(named)}", hint="give its number"
        )
    found = [(each.target, each.transport) for each in matching] or [(each.number, each.transport) for each in named]
    if not found:
        _refuse_dead(request, remote, ports, what)
    if found:
        # Where UDP is not carried, one name of both transports means the other.
        return min(found, key=lambda each: not mode.carries_udp and each[1] == "udp")
    if isinstance(remote, int):
        return remote, wanted or "tcp"  # containers need not declare what they listen on
    raise InterceptError(
        f"--port {request}: {what} has no port named {remote}; it has {_listed(ports.known)}",
        hint="a number can be given, too",
    )


def _for_local(
    request: PortRequest, ports: Ports, wanted: Transport | None, mode: Mode, what: str
) -> tuple[int, Transport]:
    """LOCAL alone: the target's port of that number, a Service's own first; else the only port there is."""
    by_default = ports.by_default(PROXY if wanted == "udp" else mode)
    possible: set[Transport] = {wanted} if wanted else {"tcp", "udp"} if mode.carries_udp else {"tcp"}
    targets = [(each.target, each.transport) for each in ports.service if each.port == request.local]
    same = [(each.number, each.transport) for each in ports.known if each.number == request.local]
    for number, transport in targets + same:
        if transport in possible:
            return number, transport
    _refuse_dead(request, request.local, ports, what)
    only = [port for port in by_default if wanted in {None, port.transport}]
    if len(only) != 1:
        raise InterceptError(
            f"--port {request}: {what} has {_listed(only)}", hint=f"name one: --port {request.local}:REMOTE"
        )
    return only[0].number, only[0].transport


def _refuse_dead(request: PortRequest, asked: int | str, ports: Ports, what: str) -> None:
    for number, name, target in ports.dead:
        if asked in {number, name}:
            raise InterceptError(
                f"--port {request}: port {number} of {what} has the targetPort {target}, which no container declares",
                hint=f"give the number on which the app listens: --port {request.local}:NUMBER",
            )


def _listed(ports: Iterable[TargetPort]) -> str:
    texts = [f"{port.number}/{port.transport}{_named(port)}" for port in ports]
    return (
        f"the ports {', '.join(texts)}" if len(texts) > 1 else f"the port {texts[0]}" if texts else "no declared port"
    )


def _named(port: TargetPort) -> str:
    return f" ({', '.join(sorted(port.names))})" if port.names else ""


def declared(pod: Object) -> Iterator[tuple[int, Transport, str]]:
    """Ports of containers that run as long as the pod: sidecars among the init containers, too (KEP-753)."""
    sidecars = [each for each in pod.get("initContainers") or [] if each.get("restartPolicy") == "Always"]
    for container in [*(pod.get("containers") or []), *sidecars]:
        for port in container.get("ports") or []:
            transport = _TRANSPORTS.get(port.get("protocol") or "TCP")
            if transport is not None:
                yield port["containerPort"], transport, port.get("name") or ""


def target_of(port: Object, known: Iterable[tuple[int, Transport, str]]) -> tuple[int, Transport] | None:
    """The pods' port behind a Service's *port*; a name is looked up in the *known* ports of containers."""
    transport = _TRANSPORTS.get(port.get("protocol") or "TCP")
    target = port.get("targetPort") or port["port"]
    if transport is None:
        return None
    if isinstance(target, int):
        return target, transport
    return next(((number, kind) for number, kind, name in known if (kind, name) == (transport, target)), None)


def _is_http(app_protocol: str | None, name: str) -> bool | None:
    """None: not declared."""
    if app_protocol:
        return app_protocol.lower() in _HTTP | _KUBERNETES_HTTP
    return True if any(name == word or name.startswith(f"{word}-") for word in _HTTP) else None


def _protocol(transport: Transport, http: Sequence[bool | None]) -> Protocol:
    """*http* is what Services and containers declare: HTTP, unless one of them declares something else."""
    if transport == "udp":
        return "udp"
    return "http" if True in http and False not in http else "tcp"
