"""What the container *control* knows and decides: claims from the tunnel container, pods from sidecars.

Both meet under the sha256 of an agent's token. No I/O: messages go through the callables it was made with.
"""

import logging
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.intercept import spec as specs
from meshdev.manager.control.budget import Budget, Refused, size_of, size_of_names
from meshdev.manager.control.naming import Naming
from meshdev.manager.control.pods import HeldClaim, Pod
from meshdev.manager.control.xds import AdsStream, DiscoveryAnswer
from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.sidecar.envoy.protos import ORDER
from meshdev.wire.agent import AgentHello, FromControl, Listen, PodPort, State
from meshdev.wire.control import encode_body
from meshdev.wire.intercepts import AgentKeys, Report
from meshdev.wire.manager import MAX_ADDRESSES, Allow, Claimed, ManagerAddress, PodReport, Synced, ToTunnel, Withdrawn

log = logging.getLogger(__name__)

#: After this process or the tunnel container began anew, sessions and sidecars come again within this time: until
#: then nobody who was allowed is shut out, and no sidecar is asked to leave.
SETTLE_SECONDS: Final = 3.0
REJOIN_SECONDS: Final = 15.0
#: An Envoy that lost its stream still has its routes: its address stays allowed for so long.
ADDRESS_SECONDS: Final = 10.0
#: A request that was routed just before the route changed may be connecting still (twice 0.5 s, then to the original).
PRUNE_SECONDS: Final = 5.0
#: Sidecars of keys that no session claims: those that wait for the next intercept.
MAX_WAITING: Final = 256

Later = Callable[[float, Callable[[], None]], object]


