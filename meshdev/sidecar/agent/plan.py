"""What is redirected, and what of it is claimed: functions of all that is known, asked anew whenever that changes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from meshdev.sidecar.envoy import names
from meshdev.wire.agent import HoldReason, PodPort, Probe, Redirect, Wanted
from meshdev.wire.passthrough import PortClaims


@dataclass(frozen=True)
class Situation:
    """What the agent knows.

    ``listener_ports`` are where connections are redirected to: those of TCP to the passthrough proxy, those of UDP to
    Envoy. ``asked`` is the manager's newest :class:`Redirect`, ``folder`` that of Envoy's sockets, ``listening``
    all ports with a listener in the pod (None: the kernel does not say), ``draining`` whether the pod is going to end.
    Until the proxy ``decides`` by what is claimed, no ports but those that are ``redirected`` already may be. Where the
    kernel ``looks`` for the app at each new connection of TCP, the redirect may stay while nobody listens. Nothing is
    redirected to a proxy that is ``failing``.
    """

    wanted: Mapping[PodPort, Wanted]
    listener_ports: Mapping[PodPort, int]
    asked: Redirect
    listening: frozenset[PodPort] | None
    folder: str = ""
    probes: Sequence[Probe] = field(default=())
    envoy: bool = True
    cut_off: bool = False
    draining: bool = False
    decides: bool = True
    looks: bool = False
    failing: bool = False
    redirected: frozenset[PodPort] = frozenset()


def held_back(now: Situation) -> dict[PodPort, HoldReason]:
    """The wanted ports that must not be redirected now, and why. The order of the reasons is that of what helps."""
    return {port: reason for port in now.wanted if (reason := _reason(now, port)) is not None}


def redirects(now: Situation) -> dict[PodPort, int]:
    """The ports to redirect, and where to."""
    kept = {port for port, reason in held_back(now).items() if not _stays(now, port, reason)}
    return {port: now.listener_ports[port] for port in now.wanted if port not in kept}


def _stays(now: Situation, port: PodPort, reason: HoldReason) -> bool:
    return now.looks and reason == "no-listener" and port.transport == "tcp"


def _reason(now: Situation, port: PodPort) -> HoldReason | None:
    if port not in now.asked.ports or port not in now.listener_ports:
        return "waiting"
    if port.transport == "udp":  # those of TCP have the app, whatever becomes of Envoy
        if not now.envoy or not _listens(now, PodPort(now.listener_ports[port], "udp")):
            return "no-envoy"
        if now.cut_off:
            return "waiting"
    elif now.failing or (not now.decides and port not in now.redirected):  # a connection before that is never inspected
        return "waiting"
    return None if _listens(now, port) else "no-listener"


def claims(now: Situation) -> dict[PodPort, PortClaims]:
    """What is claimed of the TCP ports that are wanted, and which ports drain: those that are wanted no more, too."""
    tcp = [wanted for port, wanted in now.wanted.items() if port.transport == "tcp"]
    ever = (port for port in now.listener_ports if port.transport == "tcp" and now.draining)
    nothing = {port: PortClaims(draining=True) for port in ever}
    return {**nothing, **{wanted.port: _claims(now, wanted) for wanted in tcp if wanted.port in now.asked.ports}}


def _claims(now: Situation, wanted: Wanted) -> PortClaims:
    """Requests fall back one by one; bytes would go to a laptop that may be gone."""
    port, whole = wanted.port, now.asked.is_whole(wanted.port)
    matches = now.asked.matches(port)
    if whole and now.cut_off and wanted.protocol != "http":
        return PortClaims(draining=now.draining)
    return PortClaims(
        whole=whole,
        matches=() if whole else matches,
        envoy=names.socket(now.folder, port),
        http2=bool(matches),
        probes=tuple(probe for probe in now.probes if probe.port == port.number),
        draining=now.draining,
    )


def _listens(now: Situation, port: PodPort) -> bool:
    return now.listening is None or port in now.listening
