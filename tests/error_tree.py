"""Every error that there is, for tests that go through all of them."""

from collections.abc import Iterator

from meshdev import errors
from meshdev.errors import MeshdevError
from meshdev.kube import errors as kube_errors
from meshdev.kube import leases as kube_leases
from meshdev.kube import manager as kube_manager

#: Where adapters have finer errors of their own: loaded here, so that no test depends on what others imported.
ADAPTERS = (kube_errors, kube_leases, kube_manager)


def every_kind(kind: type[MeshdevError] = MeshdevError) -> Iterator[type[MeshdevError]]:
    """The whole tree, with the adapters' own kinds."""
    yield kind
    for child in kind.__subclasses__():
        yield from every_kind(child)


def told_kinds() -> list[type[MeshdevError]]:
    """Those that users and scripts are told: they stand in errors.py."""
    return [kind for kind in every_kind() if kind.__module__ == errors.__name__]


def told_as(kind: type[MeshdevError]) -> type[MeshdevError]:
    """What an error is to others: an adapter's own kind is the nearest one that they are told."""
    return next(base for base in kind.__mro__ if base in told_kinds())
