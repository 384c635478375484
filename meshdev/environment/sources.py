"""What the variables and files of a container are made of: the pod, and the objects that its spec refers to."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Object = Mapping[str, Any]
StoreKind = Literal["ConfigMap", "Secret"]

#: Annotation of kubectl's; its ``exec`` and ``logs`` take the same container.
DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"


@dataclass(frozen=True)
class Unreadable:
    """Stands for an object that was not read. *absent*: there is none of that name."""

    why: str
    forbidden: bool = False
    absent: bool = False


class UnreadableError(Exception):
    """A value cannot be known here: *source* is where it would come from, *why* ends a sentence."""

    def __init__(self, source: str, why: str, *, forbidden: bool = False) -> None:
        super().__init__(f"{source}: {why}")
        self.source = source
        self.why = why
        self.forbidden = forbidden


@dataclass(frozen=True)
class Missing:
    """What the result lacks: a variable or a file, where it would come from, and why it is not there."""

    what: str
    source: str
    why: str
    forbidden: bool = False

    def __str__(self) -> str:
        return f"{self.what} ({self.source}): {self.why}"


@dataclass(frozen=True, order=True)
class Store:
    """A ConfigMap or Secret of the pod's namespace."""

    kind: StoreKind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Entries:
    """What a store holds. *binary* is never in an environment."""

    data: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    binary: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def get(self, key: str) -> bytes | None:
        """The value of a key, as a volume has it."""
        return self.data.get(key, self.binary.get(key))


@dataclass(frozen=True, order=True)
class TokenRequest:
    """A token that the kubelet would ask for, of the pod's service account."""

    audience: str = ""
    seconds: int = 3600


@dataclass(frozen=True)
class ContainerView:
    """A pod, or where none runs the template of a workload, and one of its containers."""

    namespace: str
    object: Object
    container: Object
    live: bool

    @property
    def spec(self) -> Object:
        """Its ``spec``."""
        spec: Object = self.object["spec"]
        return spec

    @property
    def service_account(self) -> str:
        """The name of the service account that it runs as."""
        return str(self.spec.get("serviceAccountName") or "default")

    @property
    def links(self) -> bool:
        """Whether the Services of its namespace are in the environment."""
        return self.spec.get("enableServiceLinks") is not False


@dataclass(frozen=True)
class Sources:
    """Everything that was read. What is not in a mapping was not needed."""

    pod: ContainerView
    stores: Mapping[Store, Entries | Unreadable] = field(default_factory=dict, repr=False)
    services: Sequence[Object] | Unreadable = ()
    """Of the pod's namespace."""
    api_service: Object | Unreadable | None = None
    """``kubernetes`` in namespace default: every container has the variables of this one."""
    allocatable: Mapping[str, str] | Unreadable = field(default_factory=dict)
    """Of the pod's node."""
    tokens: Mapping[TokenRequest, str | Unreadable] = field(default_factory=dict, repr=False)

    def entries(self, store: Store, *, optional: bool) -> Entries | None:
        """What the store holds, None where it is optional and absent. Raises UnreadableError."""
        found = self.stores[store]
        if not isinstance(found, Unreadable):
            return found
        if found.absent and optional:
            return None
        raise UnreadableError(str(store), found.why, forbidden=found.forbidden)


@dataclass(frozen=True)
class Needs:
    """What has to be read for variables, for files, or for both (``|``)."""

    stores: frozenset[Store] = frozenset()
    services: bool = False
    node: bool = False
    tokens: frozenset[TokenRequest] = frozenset()

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(
            self.stores | other.stores,
            self.services or other.services,
            self.node or other.node,
            self.tokens | other.tokens,
        )


def config_map_entries(item: Object) -> Entries | Unreadable:
    """What a ConfigMap holds."""
    try:
        binary = {key: _decoded(value) for key, value in (item.get("binaryData") or {}).items()}
    except binascii.Error:
        return Unreadable("its binaryData is not base64")
    return Entries({key: str(value).encode() for key, value in (item.get("data") or {}).items()}, binary)


def secret_entries(item: Object) -> Entries | Unreadable:
    """What a Secret holds."""
    try:
        return Entries({key: _decoded(value) for key, value in (item.get("data") or {}).items()})
    except binascii.Error:
        return Unreadable("its data is not base64")


def _decoded(value: object) -> bytes:
    return base64.b64decode(str(value or ""), validate=True)


def items_of(value: object) -> list[Object]:
    """A list of the API, which may be null."""
    return list(value) if isinstance(value, list) else []
