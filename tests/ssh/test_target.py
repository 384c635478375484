"""What --ssh takes."""

import pytest

from meshdev.errors import UsageError
from meshdev.ssh.target import SshTarget


@pytest.mark.parametrize(
    ("text", "target", "shown"),
    [
        ("bastion", SshTarget("bastion"), "bastion"),
        ("jane@bastion.example", SshTarget("bastion.example", "jane"), "jane@bastion.example"),
        ("jane@bastion:2222", SshTarget("bastion", "jane", 2222), "jane@bastion:2222"),
        ("jane@corp.example@bastion", SshTarget("bastion", "jane@corp.example"), "jane@corp.example@bastion"),
        ("CORP\\jane@bastion", SshTarget("bastion", "CORP\\jane"), "CORP\\jane@bastion"),
        ("192.0.2.1:22", SshTarget("192.0.2.1", None, 22), "192.0.2.1"),
        ("[2001:db8::1]:2222", SshTarget("2001:db8::1", None, 2222), "[2001:db8::1]:2222"),
        ("2001:db8::1", SshTarget("2001:db8::1"), "2001:db8::1"),
        ("ssh://jane@bastion:2222", SshTarget("bastion", "jane", 2222), "jane@bastion:2222"),
    ],
)
def test_a_target_is_user_host_and_port(text: str, target: SshTarget, shown: str) -> None:
    assert SshTarget.parse(text) == target
    assert str(target) == shown


@pytest.mark.parametrize(
    "text",
    [
        *("", "@", "jane@", "@bastion", "bastion:", "bastion:0", "bastion:65536", "bastion:ssh", "[::1", "[::1]22"),
        *("-oProxyCommand=id", "jane@-oProxyCommand=id", "-jane@bastion", "a b", "a;id", "$(id)", "`id`", "a/b"),
        *("x$IFS-oA=b@bastion", "ja\x1bne@bastion", "jane\\@bastion"),
        *("ja'ne@bastion", "ja ne@bastion", "$(id)@bastion", "bastion\n", "x" * 300, "bastion:²2"),
    ],
)
def test_what_is_no_host_and_what_a_shell_would_read_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="invalid --ssh"):
        SshTarget.parse(text)
