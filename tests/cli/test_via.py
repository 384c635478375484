"""How a program reaches the cluster: the choice, what it is told, and what brings other networks."""

from pathlib import Path

import pytest

from meshdev.cli import uplink
from meshdev.cli.uplink import Uplink
from meshdev.cli.via import Via, choose, proxied
from meshdev.errors import IsolationError
from meshdev.isolation.reasons import Forbidden, Works

NO = Forbidden("there is no /dev/net/tun", "`sudo modprobe tun`")


@pytest.mark.parametrize(
    ("asked", "connected", "found", "line"),
    [
        (
            Via.AUTO,
            None,
            Works(),
            "via rootless: the program has a network of its own, and this machine's is not changed",
        ),
        (Via.AUTO, "dev", Works(), "via helper: this machine is connected to dev already"),
        (Via.AUTO, "dev", NO, "via helper: this machine is connected to dev already"),
        (Via.AUTO, None, NO, "via helper: there is no /dev/net/tun"),
        (Via.HELPER, "dev", NO, "via helper: as --via says"),
        (Via.HELPER, None, Works(), "via helper: as --via says"),
        (Via.ROOTLESS, "dev", Works(), "via rootless: the program has a network of its own, and this machine's is not"),
        (Via.PROXY, "dev", Works(), "via proxy: the program has this machine's network, which is not changed, and a"),
    ],
)
def test_the_choice(asked: Via, connected: str | None, found: Works | Forbidden, line: str) -> None:
    assert str(choose(asked, connected, lambda: found)).startswith(line)


@pytest.mark.parametrize("asked", [Via.ROOTLESS, Via.PROXY])
def test_what_was_asked_for_is_not_replaced(asked: Via) -> None:
    with pytest.raises(IsolationError, match="there is no /dev/net/tun") as raised:
        choose(asked, None, lambda: NO)
    assert raised.value.hint == NO.hint


def test_nothing_is_tried_where_it_decides_nothing() -> None:
    def probe() -> Works:
        pytest.fail("it takes time, and namespaces")

    assert choose(Via.HELPER, None, probe).via is Via.HELPER
    assert choose(Via.AUTO, "dev", probe).via is Via.HELPER


def test_the_variables_of_a_proxy() -> None:
    found = proxied({"PATH": "/bin", "http_proxy": "http://office:3128", "NO_PROXY": "*"}, "127.0.0.1:41234")
    assert found.pop("PATH") == "/bin"
    assert {name.lower(): value for name, value in found.items()} == {
        "http_proxy": "http://127.0.0.1:41234",
        "https_proxy": "http://127.0.0.1:41234",
        "all_proxy": "socks5h://127.0.0.1:41234",
        "no_proxy": "localhost,127.0.0.1,::1",
    }
    assert sorted(found) == sorted({*map(str.upper, found), *map(str.lower, found)})


def test_nothing_of_the_machine_leads_inside() -> None:
    pasta = Uplink("pasta", "/usr/bin/pasta").command(7)
    assert [pasta[pasta.index(flag) + 1] for flag in ("-t", "-u", "-T", "-U")] == ["none"] * 4
    assert "--no-map-gw" in pasta
    assert "--disable-host-loopback" in Uplink("slirp4netns", "/usr/bin/slirp4netns").command(7)


def test_one_that_does_not_work_says_why() -> None:
    with uplink.running(Uplink("pasta", "/bin/false"), 1 << 22) as problem:
        assert problem == "pasta does not provide other networks: it ended with 1"
    with uplink.running(None, 1) as problem:
        assert problem is None


def test_its_own_reason_is_told(tmp_path: Path) -> None:
    program = tmp_path / "pasta"
    program.write_text("#!/bin/sh\necho one; echo 'no tap device' >&2; exit 3\n")
    program.chmod(0o755)
    with uplink.running(Uplink("pasta", str(program)), 1 << 22) as problem:
        assert problem == "pasta does not provide other networks: no tap device"
