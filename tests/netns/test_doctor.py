"""Each check of this machine fails for real: the kernel, sudo and files are what they would be on such a machine."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.netns.laptop import GATEWAY, Laptop

CODE = """
import asyncio, json, os, sys
from ipaddress import IPv4Network
from meshdev.cli import status
from meshdev.doctor.checks import facts, leftovers, machine, network
from meshdev.doctor.runner import Fact, examine
from meshdev.isolation.probing import probe
from meshdev.kube.kubeconfig import Options
from meshdev.state import Paths

asked = json.loads(sys.argv[1])

async def ranges():
    return tuple(map(IPv4Network, asked["ranges"]))

paths = Paths.locate()
question = facts.Question(
    Options(kubeconfig="/nowhere"), "image", paths, os.getuid(), lambda: status.current(paths), ["/bin/true"],
    isolation=probe(),
)
found = facts.DoctorFacts(question)
found.ranges = Fact("none", ranges)
checks = [each for group in (machine, network, leftovers) for each in group.checks(found)]
print(json.dumps([each.as_json() for each in asyncio.run(examine(checks, lambda _: None))]))
"""
RANGES = ("10.96.0.0/16", "10.244.0.0/16")
#: Another user of the laptop, without capabilities.
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all")


class Doctor:
    """Examines a laptop."""

    def __init__(self, laptop: Laptop) -> None:
        self.laptop = laptop

    def __call__(self, *, before: str = "true", user: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
        """The findings by check, after the shell has done *before*."""
        asked = json.dumps({"ranges": RANGES})
        script = f'{before}; exec "$@"'
        home = {"HOME": "/run"} if user else {}
        setting = [f"{name}={value}" for name, value in home.items()]
        command = ["env", "-u", "XDG_RUNTIME_DIR", *setting, *user, sys.executable, "-c", CODE, asked]
        out = self.laptop.run("unshare", "--mount", "sh", "-ec", script, "sh", *command)
        return {each["check"]: each for each in json.loads(out)}


@pytest.fixture
def doctor(laptop: Laptop) -> Doctor:
    return Doctor(laptop)


def test_a_laptop_that_is_well(doctor: Doctor) -> None:
    found = doctor()
    assert found.pop("leftovers-cluster")["state"] == "skipped", "there is no cluster"
    assert {each["state"] for each in found.values()} == {"ok"}, found
    assert "redirected to meshdev by nftables" in found["dns"]["detail"]


def test_no_tun_device(doctor: Doctor) -> None:
    found = doctor(before="mount -t tmpfs tmpfs /dev")["tun"]
    assert (found["state"], found["detail"]) == ("failed", "/dev/net/tun does not exist")
    assert "sudo modprobe tun" in found["hint"]


def test_a_tun_device_without_a_driver(doctor: Doctor) -> None:
    hidden = "mount -t tmpfs tmpfs /dev/net && mknod /dev/net/tun c 10 77"
    found = doctor(before=hidden)["tun"]
    assert (found["state"], found["detail"]) == ("failed", "/dev/net/tun has no driver behind it")


def test_ranges_that_overlap(doctor: Doctor) -> None:
    doctor.laptop.run("ip", "addr", "add", "10.96.7.1/24", "dev", "cable")
    found = doctor()["address-ranges"]
    assert found["state"] == "warning"
    assert "own network 10.96.7.0/24 (cable)" in found["detail"]
    assert "--also 10.96.0.0/16" in found["hint"]


def test_no_range_for_our_own_addresses(doctor: Doctor) -> None:
    for network in ("198.18.0.0/15", "100.64.0.0/10"):
        doctor.laptop.run("ip", "route", "add", network, "via", GATEWAY)
    assert doctor()["address-ranges"]["state"] == "failed"


def test_another_vpn(doctor: Doctor) -> None:
    set_up = "ip tuntap add tun7 mode tun; ip addr add 10.9.0.2/24 dev tun7; ip link set tun7 up"
    doctor.laptop.run("sh", "-ec", set_up)
    found = doctor()["vpn"]
    assert (found["state"], found["detail"][:18]) == ("ok", "tun7 (TUN device):")
    doctor.laptop.run("ip", "route", "add", "10.244.0.0/17", "dev", "tun7")
    found = doctor()["vpn"]
    assert found["state"] == "warning"
    assert "its route 10.244.0.0/17 (tun7) takes addresses of 10.244.0.0/16" in found["detail"]


def test_another_vpns_policy_rules(doctor: Doctor) -> None:
    set_up = "ip tuntap add wg7 mode tun; ip link set wg7 up; ip rule add priority 5209 table 51820"
    doctor.laptop.run("sh", "-ec", set_up)
    found = doctor()["vpn"]
    assert found["state"] == "warning"
    assert found["detail"].startswith("wg7 (WireGuard), with policy rules of its own (tables 51820)")


def test_another_programs_translation(doctor: Doctor) -> None:
    rules = "iptables-nft -t nat -A OUTPUT -d 10.96.0.1/32 -p tcp --dport 443 -j DNAT --to-destination 192.0.2.1:6443"
    doctor.laptop.run("sh", "-ec", rules)
    found = doctor()["dnat"]
    assert found["state"] == "warning"
    assert "packets to 10.96.0.1 get another destination" in found["detail"]
    assert doctor(user=NOBODY)["dnat"]["state"] == "skipped"


def test_a_firewall_that_drops(doctor: Doctor) -> None:
    chain = "add table inet filter; add chain inet filter input { type filter hook input priority 0; policy drop; }"
    doctor.laptop.run("nft", chain)
    found = doctor()["firewall"]
    assert found["state"] == "warning"
    assert found["hint"] == "sudo nft insert rule inet filter input iifname meshdev0 accept"
    assert "root alone" in doctor(user=NOBODY)["firewall"]["detail"]


def test_ufw(doctor: Doctor) -> None:
    layers = "lowerdir=/etc,upperdir=/run/upper,workdir=/run/work"
    own = f"mkdir /run/upper /run/work; mount -t overlay overlay -o {layers} /etc"
    configured = "mkdir -p /etc/ufw; echo ENABLED=yes > /etc/ufw/ufw.conf"
    found = doctor(before=f"{own}; {configured}", user=NOBODY)["firewall"]
    assert (found["state"], found["hint"]) == ("warning", "sudo ufw allow in on meshdev0")


def test_no_nftables(doctor: Doctor) -> None:
    doctor.laptop.hide_nftables()
    found = doctor()
    assert found["firewall"]["state"] == "failed"
    assert "apt install nftables" in found["firewall"]["hint"]
    assert "nft=no" in found["dns"]["detail"]


def test_a_resolv_conf_that_nothing_can_change(doctor: Doctor) -> None:
    doctor.laptop.hide_nftables()
    found = doctor(before="mount -o bind,remount,ro /etc/resolv.conf")["dns"]
    assert found["state"] == "failed"
    assert "cannot be written" in found["detail"]


def test_a_resolv_conf_of_a_connection_that_crashed(doctor: Doctor) -> None:
    code = "from meshdev.host.dns import render_resolv_conf as r; print(r(b'nameserver 192.0.2.1', None, ()).decode())"
    doctor.laptop.run("sh", "-ec", f'{sys.executable} -c "{code}" > /etc/resolv.conf')
    found = doctor()["dns"]
    assert (found["state"], found["hint"]) == ("failed", "meshdev restore")


def test_what_a_killed_helper_left(doctor: Doctor) -> None:
    killed = """
