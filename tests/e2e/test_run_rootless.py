"""``meshdev run`` as a user without root: a network for its program alone, and a machine that is as it was."""

import contextlib
import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from meshdev.cli.run import FAILED
from tests.e2e import workloads
from tests.e2e.conftest import Laptop, until
from tests.e2e.intercepting import answers, ask, listed
from tests.e2e.workloads import http

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

RUN: Final = "rootless"
RIGHT: Final = ("python", "-m", "tests.cluster.sample", "--name=new-b", "--next=http://c/", "--port=8080")
FORGETS_C: Final = ("python", "-m", "tests.cluster.sample", "--name=new-b", "--port=8080")
#: Answers what it is told at port 8080, and asks the cluster for itself until it is heard.
_ALONE: Final = """
import sys, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
mine = sys.argv[1]
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(mine.encode())
    def log_message(self, *_): pass
threading.Thread(target=HTTPServer(("127.0.0.1", 8080), Handler).serve_forever, daemon=True).start()
answer = lambda n: urllib.request.urlopen(urllib.request.Request("http://c/", headers={"n": n})).read().decode()
deadline = time.monotonic() + 20
while answer(mine) != mine:
    assert time.monotonic() < deadline, "the program is not asked"
    time.sleep(0.05)
print(answer(mine), answer("nobody"))
"""
#: What a program sees of its network.
_LOOK: Final = """
ip -o route; grep -v '^#' /etc/resolv.conf; grep Cap /proc/self/status; id -u
curl -sS --max-time 5 http://a/; echo; curl -sS --max-time 5 http://www.example.test/
"""


#: The command behind "--", where only the programs before it are found.
_WITH_TOOLS: Final = """
tools=$(mktemp -d ~/tools.XXXXXX); trap 'rm -r $tools' EXIT
ln -s $(command -v "$0") $tools; while test "$1" != --; do ln -s $(command -v "$1") $tools; shift; done; shift
command=$(command -v "$1"); shift; PATH=$tools $command "$@"
"""


CONFIG: Final = "/home/dev/rootless.kubeconfig"
#: The user's kubeconfig with another namespace.
_CONFIGURE: Final = """
import os, sys, yaml
config = yaml.safe_load(open(os.environ["KUBECONFIG"]))
config["contexts"][0]["context"]["namespace"] = sys.argv[2]
with open(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
    yaml.safe_dump(config, file)
"""


@pytest.fixture(scope="module")
def namespace(cluster: None) -> Iterator[str]:  # noqa: ARG001 -- for its effect
    """a → b → c, apart from the testbed's own."""
    apps = [manifest for name in "abc" for manifest in workloads.of(workloads.sample(name), RUN)]
    with workloads.namespace(RUN, *apps, *workloads.of(http("d"), RUN)) as name:
        yield name


@pytest.fixture
def dev(namespace: str) -> Iterator[Laptop]:
    """A user whose machine is as before when a test is over, and who has never used sudo."""
    root, dev = Laptop(1), Laptop(1, "dev")
    dev.clean()
    dev.ok("python", "-c", _CONFIGURE, CONFIG, namespace)
    dev.ok("sh", "-c", 'rm -rf "$XDG_RUNTIME_DIR"/meshdev/runs')  # logs of what failed are kept for a day
    before, used = root.snapshot(), _sudo_used(root)
    yield dev
    assert root.snapshot() == before
    assert _sudo_used(root) == used
    assert _processes() == {}
    assert listed(dev, "-n", namespace) == []
    assert dev.run("sh", "-c", 'ls -A "$XDG_RUNTIME_DIR"/meshdev/runs').stdout == ""


def _sudo_used(root: Laptop) -> str:
    return root.run("sh", "-c", "ls -l /run/sudo/ts /var/lib/sudo/ts 2>&1").stdout


