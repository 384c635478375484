"""``meshdev proxy``: all traffic of a workload comes to this machine."""

from typing import Annotated, Final

import typer

from meshdev.cli import options
from meshdev.cli.options import Format
from meshdev.wire.modes import PROXY

EXAMPLE: Final = """\b
Examples:
  meshdev proxy deployment/b
  meshdev proxy svc/b --port 8080:http --detach
"""


@options.bundled
def command(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="KIND/NAME, such as deployment/b, sts/db, svc/b.")],
    *,
    namespace: options.TargetNamespace = None,
    how: options.Intercepting,
    detach: options.Detach = False,
    connection: options.Connection,
    output: options.Output = Format.TEXT,
) -> None:
    """Send all traffic of a running workload to this machine.

    Its pods are not restarted. Connects first where there is no connection, stays until Ctrl-C, and leaves nothing.
    """
    from meshdev.cli import intercepting  # noqa: PLC0415 -- who does not intercept need not wait for it

    asked = intercepting.request(PROXY, target, how, namespace=namespace, detach=detach)
    intercepting.intercept(connection.wanted(), asked, output)