class Core:
    """Belongs to one event loop. *send* takes a key and the newest message for it, *later* calls back in so many
    seconds, *clock* is in seconds."""

    def __init__(self, send: Callable[[str, ToTunnel], None], later: Later, clock: Callable[[], float]) -> None:
        self._send = send
        self._later = later
        self._clock = clock
        self._manager: IPv4Address | None = None
        self._held: dict[str, HeldClaim] = {}
        self._naming = Naming()
        self._announced: set[str] | None = set()
        """Aliases announced since the tunnel container connected; None once it has announced all."""
        self._order = 0
        self._synced_at: float | None = None
        self._pods: dict[str, dict[str, Pod]] = {}
        self._budget = Budget()
        self._sources: dict[str, dict[IPv4Address, int]] = {}
        self._allowed: dict[int, Allow] = {}

    # -- the tunnel container --------------------------------------------------------------------------------------

    def tunnel_connected(self) -> None:
        """The tunnel container is connected, for the first time or again: it announces everything now."""
        self._announced = set()

    def on_tunnel_message(self, message: ManagerAddress | Claimed | AgentKeys | Withdrawn | Synced) -> None:
        """A message of the tunnel container."""
        match message:
            case ManagerAddress(address):
                self._manager = address
            case Claimed():
                self._claimed(message)
            case AgentKeys(alias, part, keys):
                self._named(alias, part, frozenset(keys))
            case Withdrawn(alias):
                self._withdrawn(alias)
            case Synced():
                self._synced()

    def snapshot(self) -> Iterator[tuple[str, ToTunnel]]:
        """Everything that a tunnel container that begins anew has to know."""
        for allow in self._allowed.values():
            yield f"allow {allow.relay}", allow
        for pod in self.pods():
            for alias, report in pod.reported():
                yield _keyed(alias, report)

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
        up = frozenset(PodPort(each.remote, each.protocol) for each in message.up)
        claim = LiveClaim(spec, message.holder, message.relays, up)
        excluded = frozenset(message.excluded)
        same = before is not None and (before.claim, before.reset_older) == (claim, message.reset_older)
        if before is not None and same and before.excluded == excluded:
            return
        if before is None:
            log.info("%s claims %s in %s (%s)", message.holder, spec.workload, spec.workload.namespace, spec.mode)
        # Which port is up changes nothing that Envoy could have refused, but it is another state of its routes.
        # Which pods are left out is not: those that stay have taken what they shall have.
        self._order += not same
        order = before.order if before is not None and same else self._order
        self._held[message.id] = HeldClaim(message.id, claim, message.reset_older, order, excluded)
        self._naming.begin(message.id)
        self._allow(message.id)
        self._follow(self._naming.keys_of(message.id))

    def _named(self, alias: str, part: int, keys: AbstractSet[str]) -> None:
        """Part of the agents that a claim reaches; nothing for a claim that does not exist."""
        if changed := self._naming.name(alias, part, keys):
            self._allow(alias)
            self._follow(changed)

    def _withdrawn(self, alias: str) -> None:
        held = self._held.pop(alias, None)
        if held is None:
            return
        log.info("%s leaves %s in %s", held.claim.holder, held.claim.spec.workload, held.claim.spec.workload.namespace)
        for each in held.claim.relays:
            self._allowed.pop(each.relay, None)
        self._follow(self._naming.end(alias))

    def _synced(self) -> None:
        missing = set(self._held) - self._announced if self._announced is not None else set()
        self._announced = None
        for alias in missing:
            self._withdrawn(alias)
        self._synced_at = self._clock()
        self._later(SETTLE_SECONDS, self._follow_all)
        self._later(REJOIN_SECONDS, self._allow_all)
        self._follow_all()

    def claimed(self) -> AbstractSet[str]:
        """The keys of all claims, as they are at any time."""
        return self._naming.claimed()

    # -- sidecars --------------------------------------------------------------------------------------------------

    def agent_connected(self, key: str, hello: AgentHello, send: Callable[[FromControl], None]) -> Pod:
        """An agent proved the key. Raises Refused."""
        pod = self._pod(key, hello.uid)
        self._charge(key, hello.uid, pod, hello)
        pod.agent_connected(hello, send)
        self._follow_pod(key, pod)
        return pod

    def agent_reported(self, key: str, uid: str, pod: Pod, message: Listen | State) -> None:
        """Its message. Raises Refused: then its stream has to end."""
        self._charge(key, uid, pod, message)
        pod.agent_reported(message)
        if not pod.listens:  # those of a former process are kept no more
            self._budget.release(key, (uid, Listen))
        self._follow_pod(key, pod)

    def agent_disconnected(self, key: str, uid: str, pod: Pod) -> None:
        """Its stream ended, and no other has taken its place."""
        pod.agent_disconnected()
        self._budget.release(key, (uid, State))
        self._left(key, uid, pod)

    def envoy_connected(
        self,
        key: str,
        uid: str,
        address: IPv4Address,
        send: Callable[[list[DiscoveryAnswer]], None],
        *,
        has_resources: bool = False,
    ) -> tuple[Pod, AdsStream]:
        """An Envoy proved the key, from that address. Raises Refused."""
        pod = self._pod(key, uid)
        stream = pod.envoy_connected(lambda answers: send(list(answers)), has_resources=has_resources)
        sources = self._sources.setdefault(key, {})
        sources[address] = sources.get(address, 0) + 1
        self._allow_agent(key)
        self._follow_pod(key, pod)
        return pod, stream

    def envoy_requested(self, key: str, stream: AdsStream, kind: str, names: int) -> None:
        """It asks for so many resources. Raises Refused: then its stream has to end."""
        if kind in ORDER:
            self._budget.charge(key, (stream, kind), size_of_names(names), self._naming)

    def envoy_progressed(self, key: str, pod: Pod) -> None:
        """Its stream moved on."""
        self._follow_pod(key, pod)
        if pod.begin_to_prune():
            self._later(PRUNE_SECONDS, pod.prune)

    def envoy_disconnected(self, key: str, uid: str, address: IPv4Address, pod: Pod, stream: AdsStream) -> None:
        """Its stream ended."""
        pod.envoy_disconnected(stream)
        for kind in ORDER:
            self._budget.release(key, (stream, kind))
        self._later(ADDRESS_SECONDS, lambda: self._forget_source(key, address))
        self._left(key, uid, pod)

    def pods(self) -> Iterator[Pod]:
        """All that are known."""
        for pods in self._pods.values():
            yield from pods.values()

    def _pod(self, key: str, uid: str) -> Pod:
        pod = self._pods.get(key, {}).get(uid)
        if pod is not None:
            return pod
        if self._pods.get(key):
            raise Refused("this token is that of another pod's agent")
        claimed = self.claimed()
        if key not in claimed and len(self._pods.keys() - claimed) >= MAX_WAITING:
            raise Refused("the manager takes no more sidecars")
        pod = self._pods.setdefault(key, {})[uid] = Pod()
        return pod

    def _charge(self, key: str, uid: str, pod: Pod, message: AgentHello | Listen | State) -> None:
        kept = pod.listens_after(message) if isinstance(message, Listen) else message
        try:
            self._budget.charge(key, (uid, type(message)), size_of(kept), self._naming)
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
            for alias, report in pod.last_reports():
                self._send(*_keyed(alias, report))
        else:
            self._follow_pod(key, pod)

    # -- what follows ----------------------------------------------------------------------------------------------

    def _follow_all(self) -> None:
        self._follow(frozenset(self._pods))

    def _follow(self, keys: AbstractSet[str]) -> None:
        for key in keys:
            for pod in list(self._pods.get(key, {}).values()):
                self._follow_pod(key, pod)

    def _follow_pod(self, key: str, pod: Pod) -> None:
        if self._manager is None or self._synced_at is None:
            return
        held = [each for each in self._held_by(key) if pod.name not in each.excluded]
        pod.follow(held, self._manager, settling=self._clock() - self._synced_at < SETTLE_SECONDS)
        for alias, report in pod.reports(held):
            self._send(*_keyed(alias, report))

    def _held_by(self, key: str) -> list[HeldClaim]:
        """The claims that name that key, oldest first; an id that two sessions use is the first one's."""
        found: dict[str, HeldClaim] = {}
        for alias in self._naming.aliases_of(key):
            held = self._held[alias]
            found.setdefault(held.claim.spec.id, held)
        return list(found.values())

    # -- who may use relays ----------------------------------------------------------------------------------------

    def _forget_source(self, key: str, address: IPv4Address) -> None:
        sources = self._sources.get(key, {})
        sources[address] = sources.get(address, 1) - 1
        if not sources[address]:
            del sources[address]
            if not sources:
                self._sources.pop(key, None)
            self._allow_agent(key)

    def _allow_all(self) -> None:
        for alias in self._held:
            self._allow(alias)

    def _allow_agent(self, key: str) -> None:
        for alias in self._naming.aliases_of(key):
            self._allow(alias)

    def _allow(self, alias: str) -> None:
        """The relays of a claim are open to the addresses of its agents' Envoys."""
        found = {address for key in self._naming.keys_of(alias) for address in self._sources.get(key, ())}
        sources = tuple(sorted(found))[:MAX_ADDRESSES]
        keep = self._synced_at is None or self._clock() - self._synced_at < REJOIN_SECONDS
        for each in self._held[alias].claim.relays:
            allow = Allow(each.relay, sources, keep)
            if self._allowed.get(each.relay) != allow:
                self._allowed[each.relay] = allow
                self._send(f"allow {each.relay}", allow)


def _keyed(alias: str, report: Report) -> tuple[str, PodReport]:
    message = PodReport(alias, report.pod, report.state == "gone", encode_body(report))
    return f"report {alias} {report.pod}", message
