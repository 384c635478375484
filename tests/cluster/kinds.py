"""The kinds of cluster that the testbed can be: a pure value that everything else is a function of.

The kind of the running cluster is one of the state's facts. It stays until `down`: another Kubernetes on the data of
this one, or a node less, would be a cluster that nobody has.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tests.cluster.run import TestbedError

#: `--kubernetes` → the release in tests/cluster/kubebox/VERSION/go.mod, which the programs report as theirs.
RELEASES = {"1.35": "v1.35.4", "1.32": "v1.32.13"}
NEWEST = "1.35"
NODES = (1, 2)
PROXY_MODES = ("nftables", "iptables")

FACT = "kind"
#: Tests run on a cluster of the kind that the options in this variable ask for; without it, on what is up.
VARIABLE = "MESHDEV_TESTBED_KIND"

_CHOICES = {
    "--kubernetes": tuple(RELEASES),
    "--nodes": tuple(str(number) for number in NODES),
    "--kube-proxy": PROXY_MODES,
}
#: Options without a value.
_FLAGS = ("--masquerade-all",)


@dataclass(frozen=True)
class ClusterKind:
    """What may differ between clusters. The defaults are the cluster that `up` makes when none is there."""

    kubernetes: str = NEWEST
    nodes: int = 1
    kube_proxy: str = "nftables"
    #: Whoever uses a Service is seen with a node's address, as behind CNIs that translate between pods.
    masquerade_all: bool = False

    def __str__(self) -> str:
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        masquerade = " --masquerade-all" if self.masquerade_all else ""
        return f"Kubernetes {self.kubernetes}, {nodes}, kube-proxy {self.kube_proxy}{masquerade}"

    @property
    def options(self) -> tuple[str, ...]:
        """The arguments of `up` that ask for this kind."""
        return (
            *("--kubernetes", self.kubernetes),
            *("--nodes", str(self.nodes)),
            *("--kube-proxy", self.kube_proxy),
            *(("--masquerade-all",) if self.masquerade_all else ()),
        )

    @property
    def selection(self) -> str:
        """pytest's ``-m`` for the tests that run on every kind, and pass on this one."""
        return "every_cluster and not pod_addresses" if self.masquerade_all else "every_cluster"

    def as_fact(self) -> str:
        """The text that :func:`running` reads, also that of a checkout from before there was --masquerade-all."""
        return json.dumps({name: value for name, value in asdict(self).items() if value is not False})


DEFAULT = ClusterKind()
#: The oldest Kubernetes that is served, and what else differs from the default at the same time.
OTHER = ClusterKind("1.32", 2, "iptables", masquerade_all=True)


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """The fields of :class:`ClusterKind` that ARGUMENTS of `up` name; TestbedError for anything else."""
    found: dict[str, Any] = {}
    words = list(arguments)
    while words:
        option, _, value = words.pop(0).partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if option in _FLAGS and not value:
            found[name] = True
            continue
        if option not in _CHOICES:
            raise TestbedError(f"up has no option {option}; it has: {', '.join((*_CHOICES, *_FLAGS))}")
        if not value:
            value = words.pop(0) if words else ""
        if value not in _CHOICES[option]:
            raise TestbedError(f"{option} is one of {', '.join(_CHOICES[option])}, not {value!r}")
        found[name] = int(value) if name == "nodes" else value
    return found


def running(facts: Mapping[str, str]) -> ClusterKind | None:
    """The kind of the cluster that is up by FACTS of the state; None when there is none."""
    if FACT not in facts:
        return DEFAULT if "network" in facts else None  # made before there were kinds
    return ClusterKind(**json.loads(facts[FACT]))


def choose(up: ClusterKind | None, wanted: Mapping[str, Any]) -> ClusterKind:
    """The kind that `up` has to bring up: UP with nothing WANTED; TestbedError when UP is of another kind."""
    kind = replace(up or DEFAULT, **wanted)
    if up is not None and kind != up:
        raise TestbedError(
            f"the testbed is up as another kind ({up}); first: python -m tests.cluster down; "
            f"then: python -m tests.cluster up {' '.join(kind.options)}"
        )
    return kind
