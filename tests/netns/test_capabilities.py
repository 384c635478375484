"""What a process can still do after it gave its capabilities up, and what the manager's tunnel has."""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from meshdev.capabilities import CAP_MKNOD, CAP_NET_ADMIN, CAP_SETPCAP, without
from tests.netns.cluster import Cluster

_NET_ADMIN: Final = 1 << CAP_NET_ADMIN
_GIVE_UP: Final = "from meshdev.capabilities import keep_only; import subprocess; keep_only({12});"
_SHOW: Final = "print(open('/proc/self/status').read());"
_EXEC: Final = "print(subprocess.run(['cat', '/proc/self/status'], capture_output=True, text=True).stdout)"


def sets(status: str) -> dict[str, int]:
    """The capability sets in the text of /proc/PID/status."""
    lines = (line.split() for line in status.splitlines() if line.startswith("Cap"))
    return {name.removesuffix(":"): int(value, 16) for name, value in lines}


def after(bounding: Sequence[int], script: str) -> tuple[dict[str, int], str]:
    """The sets that *script* prints, of root with this bounding set."""
    words = ",".join(f"+cap_{number}" for number in bounding)
    command = ["setpriv", f"--bounding-set=-all,{words}", "--inh-caps=-all", sys.executable, "-c", _GIVE_UP + script]
    status = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sets(status), status


def test_only_what_is_kept_stays_and_an_execve_brings_nothing_back() -> None:
    for script in (_SHOW, _EXEC):
        found, status = after((CAP_NET_ADMIN, CAP_MKNOD), script)
        assert (found["CapEff"], found["CapPrm"], found["CapInh"], found["CapAmb"]) == (_NET_ADMIN, _NET_ADMIN, 0, 0)
        assert "NoNewPrivs:\t1" in status


def test_the_bounding_set_shrinks_where_that_is_possible() -> None:
    found, _ = after((CAP_SETPCAP, CAP_NET_ADMIN, CAP_MKNOD), _SHOW)
    assert found["CapBnd"] == _NET_ADMIN
    found, _ = after((CAP_NET_ADMIN, CAP_MKNOD), _SHOW)
    assert found["CapBnd"] == _NET_ADMIN | 1 << CAP_MKNOD


def test_what_is_not_there_is_not_gained() -> None:
    found, _ = after((CAP_MKNOD,), _SHOW)
    assert found["CapPrm"] == 0


def test_a_command_of_root_starts_without_any() -> None:
    for bounding in ("-all,+net_admin", "-all,+net_admin,+setpcap,+sys_admin"):
        command = without(("cat", "/proc/self/status"))
        root = ("setpriv", f"--bounding-set={bounding}", "--inh-caps=-all", "--", *command)
        status = subprocess.run(root, check=True, capture_output=True, text=True).stdout
        found = sets(status)
        assert [found[name] for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")] == [0, 0, 0, 0]
        assert "NoNewPrivs:\t1" in status
        assert "Uid:\t0\t0\t0\t0" in status


def test_the_managers_tunnel_has_made_its_device_node_and_can_make_no_other() -> None:
    with closing(Cluster()) as cluster:
        cluster.start_manager()
        for task in Path(f"/proc/{cluster.manager_pid}/task").iterdir():
            found = sets((task / "status").read_text())
            assert (found["CapEff"], found["CapPrm"], found["CapInh"]) == (_NET_ADMIN, _NET_ADMIN, 0)
