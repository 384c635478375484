"""The testbed's command line. `exec`, `node` and `kubectl` import next to nothing: they are run very often."""

# ruff: noqa: PLC0415 - each command imports what it needs when it runs

import os
import sys
from typing import NoReturn

from tests.cluster.run import TestbedError

_USAGE = """\
usage: python -m tests.cluster COMMAND
  up [--kubernetes 1.35|1.32] [--nodes 1|2] [--kube-proxy nftables|iptables] [--masquerade-all]
                                         cluster, images, sample, laptops; idempotent. Without options: what is up,
                                         else 1.35, 1 node, nftables. Another kind than what is up needs `down` first.
                                         --masquerade-all: clients of a Service have a node's address, not their own
  down                                   undo everything on this machine; the cache stays
  status [-o json]                       what runs
  restart COMPONENT                      stop and start one component of the cluster: etcd, apiserver,
                                         controller-manager, scheduler, containerd, kubelet, kube-proxy; those of
                                         node 2: containerd2, kubelet2, kube-proxy2; or laptop2-resolved
  stop node2 | start node2               cut that node's power (its programs, its pods, its cables), and restore it
  kubectl ARGS…                          kubectl as admin
  node [--node 2] -- CMD                 CMD in a node's network
  exec [--laptop 1|2] [--user dev] -- CMD
                                         CMD on a laptop
"""


def main(argv: list[str]) -> int:
    """Run one command; the exit code is the command's."""
    match argv:
        case ["exec", *rest]:
            _exec(rest)
        case ["node", *rest]:
            _node(rest)
        case ["kubectl", *rest]:
            _kubectl(rest)
        case ["up", *options]:
            from tests.cluster import life

            life.up(options)
        case ["down"]:
            from tests.cluster import life

            life.down()
        case ["restart" | "stop" | "start" as verb, name]:
            from tests.cluster import life

            {"restart": life.restart, "stop": life.stop, "start": life.start}[verb](name)
        case ["status"] | ["status", "-o", "json"]:
            from tests.cluster import status

            return status.show(as_json=len(argv) > 1)
        case ["-h"] | ["--help"] | ["help"]:
            sys.stdout.write(_USAGE)
        case _:
            sys.stderr.write(_USAGE)
            return 2
    return 0


def _exec(words: list[str]) -> NoReturn:
    from tests.cluster import enter
    from tests.cluster.processes import is_alive
    from tests.cluster.state import State

    number, user = "1", "root"
    while words and words[0] in {"--laptop", "--user"} and len(words) > 1:
        if words[0] == "--laptop":
            number = words[1]
        else:
            user = words[1]
        words = words[2:]
    record = State.load().processes.get(f"laptop{number}")
    if record is None or not is_alive(record):
        raise TestbedError(f"laptop {number} is not up: python -m tests.cluster up")
    enter.laptop(record.pid, user, _command(words))


def _node(words: list[str]) -> NoReturn:
    from tests.cluster import addresses, enter, kinds
    from tests.cluster.state import State

    number = "1"
    if words[:1] == ["--node"] and len(words) > 1:
        number, words = words[1], words[2:]
    nodes = {str(node.number): node for node in addresses.nodes(kinds.running(State.load().facts) or kinds.DEFAULT)}
    if number not in nodes:
        raise TestbedError(f"there is no node {number}; there are: {', '.join(nodes)}")
    enter.network(nodes[number].namespace, _command(words), os.environ)


def _kubectl(words: list[str]) -> NoReturn:
    from tests.cluster import addresses, enter, packages
    from tests.cluster.paths import ADMIN_KUBECONFIG, KUBECTL_CACHE

    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"KUBECONFIG": str(ADMIN_KUBECONFIG), "KUBECACHEDIR": str(KUBECTL_CACHE)}
    enter.network(addresses.NODE_NAMESPACE, [str(packages.kubectl()), *words], environment)


def _command(words: list[str]) -> list[str]:
    """CMD behind `--`."""
    if len(words) < 2 or words[0] != "--":
        sys.stderr.write(_USAGE)
        sys.exit(2)
    return words[1:]


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except TestbedError as error:
        sys.stderr.write(f"testbed: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
