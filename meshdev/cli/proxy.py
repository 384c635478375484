"""``meshdev proxy``: route all traffic of a workload to this machine."""

from typing import Final

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
    target: options.Target,
    *,
    namespace: options.TargetNamespace = None,
    how: options.Intercepting,
    detach: options.Detach = False,
    connection: options.Connection,
    output: options.Output = Format.TEXT,
) -> None:
    """Route all traffic of a workload to this machine.

    Its pods are not restarted. Connects first if needed, stays until Ctrl-C, and then undoes everything.
    """
    from meshdev.cli import intercepting  # noqa: PLC0415 -- other commands need not wait for it

    asked = intercepting.request(PROXY, target, how, namespace=namespace, detach=detach)
    intercepting.intercept(connection.wanted(), asked, output)
