"""``meshdev proxy``: all traffic of a workload comes to this machine."""

from typing import Annotated, Final

import typer

from meshdev.cli import options
from meshdev.cli.options import Format

EXAMPLE: Final = """\b
Examples:
  meshdev proxy deployment/b
  meshdev proxy svc/b --port 8080:http --detach
"""


def command(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="KIND/NAME, such as deployment/b, sts/db, svc/b.")],
    *,
    namespace: options.TargetNamespace = None,
    ports: options.Ports = None,
    strategy: options.HowToEnter = "auto",
    takeover: options.Takeover = False,
    existing: options.Existing = "keep",
    no_fallback: options.NoFallback = False,
    detach: options.Detach = False,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    as_user: options.AsUser = None,
    request_timeout: options.RequestTimeout = None,
    manager_namespace: options.ManagerNamespace = None,
    image: options.Image = None,
    image_pull_secret: options.ImagePullSecret = None,
    output: options.Output = Format.TEXT,
) -> None:
    """Send all traffic of a running workload to this machine.

    Its pods are not restarted. Connects first where there is no connection, stays until Ctrl-C, and leaves nothing.
    """
    from meshdev.cli import intercepting  # noqa: PLC0415 -- who does not intercept need not wait for it

    asked = intercepting.request(
        "proxy",
        target,
        namespace=namespace,
        ports=ports,
        strategy=strategy,
        takeover=takeover,
        existing=existing,
        no_fallback=no_fallback,
        detach=detach,
    )
    wanted = options.connection(
        kubeconfig=kubeconfig,
        context=context,
        as_user=as_user,
        request_timeout=request_timeout,
        manager_namespace=manager_namespace,
        image=image,
        image_pull_secret=image_pull_secret,
    )
    intercepting.intercept(wanted, asked, output)
