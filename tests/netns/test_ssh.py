"""The SSH client of --ssh with real servers: two hops, the second one and what is behind it only seen by the first.

The laptop, the gate (its neighbour), and behind the gate's loopback the bastion: nothing there can be reached directly.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from meshdev.errors import SshError, UnreachableError
from meshdev.ssh.jump import Jump
from tests.netns.laptop import GATEWAY, Laptop
from tests.netns.ssh_world import BASTION_PORT, COMMAND, CONFIG, ECHO, GATE_PORT, SECONDS, OnTerminal, World, echoed
from tests.ssh_server import USER, SshServer, keygen

_PASSPHRASE: Final = "open sesame"  # noqa: S105 -- of keys that live for one test


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Laptop, SshServer, SshServer]]:
    laptop = Laptop()
    enter = laptop.neighbour_command()
    gate = SshServer(enter, GATEWAY, GATE_PORT)
    bastion = SshServer(enter, "127.0.0.1", BASTION_PORT, "PermitOpen 127.0.0.1:7 127.0.0.1:8")
    echo = subprocess.Popen([*enter, sys.executable, "-c", ECHO], stdout=subprocess.PIPE)
    assert echo.stdout is not None
    assert echo.stdout.readline() == b"ready\n"
    yield laptop, gate, bastion
    echo.kill()
    echo.wait()
    echo.stdout.close()
    for server in (gate, bastion):
        server.close()
    laptop.close()


@pytest.fixture
def world(servers: tuple[Laptop, SshServer, SshServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(*servers, tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return made


def test_over_two_hops(world: World) -> None:
    data = os.urandom(4 << 20)
    with world.opened() as jump:
        assert echoed(jump, data) == data
        assert echoed(jump) == b"hello"


async def test_the_address_of_the_first_hop_is_known(world: World) -> None:
    with world.opened() as jump:
        assert {str(each) for each in await jump.addresses()} == {GATEWAY}
        assert jump.host == GATEWAY
        sock = await jump.connect("127.0.0.1", 7)
        sock.close()


def test_what_the_bastion_cannot_or_may_not_reach(world: World) -> None:
    with world.opened() as jump:
        with pytest.raises(UnreachableError, match=r"has no connection to 127\.0\.0\.1:8: Connect"):
            jump.dial("127.0.0.1", 8, SECONDS)
        with pytest.raises(SshError, match=r"does not allow connections to 127\.0\.0\.1:9"):
            jump.dial("127.0.0.1", 9, SECONDS)
        assert echoed(jump) == b"hello"


def test_who_holds_no_descriptor_has_no_ssh_client(world: World) -> None:
    with world.opened() as jump:
        sock = jump.dial("127.0.0.1", 7, SECONDS)
    sock.settimeout(SECONDS)
    assert sock.recv(1) == b""
    sock.close()


@pytest.mark.parametrize("which", ["gate", "bastion"])
def test_a_changed_host_key_is_refused(world: World, which: str) -> None:
    server = getattr(world, which)
    world.known.write_text(world.known.read_text().replace(server.host_key, _other_key(world)))
    error = world.error()
    assert isinstance(error, SshError)
    assert f"the host key of {USER}@" in error.message
    assert f"{world.known}, line {1 if which == 'gate' else 2} has another one" in error.message
    assert error.hint is not None
    assert f"ssh-keygen -f {world.known} -R '{server.name}'" in error.hint


def test_a_revoked_host_key_is_refused(world: World) -> None:
    with world.known.open("a") as file:
        file.write(f"@revoked * {world.gate.host_key}\n")
    assert f"is revoked: {world.known}, line 3" in world.error().message


def test_an_unknown_host_is_refused_and_may_be_accepted_by_configuration(world: World) -> None:
    world.known.write_text("")
    assert "is not known: ssh-ed25519 SHA256:" in world.error().message
    world.config.write_text(CONFIG.replace("Checking yes", "Checking accept-new").replace("Hosts no", "Hosts yes"))

    with world.opened() as jump:
        assert echoed(jump) == b"hello"
    assert world.known.read_text().count("|1|") == 2
    world.config.write_text(CONFIG)
    with world.opened() as jump:
        assert echoed(jump) == b"hello"


def test_keys_that_the_server_does_not_accept(world: World) -> None:
    for file in (world.key, Path(f"{world.key}.pub")):
        file.unlink()
    keygen(world.key)
    assert "refuses the login (it offers: publickey)" in world.error().message


def test_the_agent_signs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Among many keys the one that is named is used: a server allows six tries."""
    agent = world.home / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(agent)], stdout=subprocess.DEVNULL)
    try:
        end = time.monotonic() + SECONDS
        while not agent.exists():
            assert time.monotonic() < end
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent))
        others = [world.home / f"other{number}" for number in range(7)]
        for key in (*others, world.key):
            if key in others:
                keygen(key)
            subprocess.run(["ssh-add", "-q", str(key)], check=True)
        world.key.unlink()
        with world.opened() as jump:
            assert echoed(jump) == b"hello"
        Path(f"{world.key}.pub").unlink()
        assert "too many keys were tried" in world.error().message
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_kinds_of_keys(world: World, kind: str) -> None:
    world.key.unlink()
    world.accept(keygen(world.ssh / f"id_{kind}", kind=kind))
    with world.opened() as jump:
        assert echoed(jump) == b"hello"


