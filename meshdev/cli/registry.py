"""Which commands there are. One is imported when it is called or explains itself: all of them take 0.1 s."""

from collections import UserDict
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, Final

import typer
from typer.core import TyperGroup

from meshdev.wire.modes import MODES

#: In the order of the help: the module in this folder, and the first line of its help.
COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "connect": "Connect this machine to a cluster.",
        **{mode.name: mode.summary for mode in MODES.values()},
        "run": "Run a program with a connection and intercepts, then undo both.",
        "env": "Print the environment variables of a workload's container.",
        "pull": "Write the files mounted into a workload's container to a folder.",
        "up": "Connect, and run the processes and intercepts of a project file.",
        "down": "End the processes and intercepts of a project file.",
        "leave": "End your intercepts on a target, or all of them.",
        "list": "List the intercepts of all users.",
        "inspect": "Show the requests that the pods of your intercepts get.",
        "dashboard": "Show services, requests, intercepts and health in the browser.",
        "status": "Show the state of the connection.",
        "doctor": "Examine this machine and the cluster, and say what to do.",
        "logs": "Show logs of meshdev.",
        "gather": "Collect what a bug report needs in one archive.",
        "disconnect": "End the connection.",
        "restore": "Undo what a crashed connection left behind.",
        "uninstall": "Remove the traffic-manager from the cluster.",
        "rbac": "Print the RBAC rules that meshdev needs.",
        "schema": "Print the JSON schema of project files.",
        "completion": "Print the script that completes meshdev's command lines in a shell.",
        "version": "Print the version of meshdev and of the tunnel protocol.",
    }
)
#: What follows the first word of a program is the program's.
RUNS_PROGRAMS: Final = "run"


class CommandGroup(TyperGroup):
    """``meshdev`` with all commands; its help needs none of them."""

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 -- typer's own
        super().__init__(**settings)
        self.commands = _LazyCommands(dict.fromkeys(COMMANDS))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401, ARG002 -- typer's signature; its click has no name
        return list(COMMANDS)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401, ARG002 -- the same
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


class _LazyCommands(UserDict[str, Any]):
    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 -- a command of typer's click
        command = super().__getitem__(name)
        if command is None:
            command = self.data[name] = _load(name)
        return command


def _load(name: str) -> object:
    module = import_module(f"meshdev.cli.{name}")
    single = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    single.command(
        name=name,
        cls=getattr(module, "COMMAND", None),
        epilog=module.EXAMPLE,
        context_settings={"allow_interspersed_args": name != RUNS_PROGRAMS},
    )(module.command)
    return typer.main.get_command(single)
