"""``meshdev mesh``: route matching requests of a workload to this machine."""

from typing import Final

from meshdev.cli import options
from meshdev.cli.options import Format
from meshdev.wire.modes import MESH

EXAMPLE: Final = """\b
Examples:
  meshdev mesh deployment/b --header a=1
  meshdev mesh svc/b -H x-user~"(jane|joe)" --path-prefix /v1 --port 8080:http
"""


@options.bundled
def command(
    target: options.Target,
    *,
    namespace: options.TargetNamespace = None,
    match: options.Conditions,
    how: options.Intercepting,
    detach: options.Detach = False,
    connection: options.Connection,
    output: options.Output = Format.TEXT,
) -> None:
    """Route matching requests of a workload to this machine.

    All conditions must hold. Other requests go to the original, and several developers can share one workload.
    Connects first if needed, stays until Ctrl-C, and then undoes everything.
    """
    from meshdev.cli import intercepting  # noqa: PLC0415 -- other commands need not wait for it

    asked = intercepting.request(MESH, target, how, namespace=namespace, match=match, detach=detach)
    intercepting.intercept(connection.wanted(), asked, output)
