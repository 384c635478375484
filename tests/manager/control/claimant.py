"""A session that claims, by its messages on a carrier."""

import asyncio
from collections.abc import Callable

from meshdev.identity.fingerprints import fingerprint
from meshdev.intercept import spec as specs
from meshdev.intercept.spec import Port, Spec
from meshdev.wire.access import AccessRecord, Watch
from meshdev.wire.intercepts import Agents, AttestedAgent, Intercept, Local, Relays, Report, Withdraw
from meshdev.wire.watching import WatchClaim
from tests.manager.claims import HTTP, spec
from tests.manager.control.identities import AGENTS
from tests.manager.test_intercepts import Ann

B = spec("b")


class Claimant:
    """What a session sends, and what it is sent meanwhile."""

    def __init__(self, ann: Ann) -> None:
        self._ann = ann
        self._order = 0

    def claim(
        self,
        one: Spec = B,
        agents: tuple[AttestedAgent, ...] = AGENTS,
        *,
        up: bool = True,
        reset_older: bool = False,
        excluded: tuple[str, ...] = (),
    ) -> None:
        self._order += 1
        self._ann.say(Intercept(one.id, specs.encode(one), reset_older, self._order, excluded))
        self.agents(one, *agents)
        for port in one.ports:
            self.local(one, up, port)

    def agents(self, one: Spec, *agents: AttestedAgent, part: int = 0) -> None:
        self._order += 1
        self._ann.say(Agents(one.id, part, agents, self._order))

    def local(self, one: Spec = B, up: bool = True, port: Port = HTTP) -> None:
        self._order += 1
        self._ann.say(Local(one.id, port.remote, port.transport, up, self._order))

    def watch(self, watch: Watch, one: Spec = B) -> None:
        self._ann.say(WatchClaim(one.id, watch))

    async def records(self, count: int) -> tuple[list[AccessRecord], int]:
        """The next records, so many with those that were dropped; and how many these were."""
        found, dropped = list[AccessRecord](), 0

        def hear() -> None:
            nonlocal dropped
            while len(found) + dropped < count:
                while not self._ann.records:
                    self._ann.hear_once()
                message = self._ann.records.pop(0)
                found.extend(message.records.records)
                dropped += message.records.dropped

        await asyncio.to_thread(hear)
        return found, dropped

    def withdraw(self, one: Spec = B) -> None:
        self._order += 1
        self._ann.say(Withdraw(one.id, self._order))

    async def issued(self, agent: AttestedAgent, one: Spec = B) -> bytes:
        """The newest certificate for that agent; the first is waited for, and then reports are read over."""
        request = fingerprint(agent.request)

        def hear() -> bytes:
            while True:
                for each in reversed(self._ann.issued):
                    if (each.id, each.request) == (one.id, request):
                        return each.certificate
                self._ann.hear_once()

        return await asyncio.to_thread(hear)

    async def report(self, wanted: Callable[[Report], bool]) -> Report:
        """The first report that is *wanted*."""

        def hear() -> Report:
            while True:
                heard = self._ann.hear()
                if isinstance(heard, Report) and wanted(heard):
                    return heard
                assert not isinstance(heard, Relays) or heard.error is None, heard

        return await asyncio.to_thread(hear)

    async def reported(self, state: str, one: Spec = B) -> Report:
        return await self.report(lambda report: (report.state, report.id) == (state, one.id))
