"""``connect --socks`` where no network of one's own can be made: a sentence and a way out, and nothing is started."""

import json

from meshdev.errors import IsolationError
from tests.isolation.places import AS_USER, FILTER, WITHOUT_DEVICE, WITHOUT_USER_NAMESPACES, python, run

_CONNECT = """
import os, tempfile
from meshdev.cli.commands import run
with tempfile.TemporaryDirectory() as folder:
    os.environ |= {"HOME": folder, "XDG_RUNTIME_DIR": folder, "KUBECONFIG": "/no/such/file"}
    code = run(["connect", "--socks", *sys.argv[1:]])
    assert os.listdir(folder) == [], "something was started"
sys.exit(code)
"""


def test_in_a_container_it_is_said_why_and_what_to_do() -> None:
    for before, code, reason in (
        (WITHOUT_USER_NAMESPACES, "", "user.max_user_namespaces is 0"),
        (WITHOUT_DEVICE, "", "there is no /dev/net/tun"),
        ((), FILTER, "a seccomp filter forbids it"),
    ):
        ended = run([*AS_USER, *before, *python(code + _CONNECT, "-o", "json")], check=False)
        assert ended.returncode == IsolationError.exit_code, ended.stderr
        error = json.loads(ended.stdout)["error"]
        assert error["code"] == "isolation"
        assert error["message"].startswith("--socks needs a network of its own: ")
        assert reason in error["message"]
        assert error["hint"]
        for_people = run([*AS_USER, *before, *python(code + _CONNECT)], check=False)
        assert (for_people.returncode, for_people.stdout) == (IsolationError.exit_code, "")
        assert reason in for_people.stderr
        assert "Traceback" not in for_people.stderr
