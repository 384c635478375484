"""A session at one moment, as an immutable value: everything that ``status`` shows of it."""

import os
from dataclasses import dataclass
from ipaddress import IPv4Network

from meshdev.dns.forwarder import AnswerSource
from meshdev.modes.state import InterceptState
from meshdev.session.troubles import Source
from meshdev.telemetry.signals import SignalState
from meshdev.tunnel.traffic import TunnelTraffic
from meshdev.wire.control import Welcome
from meshdev.wire.session_api import CarrierStatus, ConnectionState, DnsStatus, Status


@dataclass(frozen=True)
class SessionState:
    """Published by the supervisor. What is not known yet is None or empty; it fills up while the session connects."""

    phase: ConnectionState = "connecting"
    since: float = 0.0
    """When the phase was entered, on the monotonic clock."""
    metrics: str | None = None
    """The URL of its metrics, where it serves them."""
    socks: str | None = None
    """Where its proxy listens, where it has one."""
    otlp: str | None = None
    """Where it sends spans and logs, where that is asked for."""
    signals: tuple[SignalState, ...] = ()
    """How sending each of both fares."""
    context: str | None = None
    namespace: str | None = None
    server: str | None = None
    ssh: str | None = None
    """The bastion through which that is reached."""
    manager_namespace: str | None = None
    helper_pid: int | None = None
    welcome: Welcome | None = None
    """The manager's last one."""
    carriers: tuple[CarrierStatus, ...] = ()
    tunnel_error: str | None = None
    """Why the last carrier ended or could not be dialled."""
    traffic: TunnelTraffic = TunnelTraffic()  # noqa: RUF009 -- it is immutable
    """What has passed all carriers so far."""
    reconnects: int = 0
    """How often a carrier took the place of another one."""
    routes: tuple[IPv4Network, ...] = ()
    dns: DnsStatus | None = None
    dns_answers: tuple[tuple[AnswerSource, int], ...] = ()
    """Answers so far, by whose they were."""
    troubles: tuple[str, ...] = ()
    """What is not as it should be on this machine, each with since when."""
    trouble_sources: tuple[Source, ...] = ()
    """Who found each of them."""
    intercepts: tuple[InterceptState, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def connected(self) -> bool:
        """Packets pass: at least one carrier got something from the manager a moment ago."""
        return any(carrier.up for carrier in self.carriers)

    def status(self, now: float) -> Status:
        """What ``status`` shows at *now*."""
        notes = self.notes
        if self.phase == "degraded":
            notes = (*self.troubles, *notes)
        if self.phase == "reconnecting" and self.tunnel_error:
            notes = (*notes, self.tunnel_error)
        return Status(
            state=self.phase,
            context=self.context,
            namespace=self.namespace,
            server=self.server,
            address=str(self.welcome.address) if self.welcome else None,
            carrier=self.carriers[0].kind if self.carriers else None,
            carriers=self.carriers,
            routes=tuple(map(str, self.routes)),
            dns=self.dns,
            manager_namespace=self.manager_namespace,
            manager_pod=self.welcome.pod if self.welcome else None,
            session_pid=os.getpid(),
            helper_pid=self.helper_pid,
            metrics=self.metrics,
            socks=self.socks,
            otlp=self.otlp,
            ssh=self.ssh,
            intercepts=tuple(status for each in self.intercepts if (status := each.status(now)) is not None),
            since_s=round(now - self.since, 1),
            notes=notes,
        )
