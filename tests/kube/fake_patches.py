"""The two kinds of patches that meshdev sends, on plain dicts: server-side apply and ephemeral containers.

Lists of objects with names are merged by name; of other lists and values the new one counts, as
https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy has it for what is used here.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]


@dataclass
class Patches:
    """Who applied what, by uid and field manager."""

    applied: dict[tuple[str, str], Object] = field(default_factory=dict)
    #: Containers as an old API server stores them: fields it does not know are dropped.
    unknown: frozenset[str] = frozenset()

    def patched(self, there: Object, body: Object, content: str, manager: str, *, dry_run: bool) -> Object:
        """*there* after the patch."""
        if content == "application/strategic-merge-patch+json":
            return _with_ephemeral(there, body)
        assert content == "application/apply-patch+yaml", content
        owner = (there["metadata"]["uid"], manager)
        wanted = {"metadata": _without(body["metadata"], "name", "uid", "resourceVersion"), "spec": body.get("spec")}
        wanted = {key: value for key, value in wanted.items() if value}
        changed: Object = _merged(_removed(deepcopy(there), self.applied.get(owner, {}), wanted), wanted)
        for each in changed["spec"]["template"]["spec"].get("initContainers") or []:
            for name in self.unknown:
                each.pop(name, None)
        if not dry_run:
            self.applied[owner] = wanted
        if changed["spec"] != there["spec"]:
            changed["metadata"]["generation"] = there["metadata"].get("generation", 1) + 1
        return changed


def _with_ephemeral(there: Object, body: Object) -> Object:
    changed = deepcopy(there)
    containers = changed["spec"].setdefault("ephemeralContainers", [])
    new = body["spec"]["ephemeralContainers"]
    assert not {each["name"] for each in new} & {each["name"] for each in containers}, "these cannot be changed"
    containers += deepcopy(new)
    return changed


def _without(value: Object, *names: str) -> Object:
    return {key: each for key, each in value.items() if key not in names}


def _by_name(value: Any) -> dict[str, Object] | None:
    """A list of named objects by name, None for anything else."""
    if isinstance(value, list) and value and all(isinstance(each, dict) and "name" in each for each in value):
        return {each["name"]: each for each in value}
    return None


def _merged(there: Any, new: Any) -> Any:
    if isinstance(there, dict) and isinstance(new, dict):
        return {**there, **{key: _merged(there.get(key), value) for key, value in new.items()}}
    names = _by_name(there)
    if names is not None and _by_name(new) is not None:
        return list((names | {each["name"]: _merged(names.get(each["name"]), each) for each in new}).values())
    return deepcopy(new)


def _removed(there: Any, old: Any, new: Any) -> Any:
    """*there* without what is in *old* and not in *new*; what is empty then is gone, too."""
    if isinstance(there, dict) and isinstance(old, dict):
        wanted = new if isinstance(new, dict) else {}
        left = {
            key: _removed(value, old[key], wanted.get(key)) if key in old else value for key, value in there.items()
        }
        return {key: value for key, value in left.items() if value is not _GONE} or _GONE
    names, before, after = _by_name(there), _by_name(old), _by_name(new) or {}
    if names is not None and before is not None:
        return [each for name, each in names.items() if name not in before or name in after] or _GONE
    return _GONE if new is None else there


_GONE = object()
