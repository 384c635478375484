"""``meshdev leave``: end intercepts of this machine."""

from typing import Annotated, Final

import typer

from meshdev.cli import api, names, options, render
from meshdev.cli.options import Format
from meshdev.errors import TunnelError, UsageError
from meshdev.state import Paths
from meshdev.wire.answers import LeaveAnswer
from meshdev.wire.message import dump
from meshdev.wire.session_intercepts import LeaveRequest

EXAMPLE: Final = """\b
Examples:
  meshdev leave deployment/b
  meshdev leave --all
"""

#: As long as a command that stays attached waits: sidecars drain for up to 25 s (docs/intercepts.md).
_LEAVE_SECONDS: Final = 40.0


def command(
    target: Annotated[
        str | None,
        typer.Argument(metavar="TARGET", help="KIND/NAME, as for proxy and mesh.", autocompletion=names.own_targets),
    ] = None,
    *,
    namespace: options.TargetNamespace = None,
    everything: Annotated[bool, typer.Option("--all", help="End all intercepts of this machine.")] = False,
    output: options.Output = Format.TEXT,
) -> None:
    """End your intercepts on a target, or all of them.

    Returns once every pod has acknowledged it. The connection stays.
    """
    if (target is None) != everything:
        raise UsageError("leave needs a target or --all, not both", hint="for instance: meshdev leave deployment/b")
    namespace = options.not_empty("--namespace", namespace)
    if target is not None:
        from meshdev.intercept.target import parse_target  # noqa: PLC0415 -- this command only

        parse_target(target)
    left = leave(Paths.locate(), LeaveRequest(target, namespace))
    if output is Format.JSON:
        render.print_json(dump(LeaveAnswer(left)))
    else:
        render.print_text("\n".join(f"Left {each}" for each in left) or "Nothing to leave")


def leave(paths: Paths, request: LeaveRequest) -> tuple[str, ...]:
    """End them and return their names. Without a session there are none: an intercept ends with its session."""
    found = api.find(paths)
    if found is None or (found.status and found.status.state == "disconnected"):
        return ()
    why = found.why
    if found.status:
        try:
            return api.ask(paths, request, _LEAVE_SECONDS)
        except api.NoAnswer as error:
            if paths.holder() is None:
                return ()
            why = str(error)
    raise TunnelError(f"{found.name} does not answer ({why})", hint="`meshdev disconnect` ends it and all intercepts")
