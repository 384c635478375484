"""The laptops: namespaces held open by a sleeping process, and what is mounted over the machine's files in them.

Everything is done inside the laptop's own mount namespace; not one file of the machine changes. A checkout that the
developer's account could not reach (below /root, in a 0700 folder) is made reachable there, never by chmod.
"""

import os
import pwd
import shutil
import stat
from pathlib import Path

from tests.cluster import addresses as plan
from tests.cluster import machine, network, processes, resolved
from tests.cluster.hashing import text_hash
from tests.cluster.paths import CHECKOUT, NETNS, PKI, laptop_folder
from tests.cluster.progress import wait_for
from tests.cluster.run import run
from tests.cluster.state import ProcessRecord, State

_SHELL = ("sh", "-e", "-u")


def holder_name(number: int) -> str:
    """The name of the holder's process record."""
    return f"laptop{number}"


def holder_argv(laptop: plan.Laptop) -> list[str]:
    """A process that does nothing but hold the laptop's namespaces open. Each program replaces the one before."""
    return [
        *("nsenter", f"--net={NETNS / laptop.namespace}", "--"),
        *("unshare", "--mount", "--uts", "--propagation", "private", "--"),
        *("sleep", "infinity"),
    ]


def setup_script(laptop: plan.Laptop, account: pwd.struct_passwd) -> str:
    """What makes the fresh namespaces a laptop; run once, inside."""
    folder = laptop_folder(laptop.number)
    overlay = f"lowerdir={resolved.lower_etc()},upperdir=/run/.etc/upper,workdir=/run/.etc/work"
    lines = [
        f"hostname {laptop.hostname}",
        # The machine's own tree stays reachable for root: checkouts are taken from there when they are covered here.
        f"mount --rbind / {folder}/machine",
        "mount -t tmpfs -o mode=755 run /run",
        "mkdir -m 755 /run/user /run/sudo /run/lock /run/dbus",
        "mkdir -m 700 /run/user/0",
        f"mkdir -m 700 /run/user/{account.pw_uid}",
        f"chown {account.pw_uid}:{account.pw_gid} /run/user/{account.pw_uid}",
        f"mount --bind {folder}/root /root",
        f"mount --bind {folder}/dev {account.pw_dir}",
        "mount -t sysfs sysfs /sys",  # /sys/class/net shows the namespace in which sysfs was mounted
        # A private copy of /etc on a tmpfs: nothing done on a laptop reaches the machine, and it goes with the laptop.
        "mkdir -m 700 /run/.etc",
        "mkdir -m 755 /run/.etc/upper /run/.etc/work",
        f"mount -t overlay overlay -o {overlay} /etc",
        *(f"rm -f /etc/{name}; cp {folder}/{name} /etc/{name}" for name in private_files(laptop)),
    ]
    if laptop.number in resolved.LAPTOPS:
        lines += resolved.setup_lines()
    else:
        lines.append(f"mount --bind {folder}/resolv.conf /etc/resolv.conf")  # written in place only, as in a container
    return "\n".join(lines) + "\n"


def private_files(laptop: plan.Laptop) -> dict[str, str]:
    """Name → content of the laptop's own /etc files."""
    return {
        "hosts": f"127.0.0.1\tlocalhost\n127.0.1.1\t{laptop.hostname}\n::1\tlocalhost ip6-localhost\n",
        "hostname": f"{laptop.hostname}\n",
        "resolv.conf": f"nameserver {plan.WAN_DNS}\n",
    }


def ensure(state: State, number: int) -> bool:
    """Have the laptop NUMBER held open, set up, and able to reach this checkout; True when it was made."""
    laptop = plan.laptop(number)
    account = machine.account()
    script = setup_script(laptop, account)
    fingerprint = text_hash([*holder_argv(laptop), script, *private_files(laptop).values()])
    record = state.processes.get(holder_name(number))
    fresh = record is None or record.fingerprint != fingerprint or not processes.is_alive(record)
    if fresh:
        remove(state, number)
        _make_folders(laptop, account)
        record = processes.spawn(holder_name(number), holder_argv(laptop), {}, fingerprint)
        try:
            _wait_until_unshared(record)
            inside(record, script)
        except BaseException:
            processes.end(record, 1)
            raise
        state.processes[holder_name(number)] = record
        state.save()
    assert record is not None
    if number in resolved.LAPTOPS:
        resolved.ensure(state, number, record.pid)
    grant(state, number, record)
    return fresh


