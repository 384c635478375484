"""What the shell completes beside options: names from the kubeconfig, the cluster and the session.

Options refer to these functions, so nothing is imported until one is called. They may raise anything of the kind that
a cluster, a file or a session can: :mod:`meshdev.cli.complete` says nothing then.
"""

import typer


def contexts(ctx: typer.Context) -> list[str]:
    """Of the kubeconfig."""
    from meshdev.cli import live_names  # noqa: PLC0415 -- only while a shell completes

    return live_names.contexts(ctx.params)


def namespaces(ctx: typer.Context) -> list[str]:
    """Of the cluster."""
    from meshdev.cli import live_names  # noqa: PLC0415 -- the same

    return live_names.namespaces(ctx.params)


def targets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Kinds, and the objects of the kind that is typed: ``deployment/b``."""
    from meshdev.cli import live_names  # noqa: PLC0415 -- the same

    return live_names.targets(ctx.params, incomplete)


def own_targets(incomplete: str) -> list[str]:
    """Of this machine's intercepts."""
    from meshdev.cli import live_names  # noqa: PLC0415 -- the same

    return live_names.own_targets(incomplete)


def ports(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
    """Of the target on the command line, as ``LOCAL`` or behind ``LOCAL:``, each with its name."""
    from meshdev.cli import live_names  # noqa: PLC0415 -- the same

    # Arguments before an option whose value is being typed are not assigned yet.
    typed = ctx.params.get("target") or next(iter(ctx.args), None)
    return live_names.ports({**ctx.params, "target": typed}, incomplete)
