"""The environment of a container, as the kubelet makes it (makeEnvironmentVariables in pkg/kubelet/kubelet_pods.go).

envFrom first, in its order; then env, in its order, each may refer to what is there so far and to the variables of
Services; those of Services last, where nothing else has their name. What the image sets (PATH, mostly) and what the
runtime adds (HOSTNAME) is not in the API and not in here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from meshdev.environment.expansion import MAX_EXPANDED, ExpansionError, expand
from meshdev.environment.fields import field_value
from meshdev.environment.resources import needs_node, resource_value
from meshdev.environment.services import API_SERVICE, LINK, service_variables
from meshdev.environment.sources import (
    ContainerView,
    Missing,
    Needs,
    Object,
    Sources,
    Store,
    StoreKind,
    Unreadable,
    UnreadableError,
    items_of,
)

_FROM: Mapping[str, StoreKind] = {"configMapRef": "ConfigMap", "secretRef": "Secret"}
_KEYS: Mapping[str, StoreKind] = {"configMapKeyRef": "ConfigMap", "secretKeyRef": "Secret"}


@dataclass(frozen=True)
class Variables:
    """The result. Bytes that are no UTF-8 are surrogates (PEP 383), as in ``os.environ``."""

    values: Mapping[str, str] = field(repr=False)
    missing: tuple[Missing, ...] = ()


def variables_need(pod: ContainerView) -> Needs:
    """What has to be read for the environment of that container."""
    stores = {Store(kind, each[ref]["name"]) for each in _env_from(pod) for ref, kind in _FROM.items() if each.get(ref)}
    node = False
    for each in items_of(pod.container.get("env")):
        source = {} if each.get("value") else each.get("valueFrom") or {}
        stores |= {Store(kind, source[ref]["name"]) for ref, kind in _KEYS.items() if source.get(ref)}
        if selector := source.get("resourceFieldRef"):
            try:
                node |= needs_node(selector, pod)
            except (UnreadableError, ValueError):
                continue  # it is named when the value is asked for
    return Needs(frozenset(stores), services=True, node=node)


def variables_of(sources: Sources) -> Variables:
    """The environment that a container would get if it was started now."""
    made = _Environment(sources)
    for each in _env_from(sources.pod):
        made.take_all(each)
    for each in items_of(sources.pod.container.get("env")):
        made.take(each)
    return made.result()


def _env_from(pod: ContainerView) -> list[Object]:
    return items_of(pod.container.get("envFrom"))


class _Environment:
    """As far as it is made."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._values: dict[str, str] = {}
        self._missing: dict[str, Missing] = {}
        self._unread_prefixes: list[Missing] = []
        self._unread_links: list[Missing] = []
        self._links = self._service_variables()
        self._left = MAX_EXPANDED  # of all values together

    def result(self) -> Variables:
        values = {**self._links, **self._values}
        for name in self._missing:
            values.pop(name, None)
        missing = (*self._unread_prefixes, *self._missing.values(), *self._unread_links)
        return Variables(dict(sorted(values.items())), missing)

    def take_all(self, each: Object) -> None:
        """One of envFrom."""
        prefix = str(each.get("prefix") or "")
        for ref, kind in _FROM.items():
            if selector := each.get(ref):
                try:
                    entries = self._sources.entries(Store(kind, selector["name"]), optional=_optional(selector))
                except UnreadableError as error:
                    self._unread_prefixes.append(_missing(f"{prefix}*", error))
                    continue
                for key, value in sorted(entries.data.items()) if entries else ():
                    self._set(f"{prefix}{key}", _text(value), f"{kind} {selector['name']}")

    def take(self, each: Object) -> None:
        """One of env."""
        name, source = str(each.get("name")), each.get("valueFrom") or {}
        try:
            # Without a value valueFrom counts, and with neither it is the empty string.
            value = self._expanded(str(each["value"])) if each.get("value") else self._value_from(source)
        except ExpansionError as error:
            self._values.pop(name, None)
            self._missing[name] = Missing(name, "value", str(error))
            return
        except UnreadableError as error:
            self._values.pop(name, None)
            self._missing[name] = _missing(name, error)
            return
        if value is not None:
            self._set(name, value, "value")

    def _expanded(self, text: str) -> str:
        value = expand(text, self._referred, self._left)
        self._left -= len(value)
        return value

    def _set(self, name: str, value: str, source: str) -> None:
        if not name or "=" in name or "\0" in name + value:
            what = "its name is none that an environment can hold" if "\0" not in value else "it holds a NUL byte"
            self._values.pop(name, None)
            self._missing[name] = Missing(name, source, what)
            return
        self._missing.pop(name, None)
        self._values[name] = value

    def _value_from(self, source: Object) -> str | None:
        """None for what is optional and absent."""
        for ref, kind in _KEYS.items():
            if selector := source.get(ref):
                return self._entry(Store(kind, selector["name"]), str(selector.get("key")), _optional(selector))
        if selector := source.get("fieldRef"):
            return field_value(str(selector.get("fieldPath")), self._sources.pod)
        if selector := source.get("resourceFieldRef"):
            return resource_value(selector, self._sources.pod, self._sources.allocatable)
        if selector := source.get("fileKeyRef"):
            where = f"fileKeyRef {selector.get('key')} in {selector.get('path')} of volume {selector.get('volumeName')}"
            raise UnreadableError(where, "the file is in the pod only")
        if source:
            raise UnreadableError(f"valueFrom {', '.join(sorted(source))}", "meshdev does not know this kind of source")
        return ""

    def _entry(self, store: Store, key: str, optional: bool) -> str | None:
        try:
            entries = self._sources.entries(store, optional=optional)
        except UnreadableError as error:
            raise UnreadableError(f"key {key} of {store}", error.why, forbidden=error.forbidden) from error
        value = entries.data.get(key) if entries else None
        if value is None and not optional:
            raise UnreadableError(f"key {key} of {store}", "there is no such key")
        return None if value is None else _text(value)

    def _referred(self, name: str) -> str | None:
        """The value of a reference, None for what does not exist. Raises UnreadableError where that is unknown."""
        if name in self._values:
            return self._values[name]
        if name in self._links and name not in self._missing:
            return self._links[name]
        prefixed = (each for each in self._unread_prefixes if name.startswith(each.what.removesuffix("*")))
        links = self._unread_links if LINK.fullmatch(name) else ()
        unread = self._missing.get(name) or next(prefixed, None) or next(iter(links), None)
        if unread is not None:
            raise UnreadableError(f"$({name})", f"{unread.source}: {unread.why}", forbidden=unread.forbidden)
        return None

    def _service_variables(self) -> Mapping[str, str]:
        """Those of the namespace where it wants them, and the API server's in any case (getServiceEnvVarMap)."""
        own, api = self._sources.services if self._sources.pod.links else (), self._sources.api_service
        in_default = self._sources.pod.namespace == "default"
        if isinstance(own, Unreadable):
            self._unread_links.append(_unread("*_SERVICE_HOST, *_PORT, …", "Services of the namespace", own))
            own = ()
        services = [each for each in own if each["metadata"]["name"] != API_SERVICE or not in_default]
        if isinstance(api, Unreadable):
            self._unread_links.append(_unread("KUBERNETES_*", "Service kubernetes of namespace default", api))
        elif api is not None and not any(each["metadata"]["name"] == API_SERVICE for each in services):
            services.append(api)
        return service_variables(services)


def _optional(selector: Object) -> bool:
    return bool(selector.get("optional"))


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def _missing(what: str, error: UnreadableError) -> Missing:
    return Missing(what, error.source, error.why, error.forbidden)


def _unread(what: str, source: str, found: Unreadable) -> Missing:
    return Missing(what, source, found.why, found.forbidden)
