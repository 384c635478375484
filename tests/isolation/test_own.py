"""A network of one's own: what a program finds in it, what it cannot do, and what is left."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.isolation.places import AS_USER, CONTENT, GROUP, USER, Place, joined, place, python, run
from tests.netns.test_capabilities import sets

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_a_program_has_that_network_and_resolv_conf_and_its_own_user_and_folder(
    there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/usr/share")
    assert there.output("cat", "/etc/resolv.conf") == CONTENT
    assert there.output("sh", "-c", "pwd; id -u; id -g").split() == ["/usr/share", str(USER), str(GROUP)]
    devices = there.output("ip", "-o", "link").splitlines()
    assert len(devices) == 1
    assert "LOOPBACK,UP" in devices[0]
    assert there.output("cat", "/etc/passwd") == Path("/etc/passwd").read_text()


def test_exit_codes_and_missing_programs_are_as_everywhere(there: Place) -> None:
    assert there.outcome("sh", "-c", "exit 7").returncode == 7
    assert "FileNotFoundError" in there.outcome("/no/such/program").stderr


#: A signal comes in the child before it is the program.
_SIGNALLED_EARLY: Final = """
import os, signal, sys
from meshdev.isolation import joining
enter = joining.Joining.enter
def slow(self):
    enter(self)
    os.kill(os.getpid(), signal.SIGINT)
joining.Joining.enter = slow
signal.signal(signal.SIGINT, lambda *_: None)
print(joining.start_inside(int(sys.argv[1]), ["true"]).wait())
assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
"""


def test_ctrl_c_between_fork_and_exec_is_the_programs(there: Place) -> None:
    assert run([*there.prefix, *python(_SIGNALLED_EARLY, str(there.pid))]).stdout == f"-{int(signal.SIGINT)}\n"


def test_a_program_has_no_capability_over_it(there: Place) -> None:
    found = sets(there.output("cat", "/proc/self/status"))
    assert (found["CapEff"], found["CapPrm"], found["CapInh"], found["CapAmb"]) == (0, 0, 0, 0)
    assert there.outcome("ip", "route", "add", "10.0.0.0/8", "dev", "lo").returncode != 0
    assert there.outcome("umount", "/etc/resolv.conf").returncode != 0


def test_nor_has_it_in_namespaces_that_it_makes(there: Place) -> None:
    """There it is root, but not of the network and the mounts around them."""
    assert there.output("unshare", "-Ur", "id", "-u") == "0\n"
    for attempt in ("ip route add 10.0.0.0/8 dev lo", "umount /etc/resolv.conf", f"nsenter -t {there.pid} -U -n true"):
        assert there.outcome("unshare", "-Urm", *attempt.split()).returncode != 0, attempt


@needs_root
@pytest.mark.netns
def test_nor_has_roots_own_program(folder: Path) -> None:
    with place(folder / "root", prefix=()) as made:
        assert made.output("id", "-u") == "0\n"
        for attempt in ("ip route add 10.0.0.0/8 dev lo", "umount /etc/resolv.conf", f"nsenter -t {made.pid} -n true"):
            assert made.outcome(*attempt.split()).returncode != 0, attempt


def _networks() -> set[str]:
    """The network namespaces that processes of this machine are in."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(str(link.readlink()))
        except OSError:  # exited meanwhile, or somebody else's
            continue
    return found


def test_it_ends_with_the_last_process_in_it(folder: Path) -> None:
    """Killed or not: the namespaces are tied to nothing else."""
    with place(folder / "killed") as made:
        network = str(Path(f"/proc/{made.pid}/ns/net").readlink())
        command = [*AS_USER, *joined(made.pid, "sh", "-c", "echo there; cat; cat /etc/resolv.conf")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdout is not None
            assert program.stdout.readline() == "there\n"
            os.kill(made.pid, signal.SIGKILL)
            output, _ = program.communicate(timeout=30)
            assert output == CONTENT  # what runs in it keeps it
    assert network not in _networks()


def test_a_network_that_is_gone_or_somebody_elses_is_an_error(folder: Path) -> None:
    with place(folder / "gone") as made:
        gone = made.pid
    for pid, reason in ((gone, f"the network of process {gone} is gone: No such process"), (1, "cannot be entered")):
        ended = run([*AS_USER, *joined(pid, "true")], check=False)
        assert f"IsolationError: {reason}" in ended.stderr or reason in ended.stderr.splitlines()[-1]
