"""The files of one volume, as the kubelet writes them (pkg/volume: configmap, secret, downwardapi, projected).

Modes are those that the spec declares; what fsGroup changes about them is not in here. A Secret's files and tokens are
marked *secret*.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from meshdev.environment.fields import field_value
from meshdev.environment.resources import needs_node, resource_value
from meshdev.environment.sources import (
    ContainerView,
    Missing,
    Needs,
    Object,
    Sources,
    Store,
    StoreKind,
    TokenRequest,
    Unreadable,
    UnreadableError,
    items_of,
)

#: Where nothing is declared (k8s.io/api/core/v1: …VolumeSourceDefaultMode).
_DEFAULT_MODE: Final = 0o644
#: The field with the name is another one in a volume of its own than in a projected one.
_STORES: Final[Mapping[str, tuple[StoreKind, tuple[str, ...]]]] = {
    "configMap": ("ConfigMap", ("name",)),
    "secret": ("Secret", ("secretName", "name")),
}
_READABLE: Final = ("configMap", "secret", "downwardAPI", "projected")


@dataclass(frozen=True)
class VolumeFile:
    """A file: its path in the volume, as it was declared and not yet checked."""

    path: str
    content: bytes = field(repr=False)
    mode: int
    secret: bool = False


@dataclass(frozen=True)
class VolumeFiles:
    """The files of a volume, and what is missing of them."""

    files: Mapping[str, VolumeFile]
    missing: tuple[Missing, ...] = ()


def kind_of(volume: Object) -> str:
    """``configMap``, ``emptyDir``, …: which source a volume has."""
    return next((key for key, value in volume.items() if key != "name" and value is not None), "emptyDir")


def is_readable(volume: Object) -> bool:
    """Whether its files come from objects of the API."""
    return kind_of(volume) in _READABLE


def volume_needs(volume: Object, pod: ContainerView, wanted: Callable[[str], bool]) -> Needs:
    """What has to be read for its files; of tokens only those whose path is *wanted*: each is a new credential."""
    needs = Needs()
    for kind, source, _ in _sources(volume):
        if kind in _STORES:
            needs |= Needs(stores=frozenset({_store(kind, source)}))
        elif kind == "serviceAccountToken" and wanted(str(source.get("path"))):
            needs |= Needs(tokens=frozenset({_token(source)}))
        elif kind == "downwardAPI":
            selectors = [
                each["resourceFieldRef"] for each in items_of(source.get("items")) if each.get("resourceFieldRef")
            ]
            needs |= Needs(node=any(_needs_node(each, pod) for each in selectors))
    return needs


def files_of(volume: Object, sources: Sources, wanted: Callable[[str], bool]) -> VolumeFiles:
    """Its files; of equal paths the last one's. What has a path that is not *wanted* may be left out."""
    files: dict[str, VolumeFile] = {}
    missing: list[Missing] = []
    name = f"volume {volume.get('name')}"
    for kind, source, mode in _sources(volume):
        if kind == "downwardAPI":
            for each in items_of(source.get("items")):
                try:
                    files[str(each.get("path"))] = _downward(each, mode, sources)
                except UnreadableError as error:
                    missing.append(Missing(f"{name}: {each.get('path')}", error.source, error.why, error.forbidden))
            continue
        if source.get("path") and not wanted(str(source["path"])):
            continue
        try:
            files |= {each.path: each for each in _made(kind, source, mode, sources)}
        except UnreadableError as error:
            what = f"{name}: {source['path']}" if source.get("path") else name
            missing.append(Missing(what, error.source, error.why, error.forbidden))
    return VolumeFiles(files, tuple(missing))


def _sources(volume: Object) -> Iterator[tuple[str, Object, int]]:
    """Kind, source and default mode; of a projected volume each of its own."""
    kind = kind_of(volume)
    source = volume.get(kind) or {}
    mode = _mode(source.get("defaultMode"), _DEFAULT_MODE)
    if kind != "projected":
        yield kind, source, mode
        return
    for each in items_of(source.get("sources")):
        inner = kind_of(each)
        yield inner, each.get(inner) or {}, mode


def _made(kind: str, source: Object, mode: int, sources: Sources) -> list[VolumeFile]:
    if kind in _STORES:
        return _of_store(kind, source, mode, sources)
    if kind == "serviceAccountToken":
        token = sources.tokens[_token(source)]
        if isinstance(token, Unreadable):
            account = f"token of service account {sources.pod.service_account}"
            raise UnreadableError(account, token.why, forbidden=token.forbidden)
        return [VolumeFile(str(source.get("path")), token.encode(), mode, secret=True)]
    raise UnreadableError(kind, "the kubelet makes this file, and it is in the pod only")


def _of_store(kind: str, source: Object, mode: int, sources: Sources) -> list[VolumeFile]:
    store, optional = _store(kind, source), bool(source.get("optional"))
    entries = sources.entries(store, optional=optional)
    secret = store.kind == "Secret"
    if entries is None:
        return []
    if not items_of(source.get("items")):
        everything = {**entries.data, **entries.binary}
        return [VolumeFile(key, value, mode, secret) for key, value in sorted(everything.items())]
    made = []
    for item in items_of(source.get("items")):
        value = entries.get(str(item.get("key")))
        if value is not None:
            made.append(VolumeFile(str(item.get("path")), value, _mode(item.get("mode"), mode), secret))
        elif not optional:
            raise UnreadableError(f"key {item.get('key')} of {store}", "there is no such key")
    return made


def _downward(item: Object, mode: int, sources: Sources) -> VolumeFile:
    if selector := item.get("fieldRef"):
        value = field_value(str(selector.get("fieldPath")), sources.pod)
    else:
        value = resource_value(item.get("resourceFieldRef") or {}, sources.pod, sources.allocatable, volume=True)
    return VolumeFile(str(item.get("path")), value.encode("utf-8", "surrogateescape"), _mode(item.get("mode"), mode))


def _needs_node(selector: Object, pod: ContainerView) -> bool:
    try:
        return needs_node(selector, pod, volume=True)
    except (UnreadableError, ValueError):
        return False  # it is named when the value is asked for


def _store(kind: str, source: Object) -> Store:
    store, fields = _STORES[kind]
    return Store(store, next((str(source[name]) for name in fields if source.get(name)), ""))


def _token(source: Object) -> TokenRequest:
    return TokenRequest(str(source.get("audience") or ""), int(source.get("expirationSeconds") or 3600))


def _mode(value: object, default: int) -> int:
    return value if isinstance(value, int) else default
