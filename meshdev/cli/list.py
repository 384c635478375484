"""``meshdev list``: the intercepts of all users, read from their Leases with the user's own kubeconfig."""

import sys
from typing import Annotated, Final

import typer

from meshdev.cli import api, options, render
from meshdev.cli.options import Format
from meshdev.cli.progress import progress_view
from meshdev.state import Paths
from meshdev.wire.session_api import Wait

EXAMPLE: Final = """\b
Examples:
  meshdev list
  meshdev list -A -o json
"""


@options.bundled
def command(
    *,
    namespace: options.Namespace = None,
    cluster: options.ClusterFlags,
    everywhere: Annotated[bool, typer.Option("--all-namespaces", "-A", help="Include all namespaces.")] = False,
    output: options.Output = Format.TEXT,
) -> None:
    """List the intercepts of all users.

    No connection is needed.
    """
    import asyncio  # noqa: PLC0415 -- and the next: 0.5 s that the other commands need not pay

    from meshdev.cli import listing  # noqa: PLC0415 -- as above

    wanted, progress = cluster.options(namespace), progress_view()
    try:
        found = asyncio.run(
            listing.find(wanted, _own(Paths.locate()), lambda text: progress.show(Wait(text)), everywhere=everywhere)
        )
    finally:
        progress.close()
    for trouble in found.troubles:
        print(f"note: {render.indented(trouble)}", file=sys.stderr)
    if output is Format.JSON:
        render.print_json([row.as_json() for row in found.rows])
    else:
        render.print_text(listing.table(found, everywhere=everywhere))


def _own(paths: Paths) -> dict[str, tuple[tuple[str, str], ...]] | None:
    """The intercepts of this machine's session with the identities of their pods; None where there is none to ask."""
    found = api.find(paths)
    if not found or not found.status:
        return None
    return {each.id: tuple((one.pod, one.identity) for one in each.identities) for each in found.status.intercepts}
