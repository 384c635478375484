"""Completion with the names of a real cluster, typed in real shells; and meshdev as a plugin of kubectl."""

import pytest

from tests.e2e.conftest import Laptop, until
from tests.e2e.terminal import on_terminal

pytestmark = pytest.mark.cluster

#: How each shell is started without anybody's settings, and told of meshdev.
SHELLS = {
    "bash": (("bash", "--norc", "-i"), "source <(meshdev completion bash)"),
    "zsh": (("zsh", "-f", "-i"), "autoload -Uz compinit; compinit -D; source <(meshdev completion zsh)"),
    "fish": (("fish", "--no-config"), "meshdev completion fish | source"),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_names_of_the_cluster_at_a_tab(dev: Laptop, shell: str) -> None:
    program, setup = SHELLS[shell]
    with on_terminal(dev, *program) as terminal:
        terminal.write(f"{setup}; echo {shell} is re''ady\n")
        until("the shell", lambda: f"{shell} is ready" in terminal.seen)
        terminal.write("meshdev mesh deployment/tcp\t")
        until("a Deployment", lambda: "-first" in terminal.seen.rpartition("deployment/tcp")[2])
        terminal.write("--port 7000:7\t")
        until("its port", lambda: "7000:7000" in terminal.seen)
        terminal.write("\x15exit\n")  # Ctrl-C ends no shell
        until("its end", lambda: terminal.ended)


def test_a_plugin_of_kubectl(dev: Laptop) -> None:
    assert "/kubectl-meshdev" in dev.run("kubectl", "plugin", "list").stdout
    assert dev.ok("kubectl", "meshdev", "version") == dev.meshdev("version")
    assert "Usage: kubectl meshdev mesh " in dev.ok("kubectl", "meshdev", "mesh", "--help")
    assert dev.ok("kubectl", "__complete", "meshdev", "mesh", "svc/tcp").splitlines() == ["svc/tcp-first", ":4"]
