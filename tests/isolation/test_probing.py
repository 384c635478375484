"""The probe in places where it works, and in those that forbid it, made for real."""

import os
from collections.abc import Sequence
from typing import Final

import pytest

from tests.isolation.places import AS_USER, FILTER, WITHOUT_DEVICE, WITHOUT_USER_NAMESPACES, python, run

_PROBE: Final = """
from meshdev.isolation.probing import probe
print(probe())
"""


def probed(*before: str, code: str = _PROBE, user: Sequence[str] = AS_USER) -> str:
    """What the probe answers behind that command."""
    return run([*user, *before, *python(code)]).stdout


def _with_device(mode: int) -> Sequence[str]:
    """Before a command: a device node of that mode, whatever the machine's has. Users without root have that one."""
    if os.geteuid() != 0:
        return ()
    node = f'mount -t tmpfs none /dev/net && mknod -m {mode:o} /dev/net/tun c 10 200 && exec "$@"'
    return "unshare", "-m", "sh", "-c", node, "sh"


def test_it_works_here_for_a_user_without_rights_and_leaves_nothing() -> None:
    devices = "print(open('/proc/self/net/dev').read().count('meshdev'))"
    assert probed(code=_PROBE * 2 + devices, user=[*_with_device(0o666), *AS_USER]) == "Works()\nWorks()\n0\n"


def test_without_user_namespaces() -> None:
    answer = probed(*WITHOUT_USER_NAMESPACES)
    assert "user.max_user_namespaces is 0" in answer


def test_behind_the_filter_of_a_container() -> None:
    assert "a seccomp filter forbids it" in probed(code=FILTER + _PROBE)


def test_without_the_device() -> None:
    answer = probed(*WITHOUT_DEVICE)
    assert "there is no /dev/net/tun" in answer


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.netns
def test_where_the_device_is_for_root_only() -> None:
    answer = probed(user=[*_with_device(0o600), *AS_USER])
    assert "/dev/net/tun may not be opened by this user" in answer
