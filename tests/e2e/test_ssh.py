"""The API server can be reached from a bastion only: with ``--ssh`` everything works."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import addresses
from tests.cluster.paths import NETNS
from tests.e2e.conftest import Laptop, until
from tests.e2e.intercepting import A1, LOCAL, curl, intercepted, listed, local, refused
from tests.e2e.terminal import TerminalCommand, on_terminal
from tests.ssh_server import USER, SshServer, keygen

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

_PORT: Final = 2222
#: Laptop 2 is the bastion: it is in the node's network, too.
_BASTION: Final = str(addresses.laptop(2).node_network.ip)
_ONLY_BY_BASTION: Final = f"""
table ip only_by_bastion {{
  chain out {{
    type filter hook output priority 0;
    ip daddr {addresses.NODE} tcp dport 6443 reject with tcp reset
  }}
}}
"""
_CONFIG: Final = f"""
Host bastion
  HostName {_BASTION}
  Port {_PORT}
  User {USER}
"""
_PASSPHRASE: Final = "open sesame"  # noqa: S105 -- of a key that lives for these tests
_QUESTION: Final = "Enter passphrase for key '~/.ssh/id_ed25519': "
SSH: Final = ("--ssh", "bastion")


@pytest.fixture(scope="module")
def server(cluster: None) -> Iterator[SshServer]:  # noqa: ARG001 -- for its effect
    """The bastion's sshd."""
    made = SshServer(["nsenter", f"--net={NETNS / addresses.laptop(2).namespace}"], _BASTION, _PORT)
    yield made
    made.close()


@pytest.fixture(scope="module")
def dev(server: SshServer) -> Iterator[Laptop]:
    """The developer, who knows the bastion, and whose machine does not reach the API server."""
    root, dev = Laptop(1), Laptop(1, "dev")
    dev.clean()
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder)
        files.chmod(0o755)
        server.authorize(keygen(files / "id_ed25519"))
        (files / "id_ed25519").chmod(0o644)
        (files / "config").write_text(_CONFIG)
        (files / "known_hosts").write_text(f"{server.name} {server.host_key}\n")
        (files / "rules").write_text(_ONLY_BY_BASTION)
        dev.ok("sh", "-ec", f"install -d -m 700 ~/.ssh; install -m 600 {files}/[!r]* ~/.ssh")
        root.ok("nft", "-f", str(files / "rules"))
    try:
        yield dev
    finally:
        dev.clean()
        root.ok("nft", "delete", "table", "ip", "only_by_bastion")
        dev.ok("sh", "-c", "rm -r ~/.ssh")


@pytest.fixture(scope="module")
def connected(dev: Laptop) -> Iterator[Laptop]:
    """Connected through the bastion; as before afterwards."""
    before = dev.snapshot()
    with _encrypted(dev), on_terminal(dev, "meshdev", "connect", *SSH, "--also", f"{_BASTION}/32") as running:
        until("the question", lambda: _QUESTION in running.seen, 10)
        running.type(f"{_PASSPHRASE}\n")
        assert running.wait(30) == 0, running.seen
        assert _PASSPHRASE not in running.seen
    yield dev
    dev.meshdev("disconnect")
    assert dev.snapshot() == before
    assert dev.processes() == {}


@contextmanager
def _encrypted(dev: Laptop) -> Iterator[None]:
    """The key has a passphrase inside."""
    command = ("ssh-keygen", "-q", "-p", "-f", "/home/dev/.ssh/id_ed25519")
    dev.ok(*command, "-P", "", "-N", _PASSPHRASE)
    try:
        yield
    finally:
        dev.ok(*command, "-P", _PASSPHRASE, "-N", "")


def test_without_the_bastion_there_is_no_api_server(dev: Laptop) -> None:
    code, error = refused(dev, "list")
    assert (code, error["code"]) == (31, "unreachable")


def test_a_changed_host_key_is_refused_and_nothing_is_begun(dev: Laptop) -> None:
    before = dev.snapshot()
    dev.ok(
        "sh", "-ec", "cd ~/.ssh; cp known_hosts kept; sed -i 's/AAAA[^ ]*$/AAAAC3NzaC1lZDI1NTE5AAAAIA==/' known_hosts"
    )
    try:
        for command in ("connect", "list"):
            code, error = refused(dev, command, *SSH)
            assert (code, error["code"]) == (13, "ssh")
            assert "has changed: it is ssh-ed25519 SHA256:" in error["message"]
            assert "/home/dev/.ssh/known_hosts, line 1 has another one" in error["message"]
    finally:
        dev.ok("sh", "-ec", "cd ~/.ssh; mv kept known_hosts")
    assert dev.snapshot() == before
    assert dev.processes() == {}


