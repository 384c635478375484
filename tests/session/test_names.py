"""The names of a connection in another network: a helper that cannot listen at once ends nothing."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meshdev.dns.forwarder import Forwarder
from meshdev.errors import DnsError, FirewallError, LaptopError
from meshdev.published import Published
from meshdev.session import names
from meshdev.session.laptop import DnsSituation
from meshdev.session.names import Names
from meshdev.wire.helper.answers import DnsSet
from tests.waiting import until


def serving() -> Forwarder:
    """One that serves until it is cancelled."""
    return cast("Forwarder", SimpleNamespace(run=asyncio.Event().wait))


class Moved:
    """A laptop that is in its second network."""

    def __init__(self) -> None:
        self.situation = Published(DnsSituation((), ("10.0.0.2",)))


def made(laptop: Moved, **methods: Any) -> Names:
    """One that has a laptop and nothing else; *methods* take the place of its own."""
    found = Names.__new__(Names)
    found._laptop = cast("Any", laptop)
    for name, method in methods.items():
        setattr(found, name, method)
    return found


@pytest.mark.parametrize("error", [DnsError("no listener"), LaptopError("no answer"), FirewallError("no table")])
async def test_another_network_in_which_the_helper_cannot_listen_at_once(
    error: LaptopError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "RETRY_SECONDS", 0)
    answers: list[Forwarder | LaptopError] = [error, error, serving()]
    redirects: list[int] = []

    async def forwarder() -> Forwarder:
        answer = answers.pop(0)
        if isinstance(answer, LaptopError):
            raise answer
        return answer

    async def redirect() -> None:
        redirects.append(len(answers))
        raise error

    found = made(Moved(), _forwarder=forwarder, _redirect=redirect)
    running = asyncio.ensure_future(found._run(serving(), DnsSituation((), ("10.0.0.1",))))
    await until(lambda: redirects or running.done())
    assert redirects == [0], "each error was tried again, and then the new listeners were told of"
    assert not running.done()
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_old_answers_of_a_cache_are_a_note_until_it_forgets_them() -> None:
    answers = [DnsSet("old answers, from a cache: busy"), DnsSet(None)]

    async def set_dns(_search: object, _domains: object) -> DnsSet:
        return answers.pop(0)

    found = made(Moved(), _asked_here=lambda: ((), (".",)), _containers="containers do not reach the cluster")
    found._cached = None
    found._laptop.helper = cast("Any", SimpleNamespace(set_dns=set_dns))
    notes = []
    for _ in range(2):
        await found._redirect()
        notes.append(found.notes)
    assert notes == [
        ("containers do not reach the cluster", "old answers, from a cache: busy"),
        ("containers do not reach the cluster",),
    ]
