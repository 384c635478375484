"""Which host keys are known, by what OpenSSH's own tools write."""

import base64
import subprocess
from pathlib import Path

import pytest

from meshdev.ssh.known_hosts import HostKey, Judgement, judge, kinds_of, name_of, new_line, parse, preferred

KEY = HostKey("ssh-ed25519", b"the key")
OTHER = HostKey("ssh-ed25519", b"another one")
RSA = HostKey("ssh-rsa", b"an RSA key")


def line(hosts: str, key: HostKey = KEY, marker: str = "") -> str:
    return f"{marker} {hosts} {key.kind} {base64.b64encode(key.blob).decode()} comment\n"


def found(text: str, name: str = "bastion", key: HostKey = KEY) -> Judgement:
    return judge(list(parse(text, "file")), name, key)


@pytest.mark.parametrize(
    ("hosts", "name", "verdict"),
    [
        ("bastion", "bastion", "known"),
        ("BASTION", "bastion", "known"),
        ("other,bastion,192.0.2.1", "192.0.2.1", "known"),
        ("bastion", "[bastion]:2222", "unknown"),
        ("[bastion]:2222", "[bastion]:2222", "known"),
        ("[bastion]:2222", "bastion", "unknown"),
        ("*.example", "b.example", "known"),
        ("b?", "bx", "known"),
        ("b?", "b", "unknown"),
        ("*.example,!bad.example", "bad.example", "unknown"),
        ("!bad.example,*.example", "bad.example", "unknown"),
        ("[*.example]:2222", "[b.example]:2222", "known"),
        ("[bc]astion", "bastion", "unknown"),
        ("|1|no base64|x", "bastion", "unknown"),
    ],
)
def test_a_line_is_for_the_hosts_that_it_names(hosts: str, name: str, verdict: str) -> None:
    assert found(line(hosts), name).verdict == verdict


def test_the_name_of_a_host() -> None:
    assert name_of("Bastion", 22) == "bastion"
    assert name_of("Bastion", 2222) == "[bastion]:2222"
    assert name_of("192.0.2.1", 2222, alias="Bastion") == "bastion"


def test_another_key_of_the_same_kind_is_a_change_and_says_where() -> None:
    judged = found("# comment\n\n" + line("bastion", OTHER))
    assert judged.verdict == "changed"
    assert judged.line is not None
    assert judged.line.where == "file, line 3"


def test_a_host_may_have_several_keys() -> None:
    assert found(line("bastion", OTHER) + line("bastion")).verdict == "known"
    assert found(line("bastion", RSA)).verdict == "unknown"


@pytest.mark.parametrize("order", [1, -1])
def test_a_revoked_key_is_never_good(order: int) -> None:
    text = "".join([line("bastion"), line("*", marker="@revoked")][::order])
    assert found(text).verdict == "revoked"
    assert found(text, key=OTHER).verdict == "changed"


def test_certificate_authorities_and_unknown_markers_make_no_key_known() -> None:
    judged = found(line("bastion", marker="@cert-authority"))
    assert (judged.verdict, judged.authority) == ("unknown", True)
    assert found(line("bastion", marker="@other")) == Judgement("unknown")


@pytest.mark.parametrize(
    "text", ["bastion\n", "bastion ssh-ed25519\n", "bastion ssh-ed25519 !!!\n", "@revoked\n", "\0\n"]
)
def test_lines_that_are_none_are_passed_over(text: str) -> None:
    assert list(parse(text, "file")) == []
    assert found(text + line("bastion")).verdict == "known"


def test_kinds_by_which_a_host_is_known_are_asked_for_first() -> None:
    lines = list(parse(line("bastion", RSA) + line("other") + line("bastion", OTHER, marker="@revoked"), "file"))
    assert kinds_of(lines, "bastion") == ("ssh-rsa",)
    offered = ("ssh-ed25519", "ecdsa-sha2-nistp256", "rsa-sha2-512", "rsa-sha2-256")
    assert preferred(offered, ("ssh-rsa",)) == ("rsa-sha2-512", "rsa-sha2-256", "ssh-ed25519", "ecdsa-sha2-nistp256")
    assert preferred(offered, ()) == offered


@pytest.mark.parametrize("salt", [None, b"s" * 20])
def test_openssh_finds_what_is_written(tmp_path: Path, salt: bytes | None) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    kind, text, _ = (tmp_path / "key.pub").read_text().split(maxsplit=2)
    key = HostKey(kind, base64.b64decode(text))
    file = tmp_path / "known_hosts"
    file.write_text(new_line("[bastion]:2222", key, salt))
    assert ("bastion" in file.read_text()) is (salt is None)
    shown = subprocess.check_output(["ssh-keygen", "-l", "-F", "[bastion]:2222", "-f", file], text=True)
    assert key.fingerprint in shown
    assert found(file.read_text(), "[bastion]:2222", key).verdict == "known"


def test_what_openssh_hashed_is_found(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    kind, text, _ = (tmp_path / "key.pub").read_text().split(maxsplit=2)
    file = tmp_path / "known_hosts"
    file.write_text(f"bastion,192.0.2.1 {kind} {text}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", file], check=True, capture_output=True)
    key = HostKey(kind, base64.b64decode(text))
    assert file.read_text().startswith("|1|")
    for name, verdict in (("bastion", "known"), ("192.0.2.1", "known"), ("other", "unknown")):
        assert found(file.read_text(), name, key).verdict == verdict
