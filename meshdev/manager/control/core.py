"""What the container *control* knows and decides: claims from the tunnel container, pods from sidecars.

Both meet under the sha256 of a workload's token. No I/O: what is to be said goes through what it was made with.
"""

import logging
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.intercept import spec as specs
from meshdev.manager.control.budget import Budget, Refused, size_of, size_of_names
from meshdev.manager.control.pods import Held, Pod
from meshdev.manager.control.xds import Answer, Stream
from meshdev.sidecar.envoy.claims import Claim
from meshdev.sidecar.envoy.protos import ORDER
from meshdev.wire.agent import FromControl, Hello, Listen, PodPort, State
from meshdev.wire.intercepts import Report
from meshdev.wire.manager import MAX_ADDRESSES, Allow, Claimed, Synced, ToTunnel, Withdrawn
from meshdev.wire.manager import Pod as ManagerPod

log = logging.getLogger(__name__)

#: After this process or the tunnel container began anew, sessions and sidecars come again within this time: until
#: then nobody who was allowed is shut out, and no sidecar is told to leave.
SETTLE_SECONDS: Final = 3.0
REJOIN_SECONDS: Final = 15.0
#: An Envoy that lost its stream still has its routes: its address stays allowed for so long.
ADDRESS_SECONDS: Final = 10.0
#: A request that took its way just before the route changed may be connecting still (0.5 s, then to the original).
PRUNE_SECONDS: Final = 5.0
#: Sidecars of keys that no session claims: those that wait for the next intercept.
MAX_WAITING: Final = 256
#: Sidecars of one key.
MAX_PODS: Final = MAX_ADDRESSES

Later = Callable[[float, Callable[[], None]], object]


