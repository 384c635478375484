"""``meshdev rbac``: the rules that a developer or an installer needs, for an administrator to apply."""

import contextlib
from typing import Annotated, Final

import typer

from meshdev.cli import options, render
from meshdev.errors import ConfigError, UsageError
from meshdev.wire.session_intercepts import Strategy

EXAMPLE: Final = """\b
Examples:
  meshdev rbac -n team-1 --user jane | kubectl apply -f -
  meshdev rbac -n team-1 --manager-namespace ops --preinstalled --group team-1
  meshdev rbac -n team-1 --connect-only --user joe
  meshdev rbac --installer --manager-namespace ops --serviceaccount ops:deployer
"""


def command(
    *,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    namespace: options.Namespace = None,
    manager_namespace: options.ManagerNamespace = None,
    user: Annotated[list[str] | None, typer.Option("--user", metavar="NAME", help="User to bind. Repeatable.")] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", metavar="NAME", help="Group to bind. Repeatable.")
    ] = None,
    serviceaccount: Annotated[
        list[str] | None,
        typer.Option("--serviceaccount", metavar="NS:NAME", help="Service account to bind. Repeatable."),
    ] = None,
    installer: Annotated[bool, typer.Option("--installer", help="Print the installer's rules only.")] = False,
    preinstalled: Annotated[bool, typer.Option("--preinstalled", help="Leave out the installer's rules.")] = False,
    strategy: Annotated[
        Strategy, typer.Option("--strategy", help="How sidecars join the pods; patch replaces the pods.")
    ] = "ephemeral",
    connect_only: Annotated[bool, typer.Option("--connect-only", help="Leave out proxy and mesh.")] = False,
) -> None:
    """Print the RBAC rules that meshdev needs.

    YAML for `kubectl apply -f -`; with a user, group or service account, RoleBindings are included.
    """
    from meshdev.kube import rbac  # noqa: PLC0415 -- this command only

    if installer and preinstalled:
        raise UsageError("--installer and --preinstalled exclude each other", hint="choose one")
    subjects = [rbac.Subject("User", name) for name in user or ()]
    subjects += [rbac.Subject("Group", name) for name in group or ()]
    for name in serviceaccount or ():
        where, colon, account = name.partition(":")
        if not (where and colon and account):
            raise UsageError(f"invalid --serviceaccount {name!r}", hint="use NAMESPACE:NAME, such as team-1:deployer")
        subjects.append(rbac.Subject("ServiceAccount", account, where))
    manifest = rbac.manifest(
        "installer" if installer else "developer",
        namespace or _namespace(kubeconfig, context),
        options.not_empty("--manager-namespace", manager_namespace),
        subjects=subjects,
        preinstalled=preinstalled,
        intercepting="none" if connect_only else strategy,
    )
    render.print_text(manifest.rstrip("\n"))


def _namespace(file: str | None, context: str | None) -> str:
    """The context's, as kubectl would take it; an admin may have no kubeconfig here."""
    from meshdev.kube import kubeconfig  # noqa: PLC0415 -- this command only

    with contextlib.suppress(ConfigError) if not file and not context else contextlib.nullcontext():
        return kubeconfig.load(kubeconfig.Options(options.kubeconfig_file(file), context)).namespace
    return "default"
