"""What the container *control* knows and decides: claims from the tunnel container, pods from sidecars.

Both meet where there is an edge: a claim names an agent's key with a proof that the agent consents to. No I/O: messages
go through the callables it was made with.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.identity.authority import Authority
from meshdev.identity.fingerprints import fingerprint
from meshdev.intercept import spec as specs
from meshdev.manager.control.budget import Budget, Refused, item_of, size_of, size_of_names
from meshdev.manager.control.certificates import Certificates, Later, identity_path
from meshdev.manager.control.edges import Edges, NamedAgent, named_agents
from meshdev.manager.control.permissions import RelayPermissions
from meshdev.manager.control.pods import HeldClaim, Pod
from meshdev.manager.control.reports import PodReports
from meshdev.manager.control.totals import Totals
from meshdev.manager.control.xds import AdsStream, DiscoveryAnswer
from meshdev.rate import TokenBucket
from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.sidecar.envoy.protos import ORDER
from meshdev.wire.agent import AgentHello, Consents, FromAgent, FromControl, IssuedCertificate, Listen, PodPort, State
from meshdev.wire.control import ManagerIdentity, encode_body
from meshdev.wire.intercepts import Agents, Issued
from meshdev.wire.manager import CertificateIssued, Claimed, ManagerAddress, Synced, ToTunnel, Withdrawn
from meshdev.wire.relay import ToRelay

log = logging.getLogger(__name__)

#: After this process or the tunnel container has restarted, sessions and sidecars reconnect within this time: until
#: then nobody loses a permission, and no sidecar is asked to leave.
SETTLE_SECONDS: Final = 3.0
REJOIN_SECONDS: Final = 15.0
#: A sidecar that lost its streams still has its routes: what it was permitted it may use for so long.
EDGE_SECONDS: Final = 10.0
#: Permissions of a claim whose agents come one by one are sent together: each time they are all of them.
PERMIT_SECONDS: Final = 0.02
#: A request that was routed just before the route changed may be connecting still (twice 0.5 s, then to the original).
PRUNE_SECONDS: Final = 5.0


class Core:
    """Belongs to one event loop. *to_tunnel* and *to_relay* take a key and the newest message for it, *later* calls
    back in so many seconds, *clock* is in seconds, *now* the time of day. *trace_all*: all claims are traced."""

    def __init__(
        self,
        authority: Authority,
        to_tunnel: Callable[[str, ToTunnel], None],
        to_relay: Callable[[str, ToRelay], None],
        later: Later,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        certificate_lifetime: timedelta,
        *,
        trace_all: bool = False,
    ) -> None:
        self._to_tunnel = to_tunnel
        self._later, self._clock = later, clock
        self._trace_all = trace_all
        self._manager: IPv4Address | None = None
        self._claims: dict[str, Claimed] = {}
        self._held: dict[str, HeldClaim] = {}
        self._edges = Edges()
        self._announced: set[str] | None = set()
        """Aliases announced since the tunnel container connected; None once it has announced all."""
        self._order = 0
        self._synced_at: float | None = None
        self._pods: dict[str, dict[str, Pod]] = {}
        self._gone: dict[str, float] = {}
        """When the last stream of a sidecar ended whose edges still hold."""
        self._reports = PodReports(self._edges, self._held, self._pods, to_tunnel)
        self._budget = Budget()
        self.totals = Totals(clock, self._held.values())
        self._faults = TokenBucket(1, 10, clock())
        """Lines of the log about what sessions do wrong, a second and at once."""
        self._sources: dict[str, IPv4Address] = {}
        """Where datagrams of each agent's pod come from, if that is known."""
        self._permissions = RelayPermissions(to_tunnel, to_relay)
        self._to_permit: set[str] = set()
        self._certificates = Certificates(authority, certificate_lifetime, now, later, self._renewed)
        self.on_synced: Callable[[], None] = lambda: None
        """Called when all claims of the tunnel container are known."""

    # -- the tunnel container --------------------------------------------------------------------------------------

    def tunnel_connected(self) -> None:
        """The tunnel container is connected, for the first time or again: it announces everything now."""
        self._announced = set()

    def on_tunnel_message(self, message: ManagerAddress | Claimed | Agents | Withdrawn | Synced) -> None:
        """A message of the tunnel container."""
        match message:
            case ManagerAddress(address):
                self._manager = address
            case Claimed():
                self._claimed(message)
            case Agents():
                self._set_agents(message)
            case Withdrawn(alias):
                self._withdrawn(alias)
            case Synced():
                self._synced()

    def for_tunnel(self) -> Iterator[tuple[str, ToTunnel]]:
        """All that a tunnel container is sent when it has connected."""
        yield "identity", ManagerIdentity(self._certificates.authority.certificate)
        yield from self._permissions.for_tunnel()
        for key in self._edges.named():
            for each in self._edges.naming(key):
                yield from self._issued(*each)
        yield from self._reports.all()

    def for_relay(self) -> Iterator[tuple[str, ToRelay]]:
        """All that a relay is sent when it has connected."""
        yield from self._permissions.for_relay()

    def _claimed(self, message: Claimed) -> None:
        if self._announced is not None:
            self._announced.add(message.id)
        before = self._held.get(message.id)
        try:
            spec = specs.decode(message.spec)
        except ProtocolError as error:  # the tunnel container has looked at it already
            log.warning("a claim of %s cannot be read: %s", message.holder, error.message)
            self._withdrawn(message.id)
            return
        spec = replace(spec, trace=spec.trace or self._trace_all)
        if before is not None and before.claim.spec.workload != spec.workload:
            self._withdrawn(message.id)  # another claim: the tunnel container names its agents next
            before = None
        former = self._claims.get(message.id)
        self._claims[message.id] = message
        if former is not None and (former.relays, former.address) != (message.relays, message.address):
            self._permissions.remove(former)
        up = frozenset(PodPort(each.remote, each.protocol) for each in message.up)
        claim = LiveClaim(spec, message.holder, message.relays, up)
        excluded = frozenset(message.excluded)
        same = before is not None and (before.claim, before.reset_older) == (claim, message.reset_older)
        if before is not None and same and (before.excluded, before.session) == (excluded, message.address):
            return
        if before is None:
            log.info("%s claims %s in %s (%s)", message.holder, spec.workload, spec.workload.namespace, spec.mode)
        # Which port is up changes nothing that Envoy could have refused, but it is another state of its routes.
        # Which pods are left out is not: those that stay have taken what they shall have.
        self._order += not same
        order = before.order if before is not None and same else self._order
        self._held[message.id] = HeldClaim(message.id, claim, message.reset_older, order, excluded, message.address)
        self._edges.begin(message.id)
        self._permit({message.id})
        self._follow(self._edges.keys_of(message.id))

    def _set_agents(self, message: Agents) -> None:
        agents, fault = named_agents(message.agents)
        if fault and self._faults.take(self._clock()):
            log.warning("%s", fault)
        self._follow_named(self._edges.name(message.id, message.part, agents), {message.id})

    def _withdrawn(self, alias: str) -> None:
        held = self._held.pop(alias, None)
        if held is None:
            return
        log.info("%s leaves %s in %s", held.claim.holder, held.claim.spec.workload, held.claim.spec.workload.namespace)
        self._permissions.remove(self._claims.pop(alias))
        self._follow_named(self._edges.end(alias), frozenset())

    def _synced(self) -> None:
        missing = set(self._held) - self._announced if self._announced is not None else set()
        self._announced = None
        for alias in missing:
            self._withdrawn(alias)
        self._synced_at = self._clock()
        self._later(SETTLE_SECONDS, lambda: self._follow(self._pods.keys()))
        self._later(REJOIN_SECONDS, lambda: self._permit(self._held.keys()))
        # Where control was away for long, certificates have expired, and only sessions can bring their agents back.
        known = frozenset(self._edges.named())
        self._later(REJOIN_SECONDS, lambda: self._reports.send_absent(known))
        self._permit_now()
        self._permissions.sync()
        self._follow(self._pods.keys())
        self.on_synced()

    def named(self) -> AbstractSet[str]:
        """The keys of all agents that sessions vouch for, as they are at any time."""
        return self._edges.named()

    # -- sidecars --------------------------------------------------------------------------------------------------

    def agent_connected(
        self, key: str, peer: IPv4Address, hello: AgentHello, send: Callable[[FromControl], None]
    ) -> Pod:
        """An agent has shown the key, and seems to be at *peer*. Raises Refused."""
        pod = self._pod(key, hello.uid)
        self._charge(key, hello.uid, pod, hello)
        pod.agent_connected(hello, peer, send)
        self._sources.pop(key, None)
        if peer == hello.address:
            self._sources[key] = peer
        self._permit(self._edges.aliases_of(key))
        self._follow_pod(key, pod)
        return pod

    def agent_reported(self, key: str, uid: str, pod: Pod, message: FromAgent) -> None:
        """Its message. Raises Refused: then its stream has to end."""
        self._charge(key, uid, pod, message)
        match message:
            case Consents(proofs):
                self._permit(self._edges.consent(key, proofs))
            case Listen() | State():
                pod.agent_reported(message)
        if not pod.listens:  # those of a former process are kept no more
            self._budget.release(key, (uid, Listen))
        self._follow_pod(key, pod)
        self.totals.report(key, message, pod.held)

    def agent_disconnected(self, key: str, uid: str, pod: Pod) -> None:
        """Its stream ended, and no other has taken its place."""
        pod.agent_disconnected()
        self._budget.release(key, (uid, State))
        self._left(key, uid, pod)

    def envoy_connected(
        self, key: str, uid: str, send: Callable[[list[DiscoveryAnswer]], None], *, has_resources: bool = False
    ) -> tuple[Pod, AdsStream]:
        """An Envoy has shown the key. Raises Refused."""
        pod = self._pod(key, uid)
        stream = pod.envoy_connected(lambda answers: send(list(answers)), has_resources=has_resources)
        self._follow_pod(key, pod)
        return pod, stream

    def envoy_requested(self, key: str, stream: AdsStream, kind: str, names: int) -> None:
        """It asks for so many resources. Raises Refused: then its stream has to end."""
        if kind in ORDER:
            self._budget.charge(key, (stream, kind), size_of_names(names), self._edges)

    def envoy_progressed(self, key: str, pod: Pod) -> None:
        """Its stream moved on."""
        self._follow_pod(key, pod)
        if pod.begin_to_prune():
            self._later(PRUNE_SECONDS, pod.prune)

    def envoy_disconnected(self, key: str, uid: str, pod: Pod, stream: AdsStream) -> None:
        """Its stream ended."""
        pod.envoy_disconnected(stream)
        for kind in ORDER:
            self._budget.release(key, (stream, kind))
        self._left(key, uid, pod)

    def pods(self) -> Iterator[Pod]:
        """All that are known."""
        for pods in self._pods.values():
            yield from pods.values()

    def reached_by(self, alias: str) -> AbstractSet[str]:
        """The keys that a claim has an edge to."""
        return self._edges.keys_of(alias)

    def _pod(self, key: str, uid: str) -> Pod:
        if (pod := self._pods.get(key, {}).get(uid)) is not None:
            return pod
        if self._pods.get(key):
            raise Refused("this key is that of another pod's agent")
        self._gone.pop(key, None)
        pod = self._pods.setdefault(key, {})[uid] = Pod()
        return pod

    def _charge(self, key: str, uid: str, pod: Pod, message: FromAgent) -> None:
        kept = pod.listens_after(message) if isinstance(message, Listen) else message
        try:
            self._budget.charge(key, item_of(uid, message), size_of(kept), self._edges)
        except Refused:
            self._left(key, uid, pod)
            raise

    def _left(self, key: str, uid: str, pod: Pod) -> None:
        if pod.disconnected and self._pods.get(key, {}).get(uid) is pod:
            del self._pods[key][uid]
            if not self._pods[key]:
                del self._pods[key]
            for each in (AgentHello, Listen, State):
                self._budget.release(key, (uid, each))
            self._reports.send(pod, pod.last_reports())
            since = self._gone[key] = self._clock()
            self._later(EDGE_SECONDS, lambda: self._forget(key, since))
        else:
            self._follow_pod(key, pod)

    def _forget(self, key: str, since: float) -> None:
        """The sidecar is gone, unless it has reconnected."""
        if self._gone.get(key) != since:
            return
        del self._gone[key]
        self._sources.pop(key, None)
        self._budget.release(key, Consents)
        self.totals.forget(key)
        self._permit(self._edges.forget(key))

    # -- what follows ----------------------------------------------------------------------------------------------

    def _follow_named(self, keys: AbstractSet[str], claims: AbstractSet[str]) -> None:
        """These keys are named otherwise than before, in *claims*."""
        if keys:
            self._permit(claims)
            for key in keys:
                self._certify(key, claims)
            self._follow(keys)

    def _follow(self, keys: AbstractSet[str]) -> None:
        for key in frozenset(keys):
            for pod in list(self._pods.get(key, {}).values()):
                self._follow_pod(key, pod)

    def _follow_pod(self, key: str, pod: Pod) -> None:
        # Before an agent that reconnected has reported its consents, nothing is taken from it.
        if self._manager is None or self._synced_at is None or not self._edges.has_reported(key):
            return
        held = [each for each in self.held_by(key) if each.pod not in each.excluded]
        pod.follow(held, self._manager, settling=self._clock() - self._synced_at < SETTLE_SECONDS)
        self._certify_pod(key, pod, held)
        self._reports.send(pod, pod.reports(held))

    def held_by(self, key: str) -> list[HeldClaim]:
        """The claims with an edge to that key, oldest first; an id that two sessions use is the first one's."""
        found: dict[str, HeldClaim] = {}
        for alias in self._edges.aliases_of(key):
            held, agent = self._held[alias], self._edges.edge(alias, key)
            if agent is not None and held.claim.spec.id not in found:
                identity = self._certificates.authority.identity(self._path(alias, agent))
                found[held.claim.spec.id] = replace(held, pod=agent.pod, identity=identity)
        return list(found.values())

    # -- certificates ----------------------------------------------------------------------------------------------

    def _certify(self, key: str, claims: AbstractSet[str] | None = None) -> None:
        """Send a certificate for that key to the sessions of *claims*, or all that name it: each has its own path."""
        naming = dict(self._edges.naming(key))
        self._certificates.keep(key, {self._path(*each) for each in naming.items()})
        for alias in naming if claims is None else naming.keys() & claims:
            for name, message in self._issued(alias, naming[alias]):
                self._to_tunnel(name, message)

    def _renewed(self, key: str) -> None:
        self._certify(key)
        self._follow({key})

    def _issued(self, alias: str, agent: NamedAgent) -> Iterator[tuple[str, ToTunnel]]:
        if (certificate := self._certificate(alias, agent)) is not None:
            request = fingerprint(agent.request)
            body = encode_body(Issued(self._held[alias].claim.spec.id, request, certificate))
            yield f"issued {alias} {request}", CertificateIssued(alias, request, body)

    def _certify_pod(self, key: str, pod: Pod, held: Sequence[HeldClaim]) -> None:
        """Its Envoy shows the identity that its oldest session reports, as long as that one has an edge."""
        mine = min(held, key=lambda each: each.identity != pod.identity, default=None)
        agent = self._edges.edge(mine.alias, key) if mine is not None else None
        if mine and agent and (certificate := self._certificate(mine.alias, agent)) is not None:
            pod.certify(mine.identity, IssuedCertificate(certificate, self._certificates.authority.certificate))

    def _certificate(self, alias: str, agent: NamedAgent) -> bytes | None:
        """None where what its session reports is no identity."""
        try:
            return self._certificates.current(agent.key, agent.request, self._path(alias, agent))
        except ProtocolError as error:
            if self._faults.take(self._clock()):
                log.warning("the agent of pod %s gets no certificate: %s", agent.pod, error.message)
            return None

    def _path(self, alias: str, agent: NamedAgent) -> str:
        return identity_path(self._held[alias].claim.spec.workload, agent.uid)

    # -- who may use relays ----------------------------------------------------------------------------------------

    def _permit(self, aliases: Iterable[str]) -> None:
        """What the relays of these claims are for may have changed."""
        waits = bool(self._to_permit)
        self._to_permit.update(aliases)
        if self._to_permit and not waits:
            self._later(PERMIT_SECONDS, self._permit_now)

    def _permit_now(self) -> None:
        """The relays of a claim are for the agents with an edge to it; until those that lost control had time to
        reconnect, also for those that it names and that have not reported yet. Its own session vouches for them."""
        if self._synced_at is None:
            return
        keep = self._clock() - self._synced_at < REJOIN_SECONDS
        for alias in self._to_permit & self._claims.keys():
            keys = self._edges.keys_of(alias)
            sources = [self._sources[key] for key in keys & self._sources.keys()]
            if keep:
                keys |= {key for key in self._edges.named_by(alias) if not self._edges.has_reported(key)}
            self._permissions.permit(self._claims[alias], keys, sources, keep=keep)
        self._to_permit.clear()
