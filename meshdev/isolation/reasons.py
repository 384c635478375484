"""Why this machine refuses a network of one's own, and what to do: pure, from the step that failed and what was found.

=================================  ==================================================================================
user.max_…_namespaces = 0          ENOSPC from unshare (namespaces(7))
kernel.unprivileged_userns_clone   EPERM from unshare (Debian's and Arch's patch)
kernel.apparmor_restrict_…_userns  unshare succeeds, and then there are no capabilities (Ubuntu from 23.10 on)
seccomp of a container's runtime   EPERM from unshare (Docker's and containerd's default profiles)
=================================  ==================================================================================
"""

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

IsolationStep = Literal["namespaces", "ids", "mounts", "resolv.conf", "loopback", "device"]
STEPS: Final[tuple[IsolationStep, ...]] = get_args(IsolationStep)

#: What fails, in a sentence.
_FAILED: Final[Mapping[IsolationStep, str]] = {
    "namespaces": "user, network and mount namespaces cannot be made",
    "ids": "the new user namespace gets no ids",
    "mounts": "nothing can be mounted in the new mount namespace",
    "resolv.conf": "no resolv.conf of its own can be mounted",
    "loopback": "the loopback device of the new network cannot be set up",
    "device": "/dev/net/tun cannot be used",
}
_OTHERWISE: Final = "`meshdev connect` and `meshdev run --via helper` use the machine's network instead, by sudo"

#: Each allows so many namespaces (namespaces(7)).
LIMITS: Final = ("user.max_user_namespaces", "user.max_net_namespaces", "user.max_mnt_namespaces")
USERNS_CLONE: Final = "kernel.unprivileged_userns_clone"
APPARMOR: Final = "kernel.apparmor_restrict_unprivileged_userns"


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of this machine when a step fails."""

    sysctls: Mapping[str, int]
    """Those of :data:`LIMITS`, :data:`USERNS_CLONE` and :data:`APPARMOR` that this kernel has."""
    seccomp: bool = False
    """A seccomp filter applies to this process."""


@dataclass(frozen=True, slots=True)
class Forbidden:
    """It does not work here."""

    reason: str
    """One sentence: what fails, and the cause."""
    hint: str
    """The way out."""


@dataclass(frozen=True, slots=True)
class Works:
    """A network of one's own can be made here."""


def explain(step: IsolationStep, number: int, facts: Facts) -> Forbidden:
    """Why *step* failed with that errno."""
    if step == "device":
        return _device(number)
    cause, hint = _cause(step, number, facts)
    return Forbidden(f"{_FAILED[step]}: {cause}", f"{hint}; {_OTHERWISE}")


def _cause(step: IsolationStep, number: int, facts: Facts) -> tuple[str, str]:
    if step == "namespaces" and number in {errno.ENOSPC, errno.EUSERS}:
        return _used_up(facts)
    if number in {errno.EPERM, errno.EACCES}:
        return _denied(step, facts)
    if step == "namespaces" and number == errno.EINVAL:
        return "this kernel is built without them", "use a kernel with CONFIG_USER_NS and CONFIG_NET_NS"
    return os.strerror(number), "the kernel's log (dmesg) may say more"


def _denied(step: IsolationStep, facts: Facts) -> tuple[str, str]:
    if step == "namespaces" and facts.sysctls.get(USERNS_CLONE) == 0:
        return f"{USERNS_CLONE} is 0", f"`sudo sysctl {USERNS_CLONE}=1` allows them"
    if facts.sysctls.get(APPARMOR, 0) > 0:
        return (
            f"AppArmor restricts unprivileged user namespaces ({APPARMOR} is {facts.sysctls[APPARMOR]})",
            f"`sudo sysctl {APPARMOR}=0` allows them, or an AppArmor profile with `userns,` for this Python",
        )
    if facts.seccomp:
        hint = "run the container with a profile that allows unshare, setns and mount (`--security-opt seccomp=…`)"
        return "a seccomp filter forbids it, as container runtimes set one", hint
    return "not permitted (a chroot, or a security module)", "leave the chroot, or allow it in the module's policy"


def _used_up(facts: Facts) -> tuple[str, str]:
    for name in LIMITS:
        if facts.sysctls.get(name) == 0:
            return f"{name} is 0", f"`sudo sysctl {name}=10000` allows them"
    return "this user has as many as user.max_*_namespaces allow, or too many are nested", "end other programs' first"


def _device(number: int) -> Forbidden:
    if number in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
        return Forbidden(
            "there is no /dev/net/tun",
            "`sudo modprobe tun`; in a container, pass the device (`docker run --device /dev/net/tun`)",
        )
    if number in {errno.EPERM, errno.EACCES}:
        return Forbidden(
            "/dev/net/tun may not be opened by this user",
            f"`sudo chmod 0666 /dev/net/tun`, the mode that distributions give it; {_OTHERWISE}",
        )
    return Forbidden(f"{_FAILED['device']}: {os.strerror(number)}", _OTHERWISE)