class Core:
    """Belongs to one event loop. *tell* takes a key and the newest message for it, *later* calls back in so many
    seconds, *clock* is in seconds."""

    def __init__(self, tell: Callable[[str, ToTunnel], None], later: Later, clock: Callable[[], float]) -> None:
        self._tell = tell
        self._later = later
        self._clock = clock
        self._manager: IPv4Address | None = None
        self._held: dict[str, Held] = {}
        self._keys: dict[str, str] = {}
        self._aliases: dict[str, dict[str, None]] = {}
        """Those of each key, oldest first: what happens to one workload shall not cost what all of them have."""
        self._heard: set[str] | None = set()
        """Aliases told since the tunnel container was met; None once it said that these are all."""
        self._order = 0
        self._synced_at: float | None = None
        self._pods: dict[str, dict[str, Pod]] = {}
        self._budget = Budget()
        self._sources: dict[str, dict[IPv4Address, int]] = {}
        self._allowed: dict[int, Allow] = {}

    # -- the tunnel container --------------------------------------------------------------------------------------

    def met(self) -> None:
        """The tunnel container was met, for the first time or again: it tells everything now."""
        self._heard = set()

    def told(self, message: ManagerPod | Claimed | Withdrawn | Synced) -> None:
        """Its word."""
        match message:
            case ManagerPod(address):
                self._manager = address
            case Claimed():
                self._claimed(message)
            case Withdrawn(alias):
                self._withdrawn(alias)
            case Synced():
                self._synced()

    def everything(self) -> Iterator[tuple[str, ToTunnel]]:
        """What a tunnel container that begins anew has to hear."""
        for allow in self._allowed.values():
            yield f"allow {allow.relay}", allow
        for pod in self.pods():
            for report in pod.told():
                yield _key(report), report

    def _claimed(self, message: Claimed) -> None:
        if self._heard is not None:
            self._heard.add(message.id)
        before = self._held.get(message.id)
        try:
            spec = specs.decode(message.spec)
        except ProtocolError as error:  # the tunnel container has looked at it already
            log.warning("a claim of %s cannot be read: %s", message.holder, error.message)
            self._withdrawn(message.id)
            return
        up = frozenset(PodPort(each.remote, each.protocol) for each in message.up)
        claim = Claim(spec, message.holder, message.relays, up)
        excluded = frozenset(message.excluded)
        same = before is not None and (before.claim, before.reset_older) == (claim, message.reset_older)
        if before is not None and self._keys[message.id] != message.key:  # its withdrawal was overtaken
            self._follow(self._forget_key(message.id))
            same = False
        if before is not None and same and before.excluded == excluded:
            return
        if before is None:
            log.info("%s claims %s in %s (%s)", message.holder, spec.workload, spec.workload.namespace, spec.mode)
        # Which port is up changes nothing that Envoy could have refused, but it is another state of its routes.
        # Which pods are left out is not: those that stay have taken what they shall have.
        self._order += not same
        order = before.order if before is not None and same else self._order
        self._held[message.id] = Held(message.id, claim, message.reset_older, order, excluded)
        self._keys[message.id] = message.key
        self._aliases.setdefault(message.key, {})[message.id] = None
        self._allow(message.key)
        self._follow(message.key)

    def _withdrawn(self, alias: str) -> None:
        held = self._held.pop(alias, None)
        if held is None:
            return
        log.info("%s leaves %s in %s", held.claim.holder, held.claim.spec.workload, held.claim.spec.workload.namespace)
        for each in held.claim.relays:
            self._allowed.pop(each.relay, None)
        self._follow(self._forget_key(alias))

    def _forget_key(self, alias: str) -> str:
        key = self._keys.pop(alias)
        del self._aliases[key][alias]
        if not self._aliases[key]:
            del self._aliases[key]
        return key

    def _synced(self) -> None:
        missing = set(self._held) - self._heard if self._heard is not None else set()
        self._heard = None
        for alias in missing:
            self._withdrawn(alias)
        self._synced_at = self._clock()
        self._later(SETTLE_SECONDS, self._follow_all)
        self._later(REJOIN_SECONDS, self._allow_all)
        self._follow_all()

    def claimed(self) -> AbstractSet[str]:
        """The keys of all claims, as they are at any time."""
        return self._aliases.keys()

    # -- sidecars --------------------------------------------------------------------------------------------------

    def agent_came(self, key: str, hello: Hello, say: Callable[[FromControl], None]) -> Pod:
        """An agent proved the key. Raises Refused."""
        pod = self._pod(key, hello.uid)
        self._charge(key, hello.uid, pod, hello)
        pod.agent_came(hello, say)
        self._follow_pod(key, pod)
        return pod

    def agent_said(self, key: str, uid: str, pod: Pod, message: Listen | State) -> None:
        """Its message. Raises Refused: then its stream has to end."""
        self._charge(key, uid, pod, message)
        pod.agent_said(message)
        self._follow_pod(key, pod)

    def agent_went(self, key: str, uid: str, pod: Pod) -> None:
        """Its stream ended, and no other has taken its place."""
        pod.agent_went()
        self._budget.release(key, (uid, State))
        self._left(key, uid, pod)

    def envoy_came(
        self, key: str, uid: str, address: IPv4Address, send: Callable[[list[Answer]], None]
    ) -> tuple[Pod, Stream]:
        """An Envoy proved the key, from that address. Raises Refused."""
        pod = self._pod(key, uid)
        stream = pod.envoy_came(lambda answers: send(list(answers)))
        sources = self._sources.setdefault(key, {})
        sources[address] = sources.get(address, 0) + 1
        self._allow(key)
        self._follow_pod(key, pod)
        return pod, stream

    def envoy_asks(self, key: str, stream: Stream, kind: str, names: int) -> None:
        """It asks for so many resources. Raises Refused: then its stream has to end."""
        if kind in ORDER:
            self._budget.charge(key, (stream, kind), size_of_names(names), self.claimed())

    def envoy_said(self, key: str, pod: Pod) -> None:
        """Its stream moved on."""
        self._follow_pod(key, pod)
        if pod.begin_to_prune():
            self._later(PRUNE_SECONDS, pod.prune)

    def envoy_went(self, key: str, uid: str, address: IPv4Address, pod: Pod, stream: Stream) -> None:
        """Its stream ended."""
        pod.envoy_went(stream)
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
        claimed = self.claimed()
        if key in claimed:
            full = len(self._pods.get(key, {})) >= MAX_PODS
        else:
            full = sum(len(self._pods[one]) for one in self._pods.keys() - claimed) >= MAX_WAITING
        if full:
            raise Refused("the manager takes no more sidecars")
        pod = self._pods.setdefault(key, {})[uid] = Pod()
        return pod

    def _charge(self, key: str, uid: str, pod: Pod, message: Hello | Listen | State) -> None:
        kept = pod.listens_after(message) if isinstance(message, Listen) else message
        try:
            self._budget.charge(key, (uid, type(message)), size_of(kept), self.claimed())
        except Refused:
            self._left(key, uid, pod)
            raise

    def _left(self, key: str, uid: str, pod: Pod) -> None:
        if pod.alone and self._pods.get(key, {}).get(uid) is pod:
            del self._pods[key][uid]
            if not self._pods[key]:
                del self._pods[key]
            for each in (Hello, Listen, State):
                self._budget.release(key, (uid, each))
            for report in pod.last_words():
                self._tell(_key(report), report)
        else:
            self._follow_pod(key, pod)

    # -- what follows ----------------------------------------------------------------------------------------------

    def _follow_all(self) -> None:
        for key in list(self._pods):
            self._follow(key)

    def _follow(self, key: str) -> None:
        for pod in list(self._pods.get(key, {}).values()):
            self._follow_pod(key, pod)

    def _follow_pod(self, key: str, pod: Pod) -> None:
        if self._manager is None or self._synced_at is None:
            return
        held = [each for each in self._held_by(key) if pod.name not in each.excluded]
        pod.follow(held, self._manager, patient=self._clock() - self._synced_at < SETTLE_SECONDS)
        for report in pod.reports(held):
            self._tell(_key(report), report)

    def _held_by(self, key: str) -> list[Held]:
        """The claims of that key, oldest first; an id that two sessions use is the first one's."""
        found: dict[str, Held] = {}
        for alias in self._aliases.get(key, {}):
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
            self._allow(key)

    def _allow_all(self) -> None:
        for key in self.claimed():
            self._allow(key)

    def _allow(self, key: str) -> None:
        sources = tuple(sorted(self._sources.get(key, {})))[:MAX_ADDRESSES]
        keep = self._synced_at is None or self._clock() - self._synced_at < REJOIN_SECONDS
        for alias in self._aliases.get(key, {}):
            for each in self._held[alias].claim.relays:
                allow = Allow(each.relay, sources, keep)
                if self._allowed.get(each.relay) != allow:
                    self._allowed[each.relay] = allow
                    self._tell(f"allow {each.relay}", allow)


def _key(report: Report) -> str:
    return f"report {report.id} {report.pod}"
