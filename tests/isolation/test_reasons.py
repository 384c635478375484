"""Each cause for which there is no network of one's own has its sentence and its way out."""

import errno

import pytest

from meshdev.isolation.reasons import APPARMOR, STEPS, USERNS_CLONE, Facts, IsolationStep, explain


@pytest.mark.parametrize(
    ("step", "number", "facts", "reason", "hint"),
    [
        ("namespaces", errno.ENOSPC, Facts({"user.max_net_namespaces": 0}), "user.max_net_namespaces is 0", "sysctl"),
        ("namespaces", errno.ENOSPC, Facts({"user.max_user_namespaces": 9}), "as many as", "end other programs"),
        ("namespaces", errno.EPERM, Facts({USERNS_CLONE: 0}), f"{USERNS_CLONE} is 0", f"{USERNS_CLONE}=1"),
        ("namespaces", errno.EPERM, Facts({USERNS_CLONE: 1}, seccomp=True), "seccomp", "security-opt"),
        ("namespaces", errno.EPERM, Facts({}), "a chroot, or a security module", "policy"),
        ("namespaces", errno.EINVAL, Facts({}), "built without", "CONFIG_USER_NS"),
        ("ids", errno.EPERM, Facts({APPARMOR: 1}), "AppArmor", f"{APPARMOR}=0"),
        ("mounts", errno.EACCES, Facts({APPARMOR: 1}), "AppArmor", "userns"),
        ("mounts", errno.EPERM, Facts({APPARMOR: 0}, seccomp=True), "seccomp", "security-opt"),
        ("resolv.conf", errno.EIO, Facts({}), "no resolv.conf of its own can be mounted: Input/output error", "dmesg"),
        ("device", errno.ENOENT, Facts({}), "there is no /dev/net/tun", "modprobe tun"),
        ("device", errno.EACCES, Facts({}, seccomp=True), "may not be opened", "0666"),
        ("device", errno.ENOTTY, Facts({}), "/dev/net/tun cannot be used: Inappropriate ioctl", "helper"),
    ],
)
def test_a_cause_and_its_way_out(step: IsolationStep, number: int, facts: Facts, reason: str, hint: str) -> None:
    found = explain(step, number, facts)
    assert reason in found.reason
    assert hint in found.hint


@pytest.mark.parametrize("step", STEPS)
def test_every_refusal_is_a_sentence_without_an_end(step: IsolationStep) -> None:
    for number in (0, *errno.errorcode):
        found = explain(step, number, Facts({}))
        assert found.reason
        assert not found.reason.endswith(".")
        assert found.hint
