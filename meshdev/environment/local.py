"""The environment of a program that stands in for a container: the laptop's, overlaid by the container's."""

from collections.abc import Mapping
from typing import Final

#: What describes the machine, the user and the session that the program really runs in, or the tools that it is run
#: with. mirrord leaves out PATH, HOME and those of runtimes, too.
_OF_THE_MACHINE: Final = frozenset(
    {
        *("DBUS_SESSION_BUS_ADDRESS", "DISPLAY", "HOME", "HOSTNAME", "LOGNAME", "MAIL", "OLDPWD", "PATH", "PWD"),
        *("SHELL", "SHLVL", "SSH_AUTH_SOCK", "TEMP", "TERM", "TMP", "TMPDIR", "USER", "WAYLAND_DISPLAY", "_"),
        *("CLASSPATH", "GEM_HOME", "GEM_PATH", "GOPATH", "GOROOT", "JAVA_HOME", "KUBECONFIG", "NODE_PATH"),
        *("PERL5LIB", "PYTHONHOME", "PYTHONPATH", "RUBYLIB", "VIRTUAL_ENV"),
        # Commands that a shell or the dynamic linker would run before the program: nobody who may only change a
        # ConfigMap decides about these.
        *("BASH_ENV", "PROMPT_COMMAND"),
    }
)
_PREFIXES: Final = ("BASH_FUNC_", "DYLD_", "LD_", "XDG_")


def is_of_the_machine(name: str) -> bool:
    """Whether the laptop's value of the variable stays, also where it has none."""
    return name in _OF_THE_MACHINE or name.startswith(_PREFIXES)


def overlaid(own: Mapping[str, str], workload: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The program's environment, and the names that were not taken from the workload because they are the machine's.

    A name that both have is the workload's: that is what is asked for. ``run … -- env NAME=value CMD`` overrides it.
    """
    kept = tuple(sorted(name for name in workload if is_of_the_machine(name)))
    return {**own, **{name: value for name, value in workload.items() if not is_of_the_machine(name)}}, kept
