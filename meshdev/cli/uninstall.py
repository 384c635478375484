"""``meshdev uninstall``: remove what ``connect`` created in the cluster."""

from typing import Annotated, Final

import typer

from meshdev.cli import api, options, render
from meshdev.cli.disconnect import disconnect
from meshdev.state import Paths

EXAMPLE: Final = """\b
Examples:
  meshdev uninstall
  meshdev uninstall --manager-namespace ops --force
"""


@options.bundled
def command(
    *,
    namespace: options.Namespace = None,
    cluster: options.ClusterFlags,
    manager_namespace: options.ManagerNamespace = None,
    force: Annotated[bool, typer.Option("--force", help="Remove it even if others are connected through it.")] = False,
) -> None:
    """Remove the traffic-manager from the cluster.

    Ends your own connection through it first. Refuses while others are connected through it.
    """
    import asyncio  # noqa: PLC0415 -- and the next: 0.5 s that the other commands need not pay

    from meshdev.cli import removal  # noqa: PLC0415 -- as above
    from meshdev.kube.kubeconfig import load  # noqa: PLC0415 -- as above

    wanted = cluster.options(namespace)
    config = load(wanted)
    where = options.not_empty("--manager-namespace", manager_namespace) or config.namespace
    _leave(Paths.locate(), config.server, where)
    removed = asyncio.run(removal.remove(wanted, where, force=force))
    for name in removed:
        render.print_text(f"Removed {name}")
    if not removed:
        render.print_text(f"Nothing to uninstall in namespace {where}")


def _leave(paths: Paths, server: str, namespace: str) -> None:
    """Disconnect if our own connection uses that manager."""
    found = api.find(paths)
    status = found.status if found else None
    if status and status.server in (None, server) and status.manager_namespace in (None, namespace):
        disconnect(paths)
        render.print_text("Disconnected")
