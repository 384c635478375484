"""What is left of root's power in the helper, in its keeper, and in what the helper starts."""

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import pytun

import meshdev
from meshdev.capabilities import CAP_DAC_OVERRIDE
from meshdev.helper.privileges import KEPT
from tests.netns.helpers import helper
from tests.netns.laptop import Laptop

_KEPT = sum(1 << capability for capability in KEPT)
_LEFT = {
    "CapInh": "0000000000000000",
    "CapPrm": f"{_KEPT:016x}",
    "CapEff": f"{_KEPT:016x}",
    "CapBnd": f"{_KEPT:016x}",
    "CapAmb": "0000000000000000",
    "NoNewPrivs": "1",
}


def _status(pid: int) -> str:
    return Path(f"/proc/{pid}/status").read_text()


def _power(status: str) -> dict[str, str]:
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    return {name: fields[name] for name in _LEFT}


async def test_two_capabilities_and_no_way_to_more(laptop: Laptop) -> None:
    assert f"{_KEPT:x}" == "1400"
    async with helper(laptop, uid=1234) as connection:
        await connection.set_up()
        for pid in (connection.greeting.pid, connection.keeper):
            assert _power(_status(pid)) == _LEFT


@pytest.fixture
def private_python(tmp_path: Path) -> str:
    """An interpreter with meshdev in the home of uid 1234, which nobody else may enter."""
    home = tmp_path / "home"
    venv.create(home / "venv")
    (site,) = (home / "venv" / "lib").glob("python*/site-packages")
    shutil.copytree(Path(meshdev.__file__).parent, site / "meshdev")
    shutil.copy(pytun.__file__, site)
    subprocess.run(["chown", "-R", "1234", str(home)], check=True)
    home.chmod(0o700)
    for folder in (tmp_path, tmp_path.parent):  # the others' way there
        folder.chmod(0o755)
    return str(home / "venv" / "bin" / "python")


@pytest.mark.parametrize("end", ["close", "kill"])
async def test_code_in_a_private_home(laptop: Laptop, private_python: str, end: str) -> None:
    """What is loaded only when it is needed would be out of reach by then."""
    before = laptop.snapshot()
    async with helper(laptop, uid=1234, python=private_python) as connection:
        await connection.set_up()
        assert _power(_status(connection.greeting.pid)) == _LEFT
        if end == "close":
            await connection.client.close()
        else:
            connection.kill_helper()
        await connection.helper_ended()
        assert laptop.snapshot() == before


def test_code_that_others_can_write_is_not_run(laptop: Laptop, private_python: str) -> None:
    folder = Path(private_python).parents[1]
    folder.chmod(0o777)
    command = laptop.command(private_python, "-I", "-m", "meshdev.helper", "--restore", "1234")
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 50
    assert f"{folder}: everyone can write to it" in json.loads(done.stderr)["error"]["message"]
    folder.chmod(0o755)
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    assert done.returncode == 0
    command[-1] = "0"
    environment = {name: value for name, value in os.environ.items() if name != "SUDO_UID"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, env=environment)
    assert "it belongs to uid 1234" in json.loads(done.stderr)["error"]["message"]
    environment["SUDO_UID"] = "1234"
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, env=environment)
    assert done.returncode == 0


def test_a_program_of_the_helper_has_no_more(laptop: Laptop) -> None:
    """busctl, for one. Root's uid alone would give it everything again."""
    code = (
        "from meshdev.helper.privileges import drop; drop(); import os; os.execvp('cat', ['cat', '/proc/self/status'])"
    )
    assert _power(laptop.run(sys.executable, "-I", "-c", code)) == _LEFT


def test_files_of_others_are_closed(laptop: Laptop, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("secret")
    theirs.chmod(0o400)
    laptop.run("chown", "1234", str(theirs))
    code = "from meshdev.helper.privileges import drop; drop(); open(__import__('sys').argv[1])"
    said = laptop.run("sh", "-c", f'{sys.executable} -I -c "{code}" {theirs} 2>&1 || true')
    assert "Permission denied" in said


def test_the_stub_file_of_systemd_resolved_is_open(laptop: Laptop) -> None:
    """It belongs to another account, and its search domains are put in order (meshdev.helper.dns_resolved)."""
    stub = "/run/systemd/resolve/stub-resolv.conf"
    laptop.run(
        "sh", "-c", f"mkdir -p {Path(stub).parent} && echo search a > {stub} && chown -R 1234 {Path(stub).parent}"
    )
    code = f"from meshdev.helper.privileges import drop; drop(); open('{stub}', 'a').write('b')"
    laptop.run(sys.executable, "-I", "-c", code)
    assert laptop.run("cat", stub) == "search a\nb"
    code = "from meshdev.helper.privileges import drop; drop(); print(end=open('/proc/self/status').read())"
    assert _power(laptop.run(sys.executable, "-I", "-c", code))["CapEff"] == f"{_KEPT | 1 << CAP_DAC_OVERRIDE:016x}"
