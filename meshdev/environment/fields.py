"""``fieldRef``: fields of the pod, as the kubelet answers them (podFieldSelectorRuntimeValue, pkg/fieldpath)."""

import re
from collections.abc import Mapping
from typing import Any, Final

from meshdev.environment.sources import ContainerView, UnreadableError, items_of

_SUBSCRIPTED: Final = re.compile(r"metadata\.(?P<of>labels|annotations)\['(?P<key>.*)'\]", re.DOTALL)
#: Annotations that the kubelet adds for itself (pkg/kubelet/types); the API server does not have them.
_OF_THE_KUBELET: Final = ("kubernetes.io/config.seen", "kubernetes.io/config.source")
#: strconv.Quote.
_ESCAPES: Final = {
    "\a": r"\a",
    "\b": r"\b",
    "\f": r"\f",
    "\n": r"\n",
    "\r": r"\r",
    "\t": r"\t",
    "\v": r"\v",
    '"': r"\"",
    "\\": r"\\",
}


def field_value(path: str, pod: ContainerView) -> str:
    """The value of the field. Raises UnreadableError for what a template does not have, and what is no field."""
    metadata = pod.object.get("metadata") or {}
    if found := _SUBSCRIPTED.fullmatch(path):
        return _entry(path, metadata.get(found["of"]) or {}, found["key"], live=pod.live)
    name = path.rpartition(".")[2]
    match path:
        case "metadata.namespace":
            return pod.namespace
        case "spec.serviceAccountName":
            return pod.service_account
        case "metadata.labels" | "metadata.annotations":
            value = _formatted(metadata.get(name) or {}) if pod.live else None
        case "metadata.name" | "metadata.uid":
            value = metadata.get(name) if pod.live else None
        case "spec.nodeName" | "spec.host":
            value = pod.spec.get("nodeName")
        case "status.podIP" | "status.hostIP" | "status.podIPs" | "status.hostIPs":
            value = _addresses(name, pod.object.get("status") or {})
        case _:
            raise UnreadableError(f"fieldRef {path}", "the kubelet knows no such field")
    if value is None:
        raise UnreadableError(f"fieldRef {path}", "no pod runs that has it")
    return str(value)


def _addresses(name: str, status: Mapping[str, Any]) -> str | None:
    """One, or all of them; a kubelet of before 1.30 reports no list of the node's."""
    one = status.get(name.removesuffix("s")) or None
    several = ",".join(str(each.get("ip")) for each in items_of(status.get(name)))
    return (several or one) if name.endswith("s") else one


def _entry(path: str, entries: Mapping[str, str], key: str, *, live: bool) -> str:
    """Of a pod that runs, what is not there is empty; the pods of a template may get more labels than it has."""
    if key not in entries and key in _OF_THE_KUBELET:
        raise UnreadableError(f"fieldRef {path}", "the kubelet knows it, and the API server does not")
    if key not in entries and not live:
        raise UnreadableError(f"fieldRef {path}", "no pod runs, and the template does not have it")
    return str(entries.get(key, ""))


def _formatted(entries: Mapping[str, str]) -> str:
    """As in a volume: a line each, ``key="value"`` (fieldpath.FormatMap)."""
    return "\n".join(f"{key}={_quoted(str(entries[key]))}" for key in sorted(entries))


def _quoted(text: str) -> str:
    """As Go's ``strconv.Quote``."""
    return '"' + "".join(_ESCAPES.get(letter) or _printable(letter) for letter in text) + '"'


def _printable(letter: str) -> str:
    if letter.isprintable():
        return letter
    code = ord(letter)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