def test_a_question_is_answered_by_ctrl_c_and_nothing_is_left(dev: Laptop) -> None:
    before = dev.snapshot()
    with _encrypted(dev):
        running = TerminalCommand(dev, "meshdev", "connect", *SSH)
        until("the question", lambda: _QUESTION in running.seen, 10)
        assert running.interrupt() == 130
        assert "interrupted; nothing was begun" in running.seen
        code, error = refused(dev, "connect", *SSH)
        assert (code, error["code"]) == (13, "ssh")
        assert "there is no terminal to ask for its passphrase" in error["message"]
    assert dev.snapshot() == before
    assert dev.processes() == {}


def test_the_doctor_goes_the_same_way(dev: Laptop) -> None:
    found = {each["check"]: each for each in json.loads(dev.run("meshdev", "doctor", *SSH, "-o", "json").stdout)}
    assert found["api-server"]["state"] == "ok", found
    assert "through bastion" in found["api-server"]["detail"]


def test_a_program_runs_with_an_intercept(dev: Laptop) -> None:
    """The connection is the command's own."""
    with local(dev):
        flags = ("--via", "helper", "--mesh", "deployment/b", "--header", "a=1", "--port", "8080:http")
        said = dev.ok("meshdev", "run", *SSH, *flags, "--", "curl", "-sS", "-H", "a: 1", "http://b/", timeout=90)
    assert LOCAL in said
    assert dev.processes() == {}


def test_a_program_runs_in_a_network_of_its_own(dev: Laptop) -> None:
    """The session is in that network; the SSH client is not, and is reached all the same."""
    said = dev.ok("meshdev", "run", *SSH, "--via", "rootless", "--", "curl", "-sS", "http://a/", timeout=90)
    assert said == "service-a>service-b>service-c"
    assert dev.processes() == {}


def test_the_cluster_is_reached_and_status_names_the_bastion(connected: Laptop) -> None:
    assert curl(connected, "http://a/") == "service-a>service-b>service-c"
    status = connected.status()
    assert (status["state"], status["ssh"]) == ("connected", "bastion")
    assert "ssh        bastion" in connected.meshdev("status")


def test_the_bastion_stays_outside_of_the_tunnel(connected: Laptop) -> None:
    """Though its address was asked for: the tunnel's own connection goes there."""
    assert f"{_BASTION}/32" not in connected.status()["routes"]
    assert "meshdev" not in connected.ok("ip", "route", "get", _BASTION)


def test_requests_are_intercepted_and_listed(connected: Laptop) -> None:
    with (
        local(connected),
        intercepted(connected, "mesh", "deployment/b", "default", "--header=a=1", "--port=8080:http"),
    ):
        assert LOCAL in curl(connected, "http://b/", A1)
        assert [row["target"] for row in listed(connected, *SSH)] == ["deployment/b"]
    done = connected.run("meshdev", "list", "-o", "json", environment={"MESHDEV_SSH": "bastion"})
    assert json.loads(done.stdout) == []


def test_another_bastion_is_another_connection(connected: Laptop) -> None:
    assert "Already connected" in connected.meshdev("connect", *SSH)
    code, error = refused(connected, "connect", "--ssh", "other")
    assert (code, error["code"]) == (56, "already-connected")
    assert "through bastion" in error["message"]


def test_a_connection_that_dies_is_made_again(connected: Laptop, server: SshServer) -> None:
    logins = server.log().count("Accepted publickey")
    server.kill_connections()
    until(
        "the tunnel is back", lambda: connected.run("curl", "-sS", "--max-time", "2", "http://a/").returncode == 0, 15
    )
    until("both carriers", lambda: all(carrier["up"] for carrier in connected.status()["carriers"]))
    assert server.log().count("Accepted publickey") == logins + 1


def test_an_ssh_client_that_is_killed_is_named(connected: Laptop) -> None:
    """The last test: nobody can type the passphrase into a session."""
    pid = next(pid for pid, line in connected.processes().items() if "-m meshdev.ssh" in line)
    connected.ok("kill", "-KILL", str(pid))
    status = until("no carrier", lambda: found if (found := connected.status())["state"] == "reconnecting" else None)
    until("why", lambda: any("the SSH client has ended" in note for note in connected.status()["notes"]), 10)
    assert status["ssh"] == "bastion"