def remove(state: State, number: int) -> None:
    """End the holder and everything else on the laptop; the mounts go with the last process inside."""
    resolved.remove(state, number)
    namespace = plan.laptop(number).namespace
    if network.exists(namespace):
        processes.kill_in_network(NETNS / namespace)
    processes.stop(state, holder_name(number), 1)
    for name in [name for name in state.facts if name.startswith(f"checkout:{number}:")]:
        del state.facts[name]
    state.save()
    folder = laptop_folder(number)
    if folder.exists():
        shutil.rmtree(folder)


def inside(record: ProcessRecord, script: str) -> str:
    """Run SCRIPT as root inside the laptop that RECORD holds open."""
    return run(*processes.beside(record.pid), *_SHELL, stdin=script)


def _make_folders(laptop: plan.Laptop, account: pwd.struct_passwd) -> None:
    folder = laptop_folder(laptop.number)
    for name in ("machine", "root", "dev"):
        (folder / name).mkdir(parents=True)
    folder.chmod(0o711)
    (folder / "machine").chmod(0o700)
    (folder / "root").chmod(0o711)  # a checkout may lie below it
    (folder / "dev").chmod(0o750)
    shutil.chown(folder / "dev", account.pw_uid, account.pw_gid)
    for name, content in private_files(laptop).items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o644)
    config = (PKI / f"laptop{laptop.number}.kubeconfig").read_bytes()
    for home, uid, gid in ((folder / "root", 0, 0), (folder / "dev", account.pw_uid, account.pw_gid)):
        (home / ".kube").mkdir(mode=0o700)
        path = home / ".kube" / "config"
        path.touch(mode=0o600)
        path.write_bytes(config)
        os.chown(path, uid, gid)
        os.chown(home / ".kube", uid, gid)


def _wait_until_unshared(record: ProcessRecord) -> None:
    """`sleep` is the last program of the chain: when it runs, the namespaces are there."""
    wait_for(
        "the laptop's namespaces", lambda: Path(f"/proc/{record.pid}/comm").read_text().strip() == "sleep", 5, 0.005
    )


def grant(state: State, number: int, record: ProcessRecord) -> None:
    """Make this checkout reachable for the developer inside the laptop, when it is not so by itself."""
    script = grant_script(CHECKOUT, laptop_folder(number) / "machine", [Path("/root"), Path(machine.account().pw_dir)])
    fact = f"checkout:{number}:{CHECKOUT}"
    applied = text_hash([script, str(CHECKOUT.stat().st_ino)])  # a folder made anew is another one
    if script and state.facts.get(fact) != applied:
        inside(record, script)
        state.set_fact(fact, applied)


def first_blocked(checkout: Path) -> Path | None:
    """The topmost folder on the way to (and including) CHECKOUT that others may not enter."""
    for folder in (*reversed(checkout.parents), checkout):
        if not stat.S_IMODE(folder.stat().st_mode) & stat.S_IXOTH:
            return folder
    return None


def grant_script(checkout: Path, original: Path, covered: list[Path]) -> str:
    """Shell lines that put CHECKOUT where the developer can reach it; "" when it is reachable.

    ORIGINAL is where the machine's tree is still visible; COVERED are folders that are the laptop's own (homes).
    """
    source = original / checkout.relative_to("/")
    for home in covered:
        if home in checkout.parents:
            return f"mkdir -p {checkout}\n{_rebind(source, checkout)}"
    blocked = first_blocked(checkout)
    if blocked is None:
        return ""
    cover = f"mountpoint -q {blocked} || mount -t tmpfs -o mode=755 checkout {blocked}\n"
    if blocked != checkout:
        return cover + f"mkdir -p {checkout}\n" + _rebind(source, checkout)
    # The checkout's own folder is closed: an open one takes its place, and its entries are bound one by one.
    lines = [cover]
    for entry in sorted(checkout.iterdir()):
        make = "mkdir -p" if entry.is_dir() else "touch"
        lines.append(f"{make} {entry}\n{_rebind(source / entry.name, entry)}")
    return "".join(lines)


def _rebind(source: Path, target: Path) -> str:
    return f"umount {target} 2>/dev/null || true\nmount --rbind {source} {target}\n"