def test_connections_that_die_are_made_again(world: World) -> None:
    with world.opened() as jump:
        sock = jump.dial("127.0.0.1", 7, SECONDS)
        sock.settimeout(SECONDS)
        world.bastion.kill_connections()
        assert sock.recv(1) == b""
        sock.close()
        assert echoed(jump) == b"hello"
        world.gate.kill_connections()
        assert echoed(jump) == b"hello"


def test_a_host_key_is_checked_again_when_it_is_made_again(world: World) -> None:
    with world.opened() as jump:
        assert echoed(jump) == b"hello"
        world.known.write_text("")
        world.bastion.kill_connections()
        with pytest.raises(SshError, match="is not known"):
            _dial_until_error(jump)


def test_a_link_that_drops_everything_is_noticed(world: World) -> None:
    """ServerAliveInterval: what has been sent is answered by nobody, and nothing says so."""
    with world.opened() as jump:
        sock = jump.dial("127.0.0.1", 7, SECONDS)
        sock.settimeout(SECONDS)
        world.laptop.run("nft", "add table ip cut { chain in { type filter hook input priority 0; policy drop; }; }")
        began = time.monotonic()
        try:
            assert sock.recv(1) == b""
            assert time.monotonic() - began < 4
        finally:
            world.laptop.run("nft", "delete table ip cut")
            sock.close()
        assert echoed(jump) == b"hello"


def test_a_server_that_is_gone_is_named_and_comes_back(world: World) -> None:
    with world.opened() as jump:
        assert echoed(jump) == b"hello"
        world.gate.stop()
        try:
            with pytest.raises(UnreachableError, match=f"no SSH connection to {USER}@{GATEWAY}:{GATE_PORT}: .*refused"):
                _dial_until_error(jump)
        finally:
            world.gate.start()
        assert _echoed_at_last(jump) == b"hello"


@pytest.fixture
def on_terminal(world: World) -> Iterator[OnTerminal]:
    """The command, of a user whose key is encrypted and who knows no host."""
    world.key.unlink()
    world.accept(keygen(world.key.with_name("id_rsa"), kind="rsa", passphrase=_PASSPHRASE))
    world.config.write_text(CONFIG.replace("StrictHostKeyChecking yes", ""))
    world.known.unlink()
    running = OnTerminal(world.laptop)
    yield running
    running.close()


def test_questions_are_asked_on_the_terminal(world: World, on_terminal: OnTerminal) -> None:
    for server in (world.gate, world.bastion):
        on_terminal.expect(f"The authenticity of host {server.name} can't be established.")
        on_terminal.expect("SHA256:")
        on_terminal.expect("(yes/no)? ")
        on_terminal.seen = ""
        on_terminal.type("yes\n")
        if server is world.gate:  # once for both
            on_terminal.expect("Enter passphrase for key '~/.ssh/id_rsa': ")
            assert not on_terminal.echoes()
            on_terminal.type("wrong\n")
            on_terminal.expect("\r\nEnter passphrase for key '~/.ssh/id_rsa': ")
            on_terminal.type(f"{_PASSPHRASE}\n")
    on_terminal.expect("echoed hello")
    assert _PASSPHRASE not in on_terminal.seen
    assert on_terminal.echoes()
    assert [line.split()[0] for line in world.known.read_text().splitlines()] == [
        world.gate.name,
        world.bastion.name,
    ]


def test_a_question_is_answered_by_ctrl_c(on_terminal: OnTerminal) -> None:
    on_terminal.expect("(yes/no)? ")
    on_terminal.type("yes\n")
    on_terminal.expect("Enter passphrase")
    on_terminal.type("\x03")
    on_terminal.process.wait(SECONDS)
    assert on_terminal.echoes()


def test_without_a_terminal_nobody_is_asked(world: World) -> None:
    world.key.unlink()
    world.accept(keygen(world.key.with_name("id_rsa"), kind="rsa", passphrase=_PASSPHRASE))
    command = world.laptop.command(sys.executable, "-c", COMMAND)
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True, timeout=60, check=False)
    assert "id_rsa is encrypted, and there is no terminal to ask for its passphrase" in done.stdout
    assert done.stderr == ""


def test_a_proxy_command_is_run(world: World) -> None:
    world.config.write_text(
        CONFIG.replace("Host gate\n", f"Host gate\n  ProxyCommand {sys.executable} {_relay(world)} %h %p\n")
    )
    with world.opened() as jump:
        assert echoed(jump) == b"hello"


def _other_key(world: World) -> str:
    return " ".join(keygen(world.home / "another").read_text().split()[:2])


def _echoed_at_last(jump: Jump) -> bytes:
    """A failure is remembered for a second."""
    end = time.monotonic() + SECONDS
    while True:
        try:
            return echoed(jump)
        except UnreachableError:
            assert time.monotonic() < end


def _dial_until_error(jump: Jump) -> None:
    """The connection that is dead may still be taken for alive for a moment."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        jump.dial("127.0.0.1", 7, SECONDS).close()


def _relay(world: World) -> Path:
    """A program that connects to a host and port, for ProxyCommand."""
    file = world.home / "relay.py"
    file.write_text(
        "import os, socket, sys, threading\n"
        "sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def back():\n"
        "    while data := sock.recv(65536): os.write(1, data)\n"
        "threading.Thread(target=back, daemon=True).start()\n"
        "try:\n"
        "    while data := os.read(0, 65536): sock.sendall(data)\n"
        "except OSError: pass\n"
    )
    return file
