"""resolv.conf in a network of one's own, on machines that have it in different places: namespaces of root's."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.isolation.places import AS_USER, CONTENT, place, run
from tests.isolation.test_own import needs_root

pytestmark = [needs_root, pytest.mark.netns]

#: A machine of its own: /etc and /run are copies that a test may change.
_MACHINE = """
set -e
mount -t tmpfs none /mnt
cp -a /etc /mnt/etc
mount --bind /mnt/etc /etc
mount -t tmpfs none /run
mkdir -p /run/systemd/resolve /run/nscd
touch /run/systemd/resolve/io.systemd.Resolve /run/nscd/socket
rm -f /etc/resolv.conf
{setup}
echo there
cat
"""


@contextmanager
def machine(setup: str) -> Iterator[Sequence[str]]:
    """Make one; how commands get there."""
    command = ["unshare", "-mn", "sh", "-c", _MACHINE.format(setup=setup)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as made:
        assert made.stdin is not None
        assert made.stdout is not None
        assert made.stdout.readline() == "there\n"
        yield ("nsenter", "-t", str(made.pid), "-m", "-n")
        made.stdin.close()


@pytest.mark.parametrize(
    "setup",
    [
        "echo nameserver 192.0.2.1 > /etc/resolv.conf",
        "touch /run/systemd/resolve/stub-resolv.conf; ln -s ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf",
        "ln -s ../run/systemd/resolve/not-there /etc/resolv.conf",
        "ln -s /run/not-there /etc/resolv.conf",
        "ln -s /not/there /etc/resolv.conf",
        "mkdir /run/manager; touch /run/manager/made; ln -s /run/manager/made /etc/resolv.conf",
        ": # none",
    ],
    ids=["file", "resolved", "resolved-removed", "dangling", "dangling-folder", "link", "none"],
)
def test_it_is_ours_in_there_wherever_the_machine_has_it(folder: Path, setup: str) -> None:
    with machine(setup) as outside:
        show = [*outside, "sh", "-c", "ls -lR --time-style=+%N /etc/resolv.conf /run/systemd; cat /etc/resolv.conf"]
        before = run(show, check=False).stdout
        with place(folder / "placed", AS_USER, outside) as made:
            assert made.output("cat", "/etc/resolv.conf") == CONTENT
            # What glibc's modules would ask instead is hidden.
            assert "io.systemd.Resolve" not in made.output("ls", "/run/systemd/resolve")
            assert made.output("ls", "/run/nscd") == ""
            assert run(show, check=False).stdout == before


@pytest.mark.parametrize(
    ("setup", "path"),
    [
        (": > /etc/resolv.conf", "/etc/resolv.conf"),
        ("mkdir /run/manager; ln -s /run/manager/made /etc/resolv.conf; : > /run/manager/made", "/run/manager/made"),
        (
            "ln -s /run/systemd/resolve/made /etc/resolv.conf; : > /run/systemd/resolve/made",
            "/run/systemd/resolve/made",
        ),
    ],
)
def test_it_stays_ours_when_the_machines_is_replaced(folder: Path, setup: str, path: str) -> None:
    """A file that is mounted upon would lose its mount by that (rename(2) over it in another mount namespace)."""
    with machine(setup) as outside, place(folder / "replaced", AS_USER, outside) as made:
        run([*outside, "sh", "-c", f"echo nameserver 192.0.2.2 > {path}.new && mv {path}.new {path}"])
        assert made.output("cat", "/etc/resolv.conf") == CONTENT


_EVERYTHING = "ip -o link; ip -o addr; ip route show table all; ip rule; cat /proc/self/mountinfo; ls -lR /etc /run"


def test_nothing_of_the_machine_changes(folder: Path) -> None:
    with machine("touch /etc/resolv.conf") as outside:
        show = [*outside, "sh", "-c", _EVERYTHING]
        before = run(show).stdout
        with place(folder / "unchanged", AS_USER, outside) as made:
            assert made.output("true") == ""
            assert run(show).stdout == before
        assert run(show).stdout == before
    assert sorted(path.name for path in (folder / "unchanged").iterdir()) == ["resolv.conf"]


def test_what_is_written_into_the_callers_file_is_read_in_there(folder: Path) -> None:
    with place(folder / "written") as made:
        (folder / "written" / "resolv.conf").write_text("nameserver 10.0.0.1\n")
        assert made.output("cat", "/etc/resolv.conf") == "nameserver 10.0.0.1\n"
