"""Quantities of Kubernetes, exact, and ``resourceFieldRef`` as the kubelet answers it."""

import math
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

from meshdev.environment.sources import ContainerView, Object, Unreadable, UnreadableError, items_of

#: k8s.io/apimachinery/pkg/api/resource/suffix.go.
_SUFFIXES: Final[Mapping[str, Fraction]] = {
    **{suffix: Fraction(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), 1)},
    **{
        suffix: Fraction(1000) ** power
        for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)
    },
}
_QUANTITY: Final = re.compile(
    r"(?P<number>[+-]?(?:\d{1,64}(?:\.\d{0,64})?|\.\d{1,64}))(?:(?P<suffix>[KMGTPE]i|[numkMGTPE]?)|[eE](?P<power>[+-]?\d{1,3}))",
    re.ASCII,
)
_MOST: Final = 2**63 - 1
#: Those for which the node's share counts where there is no limit (MergeContainerResourceLimits).
_OF_THE_NODE: Final = frozenset({"cpu", "memory", "ephemeral-storage"})
#: Of these a pod as a whole may have limits (resourcehelper.IsSupportedPodLevelResource; hugepages have no default).
_OF_THE_POD: Final = frozenset({"cpu", "memory"})


def quantity(text: str) -> Fraction:
    """The value of ``100m``, ``1.5Gi``, ``1e3``; below a nano rounded up, as the API server does. Raises ValueError."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    factor = Fraction(10) ** int(found["power"]) if found["power"] else _SUFFIXES[found["suffix"] or ""]
    value = Fraction(found["number"]) * factor
    nanos = math.ceil(abs(value) * 10**9)
    return Fraction(nanos if value >= 0 else -nanos, 10**9)


def needs_node(selector: Object, pod: ContainerView, *, volume: bool = False) -> bool:
    """Whether the answer is the node's: what is allocatable there."""
    which, _, name = str(selector.get("resource")).partition(".")
    return (
        which == "limits" and name in _OF_THE_NODE and not _limit(pod, _container(selector, pod), name, volume=volume)
    )


def resource_value(
    selector: Object, pod: ContainerView, allocatable: Mapping[str, str] | Unreadable, *, volume: bool = False
) -> str:
    """The value of a ``resourceFieldRef``. Raises UnreadableError.

    In a *volume* limits of the pod as a whole do not count (downwardapi.CollectData), in the environment they do
    (defaultPodLimitsForDownwardAPI).
    """
    resource = str(selector.get("resource"))
    source = f"resourceFieldRef {resource}"
    which, _, name = resource.partition(".")
    if which not in {"limits", "requests"} or not (name in _OF_THE_NODE or name.startswith("hugepages-")):
        raise UnreadableError(source, "the kubelet knows no such resource")
    try:
        container = _container(selector, pod)
        amount = _request(container, name) if which == "requests" else _limit(pod, container, name, volume=volume)
        if not amount and which == "limits" and name in _OF_THE_NODE:
            amount = _of_node(source, name, pod, allocatable)
        return str(_rounded_up(amount, quantity(str(selector.get("divisor") or "0")), 1000 if name == "cpu" else 1))
    except ValueError as error:
        raise UnreadableError(source, str(error)) from error


def _rounded_up(amount: Fraction, divisor: Fraction, scale: int) -> int:
    """In floating point, as the kubelet's ``convertResource…ToString``; CPUs are counted in thousandths before."""
    units, each = _whole(amount, scale), _whole(divisor or Fraction(1), scale)
    return math.ceil(float(units) / float(each))


def _whole(value: Fraction, scale: int) -> int:
    """Quantity.Value() and MilliValue(): rounded up, and no more than an int64 holds."""
    return min(math.ceil(value * scale), _MOST)


def _container(selector: Object, pod: ContainerView) -> Object:
    name = selector.get("containerName")
    if not name:
        return pod.container
    everything = [*items_of(pod.spec.get("containers")), *items_of(pod.spec.get("initContainers"))]
    found = next((each for each in everything if each.get("name") == name), None)
    if found is None:
        raise UnreadableError(f"resourceFieldRef {selector.get('resource')}", f"there is no container {name}")
    return found


def _request(container: Object, name: str) -> Fraction:
    """The API server takes a limit as the request where there is none; in a template it has not done so yet."""
    requests, limits = _amounts(container, "requests"), _amounts(container, "limits")
    return quantity(str(requests.get(name, limits.get(name, "0"))))


def _limit(pod: ContainerView, container: Object, name: str, *, volume: bool) -> Fraction:
    limit = quantity(str(_amounts(container, "limits").get(name, "0")))
    if limit or volume or name not in _OF_THE_POD:
        return limit
    return quantity(str(_amounts(pod.spec, "limits").get(name, "0")))


def _amounts(owner: Object, which: str) -> Mapping[str, Any]:
    return (owner.get("resources") or {}).get(which) or {}


def _of_node(source: str, name: str, pod: ContainerView, allocatable: Mapping[str, str] | Unreadable) -> Fraction:
    if not pod.live:
        raise UnreadableError(source, "no pod runs; without a limit it is what is allocatable on the pod's node")
    if isinstance(allocatable, Unreadable):
        raise UnreadableError(
            source,
            f"without a limit it is what is allocatable on the node, and {allocatable.why}",
            forbidden=allocatable.forbidden,
        )
    return quantity(allocatable.get(name, "0"))
