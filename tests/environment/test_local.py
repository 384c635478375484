"""Which variables of a container a program on the laptop gets."""

import pytest

from meshdev.environment.local import overlaid


def test_the_workload_wins_but_for_what_is_the_machines() -> None:
    own = {"PATH": "/bin", "HOME": "/home/jane", "DB_HOST": "localhost", "LANG": "de"}
    workload = {
        "PATH": "/app/bin",
        "HOSTNAME": "web-1",
        "DB_HOST": "db",
        "LD_PRELOAD": "/x.so",
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "LANG": "C",
    }
    made, kept = overlaid(own, workload)
    assert made == {
        "PATH": "/bin",
        "HOME": "/home/jane",
        "DB_HOST": "db",
        "LANG": "C",
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    }
    assert kept == ("HOSTNAME", "LD_PRELOAD", "PATH")


@pytest.mark.parametrize(
    "name", ["BASH_ENV", "LD_LIBRARY_PATH", "BASH_FUNC_ls%%", "KUBECONFIG", "XDG_RUNTIME_DIR", "PYTHONPATH"]
)
def test_what_would_decide_what_runs_here_is_not_taken(name: str) -> None:
    assert overlaid({}, {name: "x"}) == ({}, (name,))


@pytest.mark.parametrize(
    "name", ["ENV", "NODE_ENV", "NODE_OPTIONS", "JAVA_TOOL_OPTIONS", "LANG", "TZ", "PORT", "HTTP_PROXY"]
)
def test_what_configures_a_program_is_taken(name: str) -> None:
    assert overlaid({name: "mine"}, {name: "theirs"}) == ({name: "theirs"}, ())
