"""Which names exist in the cluster, as far as the user may see: its namespaces, and the Services of one."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from meshdev.errors import ForbiddenError, MeshdevError
from meshdev.kube.client import KubeApi, Object, services_path
from meshdev.kube.errors import NotFoundError
from meshdev.kube.watching import State, follow, united

_NAMESPACES: Final = "/api/v1/namespaces"


@dataclass(frozen=True, slots=True)
class ClusterNames:
    """None: the user may not list them."""

    namespaces: frozenset[str] | None = None
    services: frozenset[str] | None = None


async def watch_names(
    api: KubeApi,
    namespace: str,
    note: Callable[[str], None],
    trouble: Callable[[MeshdevError], None] = lambda _: None,
) -> AsyncGenerator[ClusterNames]:
    """The cluster's namespaces and the Services of *namespace*: now, and again after each change.

    *note* is called once for what is forbidden; if both are, the iterator ends. *trouble* is called for interruptions,
    during which the last answer stands. Close it (``contextlib.aclosing``). Raises what waiting does not cure.
    """
    async with aclosing(
        united(
            _where_allowed(follow(api, _NAMESPACES, {}, _name, trouble), note),
            _where_allowed(follow(api, services_path(namespace), {}, _name, trouble), note),
        )
    ) as changes:
        async for namespaces, services in changes:
            yield ClusterNames(namespaces, services)


async def _where_allowed(
    states: AsyncGenerator[State[str]], note: Callable[[str], None]
) -> AsyncGenerator[frozenset[str] | None]:
    try:
        async with aclosing(states):
            async for state in states:
                yield frozenset(state.values())
    except (ForbiddenError, NotFoundError) as error:
        note(error.message)
        yield None


def _name(item: Object) -> str:
    name: str = item["metadata"]["name"]
    return name
