"""Tell the story on the testbed's laptop 1, as user *dev*: before, connect, use, status, disconnect, after.

Every command is shown as typed and run as shown; the first that fails ends the story with its exit code.
"""

import subprocess
import sys
import time
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel

CONSOLE: Final = Console(highlight=False)
_LAPTOP: Final = [sys.executable, "-m", "tests.cluster", "exec", "--laptop", "1", "--user", "dev", "--"]

_UDP: Final = (
    """python3 -c "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(5); """
    """s.sendto(b'hello over UDP', ('a', 9090)); print(s.recv(100).decode())\""""
)


class StoryError(Exception):
    """A command of the story did not do what the story says."""


def say(text: str) -> None:
    """A sentence of the story."""
    CONSOLE.print(f"\n[bold]{text}[/]")


def run(command: str, *, fails: bool = False) -> None:
    """Show *command*, run it on the laptop, let its output be seen. Raises StoryError when it ends otherwise."""
    CONSOLE.print(f"[dim]dev@laptop:~$[/] [cyan]{escape(command)}[/]", soft_wrap=True)
    code = subprocess.run([*_LAPTOP, "sh", "-c", command], check=False).returncode
    print(flush=True)
    if (code != 0) != fails:
        raise StoryError(f"`{command}` ended with {code}")


def pod_address(app: str) -> str:
    """The address of a pod, as the cluster's administrator sees it."""
    command = ["kubectl", "get", "pods", "-l", f"app={app}", "-o", "jsonpath={.items[0].status.podIP}"]
    return subprocess.run(
        [sys.executable, "-m", "tests.cluster", *command], capture_output=True, text=True, check=True
    ).stdout


def story() -> None:
    """From a laptop that knows nothing of the cluster to one that does, and back."""
    CONSOLE.print(
        Panel.fit(
            "A Kubernetes cluster runs services [bold]a[/] → [bold]b[/] → [bold]c[/].\n"
            "A developer sits at a laptop outside of it, with kubectl's rights and sudo.",
            title="meshdev",
        )
    )
    say("1. Nothing in the cluster can be reached from here.")
    run("curl --silent --show-error --max-time 2 http://a/", fails=True)
    say("2. One command connects the laptop. It asks for root only for its small helper.")
    run("meshdev connect")
    say("3. Services answer by their names: a asks b, b asks c.")
    run("curl --silent --show-error --max-time 5 http://a/")
    say("4. So do pods by their addresses, and ping is real ICMP.")
    address = pod_address("a")
    run(f"curl --silent --show-error --max-time 5 http://{address}:8080/")
    run(f"ping -c 2 {address}")
    say("5. UDP works too.")
    run(_UDP)
    say("6. Everything outside the cluster goes where it went before.")
    run("curl --silent --show-error --max-time 5 http://www.example.test/")
    say("7. What is going on?")
    run("meshdev status")
    say("8. And away again. Nothing is left on the laptop.")
    run("meshdev disconnect")
    run("ip -brief address show; ip route; sudo nft list ruleset")


def main() -> int:
    """Tell it, and how long it took."""
    since = time.monotonic()
    try:
        story()
    except StoryError as error:
        CONSOLE.print(f"[red]The story ends here: {escape(str(error))}[/]")
        return 1
    finally:
        subprocess.run([*_LAPTOP, "meshdev", "disconnect"], check=False, capture_output=True)
    CONSOLE.print(f"\nThe end, after {time.monotonic() - since:.0f} s. The cluster stays up: `make down` removes it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