import os, socket, subprocess
from meshdev.helper.journal import JournalFile
from meshdev.host.journal import DeleteDevice
subprocess.run(["ip", "tuntap", "add", "meshdev0", "mode", "tun"], check=True)
JournalFile(0).add(DeleteDevice("meshdev0", socket.if_nametoindex("meshdev0")))
os.kill(os.getpid(), 9)
"""
    doctor.laptop.run("sh", "-c", f"{sys.executable} -c '{killed}' || test $? = 137")
    found = doctor()
    assert (found["leftovers"]["state"], found["leftovers"]["hint"]) == ("warning", "meshdev restore")
    assert "network device meshdev0" in found["leftovers"]["detail"]
    assert found["vpn"]["detail"] == "none", "it is ours"


def test_a_user_without_sudo(doctor: Doctor) -> None:
    found = doctor(user=NOBODY)["sudo"]
    assert found["state"] == "warning"
    found = doctor(user=(*NOBODY, "env", "PATH=/nowhere"))["sudo"]
    assert found["detail"] == "sudo is not installed, so connect gets no root"


@pytest.mark.parametrize(
    ("before", "words"),
    [
        ("mkdir -m 777 /run/meshdev /run/.local /run/.local/state; touch /run/.local/state/meshdev", "not a folder"),
        (
            "mkdir -p /run/.local/state/meshdev; chown -R 65534 /run/.local; chmod 777 /run/.local/state/meshdev",
            "write",
        ),
        ("mount -t tmpfs -o ro tmpfs /run", "nothing can be written"),
        ("mkdir -m 700 /run/.local", "nothing can be written"),
        ("mount -t tmpfs -o size=1M,mode=777 tmpfs /run", "MB left"),
    ],
    ids=["a file", "others may write", "read only", "somebody else's", "full"],
)
def test_a_state_folder_that_cannot_be_used(doctor: Doctor, before: str, words: str) -> None:
    found = doctor(before=before, user=NOBODY)["state-folder"]
    assert found["state"] == "failed"
    assert words in found["detail"]


def test_user_namespaces_are_off(doctor: Doctor) -> None:
    # A user namespace has limits of its own, so the machine's stay as they are (namespaces(7)).
    inside = (
        "unshare",
        "--user",
        "--map-root-user",
        "sh",
        "-ec",
        'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"',
    )
    found = doctor(user=(*inside, "sh"))["user-namespaces"]
    assert found["state"] == "warning"
    assert "user.max_user_namespaces is 0" in found["detail"]
    assert "sudo sysctl user.max_user_namespaces=10000" in found["hint"]


def test_an_installation_that_others_may_change(doctor: Doctor) -> None:
    package = Path(sys.modules["meshdev"].__file__ or "").parent
    copied = f"mount -t tmpfs -o mode=755 tmpfs /opt; cp -r {package} /opt; chmod 777 /opt/meshdev/kube; cd /opt"
    found = doctor(before=copied)["installation"]
    assert found["state"] == "failed"
    assert "/opt/meshdev/kube: everyone can write to it" in found["detail"]
