"""The story: a laptop that knows nothing of the cluster, then link, mesh and proxy mode, one line for all, and away."""

from collections.abc import Callable
from typing import Final

from demo.stage import Stage

_CURL: Final = "curl -sS -m 5"
_UDP: Final = (
    """python3 -c "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(5); """
    """s.sendto(b'hello over UDP', ('a', 9090)); print(s.recv(100).decode())\""""
)
_PODS: Final = "kubectl get pods -l app=b"

#: What the testbed's services answer, and what the developer's own b does.
_ORIGINAL: Final = "service-a>service-b>service-c"
_OURS: Final = "service-a>local-b>service-c"
_LOCAL: Final = "local-b"
#: The second terminal: the developer's b. It asks the cluster's c by its name.
_LOCAL_B: Final = f"python -m tests.cluster.sample --name {_LOCAL} --next http://c/ --port 8080"

_CLUSTER: Final = """\
  [dim]cluster[/]   a ──▶ b ──▶ c

  [dim]laptop[/]    you, with kubectl's rights and sudo"""
_MESH: Final = """\
  [dim]cluster[/]   a ──▶ b ─────────────▶ c      [dim]everybody's requests[/]
                  [green]╲             ▲[/]
  [dim]laptop[/]           [green]╲▶ your b ──╱[/]         [green]requests with a: 1[/]"""
_PROXY: Final = """\
  [dim]cluster[/]   a ──▶ [dim]b[/]               c
                  [green]╲             ▲[/]
  [dim]laptop[/]           [green]╲▶ your b ──╱[/]         [green]all of them[/]"""


def tell(stage: Stage, pod_address: Callable[[str], str]) -> None:
    """All of it. *pod_address* gives the address of an app's pod. Raises StoryError."""
    stage.title("A Kubernetes cluster runs services [bold]a[/], [bold]b[/] and [bold]c[/]; you work on b.", _CLUSTER)
    _link(stage, pod_address("a"))
    _mesh(stage)
    _proxy(stage)
    _away(stage)
    _one_line(stage)


def _link(stage: Stage, address: str) -> None:
    stage.chapter("1. Connect")
    stage.say("Nothing in the cluster can be reached from here.")
    stage.run(f"{_CURL} http://a/", fails=True)
    stage.say("One command connects the laptop. It asks for root only for its small helper.")
    stage.run("meshdev connect")
    stage.say("Services answer by their names: a asks b, b asks c.")
    stage.ask(f"{_CURL} http://a/", _ORIGINAL)
    stage.say("So do pods by their addresses; ping and UDP are real, too.")
    stage.ask(f"{_CURL} http://{address}:8080/", _ORIGINAL)
    stage.run(f"ping -c 1 {address}")
    stage.ask(_UDP, "hello over UDP")
    stage.say("Everything outside the cluster goes where it went before.")
    stage.run(f"{_CURL} http://www.example.test/")


def _mesh(stage: Stage) -> None:
    stage.chapter("2. Mesh: my requests come to me", _MESH)
    stage.say("These pods of b serve everybody. Remember their names, ages and restarts.")
    stage.run(_PODS)
    stage.say("In a second terminal your own b is started, from your editor if you like.")
    with stage.second_terminal(_LOCAL_B, ": ready"):
        stage.say("Requests with the header a: 1 shall come here.")
        stage.run("meshdev mesh deployment/b --header a=1 --detach")
        stage.say("With the header it is your b, in the middle of the cluster's chain. It asks c as b does.")
        stage.ask(f"{_CURL} -H 'a: 1' http://a/", _OURS, ours=_LOCAL)
        stage.say("Without it nothing has changed, for nobody.")
        stage.ask(f"{_CURL} http://a/", _ORIGINAL)
        stage.say("Everybody can see who intercepts what.")
        stage.run("meshdev list")
        stage.say("You stop your b in the middle of it.")
    stage.say("The original answers instead. No request fails.")
    stage.ask(f"{_CURL} -H 'a: 1' http://a/", _ORIGINAL)
    stage.run("meshdev leave deployment/b")
    stage.say("The same pods, as old as they are, and never restarted.")
    stage.run(_PODS)


def _proxy(stage: Stage) -> None:
    stage.chapter("3. Proxy: everything comes to me", _PROXY)
    stage.say("Your b is started again. This time no header decides.")
    with stage.second_terminal(_LOCAL_B, ": ready"):
        stage.run("meshdev proxy deployment/b --port 8080:http --detach")
        stage.ask(f"{_CURL} http://a/", _OURS, ours=_LOCAL)
        stage.say("What is going on? One command tells all of it.")
        stage.run("meshdev status")
        stage.run("meshdev leave --all")
        stage.say("And b is b again.")
        stage.ask(f"{_CURL} http://a/", _ORIGINAL)


def _away(stage: Stage) -> None:
    stage.chapter("4. Away")
    stage.say("Nothing is left on the laptop.")
    stage.run("meshdev disconnect")
    stage.run("ip -brief address show; ip route; sudo nft list ruleset")
    stage.run(f"{_CURL} http://a/", fails=True)


def _one_line(stage: Stage) -> None:
    stage.chapter("5. All of it in one line, for scripts and CI")
    stage.say("It connects, intercepts, runs a program, undoes everything, and ends with the program's exit code.")
    with stage.second_terminal(_LOCAL_B, ": ready"):
        stage.ask(
            f"meshdev run --mesh deployment/b --header a=1 -- {_CURL} -H 'a: 1' http://a/",
            _OURS,
            ours=_LOCAL,
        )
    stage.run("meshdev status")
