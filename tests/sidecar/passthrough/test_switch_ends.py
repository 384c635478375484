"""How a connection ends that was switched: by the client, the app, Envoy, and a pod that is about to end."""

import pytest

from meshdev.sidecar.passthrough.owner import ENVOY_LOST
from tests.sidecar.passthrough.switching import OK, World, get, post


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"])
def test_what_envoy_closes_is_closed(answer: bytes) -> None:
    world = World()
    world.switch.from_client(get(claimed=True) + get())
    world.switch.from_envoy(answer)
    assert world.sent["client"] == answer
    assert world.log == ["dial app", "dial envoy", "drop app", "drop envoy", "finish client"]
    world.switch.from_client(get())
    assert world.sent["app"] == b"", "a request behind the last response is nobody's"
    world.switch.client_ended()
    assert world.switch.over


def test_the_clients_end_follows_the_response() -> None:
    world = World()
    world.switch.from_client(get(claimed=True))
    world.switch.client_ended()
    assert "finish envoy" not in world.log
    world.switch.from_envoy(OK)
    assert (world.taken("client"), world.log[-1]) == (OK, "finish app")


def test_a_request_that_ends_early_ends_at_envoy() -> None:
    world = World()
    world.switch.from_client(post(b"abc", claimed=True)[:-1])
    world.switch.client_ended()
    assert world.log[-1] == "finish envoy"


def test_envoy_is_lost_with_a_request() -> None:
    world = World()
    world.switch.from_client(get(claimed=True))
    world.switch.envoy_ended()
    assert world.sent["client"] == ENVOY_LOST
    assert world.log[-1] == "finish client"
    head, _, body = ENVOY_LOST.partition(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head
    assert b"meshdev-answer: connection-lost" in head
    assert body.startswith(b"meshdev: ")


def test_envoy_is_lost_within_a_response() -> None:
    world = World()
    world.switch.from_client(get(claimed=True))
    world.switch.from_envoy(OK[:-1])
    world.switch.failed("envoy")
    assert world.log[-1] == "abort"


def test_envoy_is_lost_between_requests() -> None:
    world = World()
    world.switch.from_client(get(claimed=True))
    world.switch.from_envoy(OK)
    world.switch.envoy_ended()
    world.switch.from_client(get(claimed=True))
    assert world.log == ["dial app", "dial envoy", "drop envoy", "dial envoy"]


def test_the_apps_end_passes_where_it_saw_the_last_request() -> None:
    world = World()
    world.switch.from_client(get(claimed=True))
    world.switch.from_envoy(OK)
    world.switch.from_client(get())
    world.switch.from_app(OK)
    world.switch.app_ended()
    assert world.log[-1] == "finish client"


@pytest.mark.parametrize("late", [b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", b""])
def test_an_idle_timer_that_did_not_see_the_last_request_is_held_back(late: bytes) -> None:
    world = World()
    world.switch.from_client(get(claimed=True))
    world.switch.from_envoy(OK)
    if late:
        world.switch.from_app(late)
    else:
        world.switch.app_ended()
    assert (world.taken("client"), world.log[-1]) == (OK, "drop app")
    world.switch.from_client(get())
    assert (world.sent["app"], world.log[-1]) == (get(), "dial app")
    world.switch.from_app(OK)
    assert world.taken("client") == OK


@pytest.mark.parametrize("first", ["the app closes", "it drains"])
def test_what_an_app_closes_that_is_about_to_end_is_closed(first: str) -> None:
    world = World(draining=first == "it drains")
    world.switch.from_client(get(claimed=True))
    world.switch.from_envoy(OK)
    world.switch.app_ended()
    if not world.draining:
        assert world.log[-1] == "drop app"
        world.draining = True
        world.switch.drain()
    assert (world.sent["client"], world.log[-1]) == (OK, "finish client")


def test_an_app_that_ends_while_envoy_answers_is_the_connections_end() -> None:
    world = World(draining=True)
    world.switch.from_client(get(claimed=True))
    world.switch.app_ended()
    world.switch.drain()
    assert "finish client" not in world.log
    world.switch.from_envoy(OK)
    assert (world.sent["client"], world.log[-1]) == (OK, "finish client")


@pytest.mark.parametrize("begun", [b"", get(claimed=True)])
def test_draining_ends_nothing_that_the_app_has_or_that_waits(begun: bytes) -> None:
    world = World()
    world.switch.from_client(begun + get())
    world.switch.from_envoy(OK) if begun else None
    world.draining = True
    world.switch.drain()
    assert "finish client" not in world.log
    world.switch.from_app(OK)
    assert world.sent["client"].endswith(OK)


def test_a_client_that_resets_takes_all_with_it() -> None:
    world = World()
    world.switch.from_client(get())
    world.switch.failed("client")
    assert world.log[-1] == "abort"


def test_an_app_that_resets_under_a_request_resets_the_client() -> None:
    world = World()
    world.switch.from_client(get())
    world.switch.failed("app")
    assert world.log[-1] == "abort"
