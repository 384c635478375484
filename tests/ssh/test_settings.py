"""The hops that ssh_config means, read by paramiko as in the SSH client."""

from collections.abc import Iterable

import paramiko
import pytest

from meshdev.errors import SshError
from meshdev.ssh.settings import SshHop, hops, inlined
from meshdev.ssh.target import SshTarget


def found(config: str, target: str = "bastion") -> tuple[SshHop, ...]:
    parsed = paramiko.SSHConfig.from_text(config)
    return hops(SshTarget.parse(target), lambda host: dict(parsed.lookup(host)), "me")


def names(config: str, target: str = "bastion") -> list[str]:
    return [str(hop) for hop in found(config, target)]


def test_without_a_configuration_there_are_openssh_s_defaults() -> None:
    (hop,) = found("")
    assert (str(hop), hop.checking, hop.named) == ("me@bastion", "ask", False)
    assert hop.identities == ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
    assert hop.user_known_hosts == ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")


def test_a_hint_is_a_command_that_openssh_takes() -> None:
    assert found("")[0].as_command == "me@bastion"
    assert found("Host bastion\n Port 2222\n", "jane@bastion")[0].as_command == "-p 2222 jane@bastion"


def test_what_is_typed_comes_before_the_configuration() -> None:
    config = "Host bastion\n HostName 192.0.2.1\n User jane\n Port 2222\n"
    assert names(config) == ["jane@192.0.2.1:2222"]
    assert names(config, "joe@bastion:22") == ["joe@192.0.2.1"]
    assert names(config, "other") == ["me@other"]


@pytest.mark.parametrize(
    ("config", "hop_names"),
    [
        ("Host bastion\n ProxyJump joe@gate:2222", ["joe@gate:2222", "me@bastion"]),
        ("Host bastion\n ProxyJump a,b", ["me@a", "me@b", "me@bastion"]),
        ("Host bastion\n ProxyJump b\nHost b\n ProxyJump a\n User jane", ["me@a", "jane@b", "me@bastion"]),
        ("Host bastion\n ProxyJump a,b\nHost b\n ProxyJump never", ["me@a", "me@b", "me@bastion"]),
        ("Host bastion\n ProxyJump none\nHost *\n ProxyJump a", ["me@bastion"]),
        ("Host *.in\n ProxyJump gate\nHost bastion\n HostName db.in", ["me@db.in"]),
        ("Host *\n ProxyJump gate", ["me@gate", "me@bastion"]),
        ("Match host bastion\n ProxyJump a\n", ["me@a", "me@bastion"]),
    ],
)
def test_jumps_are_followed_as_by_ssh(config: str, hop_names: list[str]) -> None:
    assert names(config) == hop_names


def test_a_circle_ends() -> None:
    with pytest.raises(SshError, match="circle"):
        found("Host bastion\n ProxyJump a\nHost a\n ProxyJump b\nHost b\n ProxyJump a")


def test_a_jump_that_is_no_host_is_an_error() -> None:
    with pytest.raises(SshError, match="invalid ProxyJump '-oX' of bastion in ssh_config"):
        found("Host bastion\n ProxyJump -oX")


def test_a_command_is_of_the_first_hop_only() -> None:
    (hop,) = found("Host bastion\n ProxyCommand nc -X 5 %h %p\n")
    assert hop.command == "nc -X 5 bastion 22"
    gate, bastion = found("Host *\n ProxyCommand nc %h %p\nHost bastion\n ProxyJump gate")
    assert (gate.command, bastion.command) == ("nc gate 22", None)
    assert found("Host bastion\n ProxyCommand none\n")[0].command is None


def test_every_option_that_is_understood() -> None:
    (hop,) = found(
        "Host bastion\n IdentityFile /keys/one\n IdentityFile /keys/two\n IdentitiesOnly yes\n HostKeyAlias b\n"
        ' UserKnownHostsFile /known "/known two"\n GlobalKnownHostsFile none\n StrictHostKeyChecking accept-new\n'
        " HashKnownHosts yes\n ConnectTimeout 1m30s\n ServerAliveInterval 7\n ServerAliveCountMax 4\n"
    )
    assert hop == SshHop(
        host="bastion",
        user="me",
        identities=("/keys/one", "/keys/two"),
        named=True,
        identities_only=True,
        user_known_hosts=("/known", "/known two"),
        alias="b",
        hashed=True,
        checking="accept-new",
        connect_seconds=90,
        alive_seconds=7,
        alive_count=4,
    )


@pytest.mark.parametrize(
    ("written", "checking"), [("yes", "yes"), ("no", "accept-new"), ("off", "accept-new"), ("ask", "ask"), ("x", "ask")]
)
def test_host_keys_are_always_checked(written: str, checking: str) -> None:
    assert found(f"StrictHostKeyChecking {written}")[0].checking == checking


def test_a_port_that_is_none() -> None:
    with pytest.raises(SshError, match="port of bastion in ssh_config is 'ssh', which is no number"):
        found("Port ssh")


def read(files: dict[str, str], pattern: str) -> Iterable[str]:
    return [files[pattern]] if pattern in files else []


def test_included_files_stand_in_their_place() -> None:
    files = {"one": "Host bastion\n Port 2222\n", "two": "Port 3333\n", "deep": "include one\n"}
    text = inlined(
        "Include one deep\nUser jane\nHost other\n  include = two\n User joe\n", lambda each: read(files, each)
    )
    parsed = paramiko.SSHConfig.from_text(text)
    assert (parsed.lookup("bastion")["port"], parsed.lookup("bastion")["user"]) == ("2222", "jane")
    assert (parsed.lookup("other")["port"], parsed.lookup("other")["user"]) == ("3333", "jane")
    assert "port" not in parsed.lookup("third")


def test_files_that_include_each_other() -> None:
    with pytest.raises(SshError, match="include each other"):
        inlined("Include x", lambda _: ["Include x"])