def _processes() -> dict[int, str]:
    """Sessions and helpers of runs, wherever they are."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if re.search(r"-m meshdev\.\w+ .*meshdev/runs/", line):
                found[int(folder.name)] = line
    return found


def run(dev: Laptop, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return dev.run("meshdev", "run", "--kubeconfig", CONFIG, *words, timeout=timeout)


@contextmanager
def running(dev: Laptop, *words: str) -> Iterator["subprocess.Popen[str]"]:
    """A run whose program says "there" and stays; it is killed at the end if it still runs."""
    with dev.start(
        "meshdev", "run", "--kubeconfig", CONFIG, *words, "--", "sh", "-c", "echo there; exec sleep 300"
    ) as process:
        assert process.stdout is not None
        try:
            for line in iter(process.stdout.readline, ""):
                if line == "there\n":
                    break
            else:
                pytest.fail("the program was not started")
            yield process
        finally:
            process.kill()


def test_a_smoke_test_with_an_intercept(dev: Laptop) -> None:
    flags = ("--mesh", "deployment/b", "--baggage", f"run={RUN}", "--port", "8080:http")
    test = ("--", "python", "examples/smoke_test.py", RUN, "--")
    passed = run(dev, *flags, *test, *RIGHT)
    assert (passed.returncode, passed.stdout.endswith("passed\n")) == (0, True), passed
    assert passed.stderr.startswith("meshdev: via rootless: "), passed.stderr
    failed = run(dev, *flags, *test, *FORGETS_C)
    assert (failed.returncode, "is answered 'service-a>new-b', not" in failed.stderr) == (1, True), failed


@pytest.mark.parametrize("others", ["pasta", "slirp4netns", None])
def test_what_the_program_has(dev: Laptop, others: str | None) -> None:
    names = ["sh", "ip", "grep", "id", "curl", *([others] if others else [])]
    done = dev.run(
        "sh", "-c", _WITH_TOOLS, *names, "--", "meshdev", "run", "--kubeconfig", CONFIG, "--", "sh", "-c", _LOOK
    )
    assert "10.96.0.0/16 dev meshdev0" in done.stdout
    assert "nameserver 127.0.0.153\n" in done.stdout
    assert set(re.findall(r"Cap(?:Inh|Prm|Eff|Amb):\s*(\w+)", done.stdout)) == {"0" * 16}
    assert "service-a>service-b>service-c" in done.stdout
    assert ("hello from the rest of the world" in done.stdout) == (others is not None), done
    assert (f"other networks by {others}" if others else "other networks are out of its reach") in done.stderr


def test_the_machine_is_as_before_while_it_runs(dev: Laptop) -> None:
    before = Laptop(1).snapshot()
    with running(dev, "--mesh", "deployment/b", "-H", "a=1", "--port", "8080") as process:
        assert Laptop(1).snapshot() == before
        owners = {Path(f"/proc/{pid}").stat().st_uid for pid in _processes()}
        assert owners == {int(dev.ok("id", "-u"))}
        assert dev.status()["state"] == "disconnected"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM


def test_killed_nothing_is_left(dev: Laptop, namespace: str) -> None:
    """The session sees that its caller is gone, and leaves the workload."""
    with running(dev, "--proxy", "deployment/d", "--port", "8080") as process:
        answers(namespace, "http://d/", {}, ["d"])  # nothing listens here: the original answers
        program = [os.pidfd_open(int(pid)) for pid in _children(process.pid)]
        process.kill()
        for each in program:
            assert select.select([each], [], [], 20)[0], "a program of the run goes on"
            os.close(each)
    until("session and helper have ended", lambda: not _processes())
    assert ask(namespace, ("http://d/", {})) == [(200, "d")]
    dev.ok("sh", "-c", 'rm -r "$XDG_RUNTIME_DIR"/meshdev/runs/*')  # the logs of what was killed are kept for a day


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_ten_at_once_do_not_see_each_other(dev: Laptop) -> None:
    """Each has port 8080 and a connection for itself."""

    def one(number: int) -> subprocess.CompletedProcess[str]:
        flags = ("--mesh", "deployment/c", "-H", f"n={number}", "--port", "8080")
        return run(dev, *flags, "--", "python", "-c", _ALONE, str(number), timeout=100)

    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(one, range(10)))
    assert [(each.returncode, each.stdout) for each in done] == [(0, f"{number} service-c\n") for number in range(10)]


def test_a_proxy_for_a_program_of_this_machines_network(dev: Laptop) -> None:
    """The program listens at this machine's port 8080, and asks by the proxy that its environment names."""
    flags = ("--via", "proxy", "--mesh", "deployment/c", "-H", "n=1", "--port", "8080")
    done = run(dev, *flags, "--", "python", "-c", _ALONE, "1")
    assert (done.returncode, done.stdout) == (0, "1 service-c\n"), done
    assert done.stderr.startswith("meshdev: via proxy: "), done.stderr


def test_a_connection_of_this_machine_is_used(dev: Laptop) -> None:
    with dev.connected():
        done = run(dev, "--", "ip", "-o", "route", "get", "10.96.0.1")
        assert done.stderr.startswith("meshdev: via helper: this machine is connected to testbed already")
        assert "dev meshdev" in done.stdout
        apart = run(dev, "--via", "rootless", "--", "curl", "-sS", "http://a/")
        assert apart.stdout == "service-a>service-b>service-c"


_BOX: Final = """
mount -t tmpfs tmpfs /dev/net; echo 0 > /proc/sys/user/max_user_namespaces
exec python -m meshdev.capabilities "$@"
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("run", "--", "true"), FAILED),
        (("run", "--via", "rootless", "--", "true"), FAILED),
        (("connect", "--socks"), None),
    ],
)
def test_where_nothing_is_allowed_a_sentence_says_why(dev: Laptop, words: tuple[str, ...], code: int | None) -> None:
    """As in a container: no device, no namespaces, no capability."""
    done = dev.run("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _BOX, "sh", "meshdev", *words)
    assert done.returncode == code if code else 50 <= done.returncode < 60, done
    assert "user.max_user_namespaces is 0" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
