"""What is redirected: a function of all that is known. Decided anew whenever something changes."""

from collections.abc import Mapping
from dataclasses import dataclass

from meshdev.wire.agent import HoldReason, PodPort, Wanted


@dataclass(frozen=True)
class Situation:
    """What the agent knows.

    ``listener_ports`` are where Envoy is to listen, ``asked`` those that the manager wants redirected, ``listening``
    all ports with a listener in the pod (None: the kernel does not say), ``speaks_first`` those whose server does.
    """

    wanted: Mapping[PodPort, Wanted]
    listener_ports: Mapping[PodPort, int]
    asked: frozenset[PodPort]
    listening: frozenset[PodPort] | None
    speaks_first: frozenset[PodPort] = frozenset()
    envoy: bool = True
    cut_off: bool = False


def held_back(now: Situation) -> dict[PodPort, HoldReason]:
    """The wanted ports that must not be redirected now, and why. The order of the reasons is that of what helps."""
    found: dict[PodPort, HoldReason] = {}
    for port, wanted in now.wanted.items():
        reason = _reason(now, port, wanted)
        if reason is not None:
            found[port] = reason
    return found


def redirects(now: Situation) -> dict[PodPort, int]:
    """The ports to redirect, and to which of Envoy's."""
    kept = held_back(now)
    return {port: now.listener_ports[port] for port in now.wanted if port not in kept}


def _reason(now: Situation, port: PodPort, wanted: Wanted) -> HoldReason | None:
    if port not in now.asked or port not in now.listener_ports:
        return "waiting"
    if not now.envoy or not _listens(now, PodPort(now.listener_ports[port], port.transport)):
        return "no-envoy"
    if not _listens(now, port):
        return "no-listener"
    if not wanted.mode.takes_bytes and port in now.speaks_first:
        return "speaks-first"
    if now.cut_off and wanted.protocol != "http":
        # Requests fall back one by one; bytes and datagrams would go to a laptop that may be gone.
        return "waiting"
    return None


def _listens(now: Situation, port: PodPort) -> bool:
    return now.listening is None or port in now.listening
