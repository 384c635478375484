"""Which container of a pod is meant, and which pod of a workload."""

from collections.abc import Iterable, Sequence

from meshdev.environment.sources import DEFAULT_CONTAINER, Object, items_of


def chosen_container(pod: Object, name: str | None, ours: Iterable[str]) -> Object:
    """The container *name*; without one kubectl's default: the one of the annotation, else the first.

    *ours* are names of meshdev's sidecars, which are never it. Raises LookupError, whose text names those there are.
    """
    spec, hidden = pod["spec"], frozenset(ours)
    regular = [each for each in items_of(spec.get("containers")) if each["name"] not in hidden]
    everything = [*regular, *(each for each in items_of(spec.get("initContainers")) if each["name"] not in hidden)]
    annotated = ((pod.get("metadata") or {}).get("annotations") or {}).get(DEFAULT_CONTAINER)
    named = {each["name"]: each for each in reversed(everything)}
    if name is not None and name not in named:
        raise LookupError(f"there is no container {name}; there is {', '.join(each['name'] for each in everything)}")
    if not everything:
        raise LookupError("there is no container")
    default: Object = named.get(annotated) or everything[0]
    return default if name is None else named[name]


def best_pod(pods: Sequence[Object]) -> Object | None:
    """The one that stands for its workload: ready before running before others, then the newest, then by its name."""
    return max(pods, key=_preference, default=None)


def _preference(pod: Object) -> tuple[bool, bool, str, str]:
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = items_of(status.get("conditions"))
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
    return ready, status.get("phase") == "Running", str(metadata.get("creationTimestamp")), str(metadata["name"])
