"""Flags that several commands share, with kubectl's names, and the checks of their values."""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Network, NetmaskValueError
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, overload

import typer

from meshdev import duration
from meshdev.cli import names
from meshdev.config import IMAGE_VARIABLE, SSH_VARIABLE
from meshdev.errors import UsageError
from meshdev.intercept.match import MATCH_KINDS, MatchKind
from meshdev.wire import values
from meshdev.wire.modes import MODES, Mode
from meshdev.wire.session_api import ConnectOptions
from meshdev.wire.session_intercepts import AskedStrategy

if TYPE_CHECKING:
    from meshdev.kube.kubeconfig import Options
    from meshdev.wire.values import ListenAddress

#: OpenTelemetry's variables that name a file.
_OTLP_FILE: Final = re.compile(r"OTEL_EXPORTER_OTLP_(?:TRACES_|LOGS_)?(?:CLIENT_)?(?:CERTIFICATE|KEY)")


class Format(StrEnum):
    """Values of ``--output``."""

    TEXT = "text"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="Output format.")]
Kubeconfig = Annotated[
    str | None,
    typer.Option(
        "--kubeconfig", metavar="FILE", help="Path to the kubeconfig file. Default: $KUBECONFIG, then ~/.kube/config."
    ),
]
Context = Annotated[
    str | None,
    typer.Option("--context", metavar="NAME", help="Context of the kubeconfig to use.", autocompletion=names.contexts),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        help="Namespace. Default: the context's.",
        autocompletion=names.namespaces,
    ),
]
ManagerNamespace = Annotated[
    str | None,
    typer.Option(
        "--manager-namespace",
        metavar="NAME",
        help="The traffic-manager's namespace. Default: the namespace.",
        autocompletion=names.namespaces,
    ),
]

Ssh = Annotated[
    str | None,
    typer.Option(
        "--ssh",
        metavar="[USER@]HOST[:PORT]",
        envvar=SSH_VARIABLE,
        help="Bastion through which the API server is reached.",
    ),
]

TargetNamespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        metavar="NAME",
        help="Namespace of the target. Default: the connection's.",
        autocompletion=names.namespaces,
    ),
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="TARGET", help="KIND/NAME, such as deployment/b, sts/db, svc/b.", autocompletion=names.targets
    ),
]
Container = Annotated[
    str | None,
    typer.Option("--container", "-c", metavar="NAME", help="Container of the pod. Default: kubectl's."),
]
Strict = Annotated[bool, typer.Option("--strict", help="Fail if something cannot be read, instead of a note.")]
Detach = Annotated[bool, typer.Option("--detach", help="Return once it is up; `meshdev leave` ends it.")]


class Bundle:
    """A parameter of a command that stands for several options: those of its constructor. See :func:`bundled`."""


@dataclass(kw_only=True, eq=False, repr=False)  # methods that are not used would be compiled at each start
class ClusterFlags(Bundle):
    """Which cluster, and as whom: the flags of every command that asks the API server."""

    kubeconfig: Kubeconfig = None
    context: Context = None
    as_user: Annotated[str | None, typer.Option("--as", metavar="USER", help="User to impersonate.")] = None
    request_timeout: Annotated[
        str | None,
        typer.Option(
            "--request-timeout", metavar="TIME", help="Time limit of one API request, such as 10s or 1m30s; 0 for none."
        ),
    ] = None
    ssh: Ssh = None

    def named(self, namespace: str | None) -> dict[str, Any]:
        """What was given, checked: arguments of ``kubeconfig.Options``. Raises UsageError."""
        return {
            "kubeconfig": kubeconfig_file(self.kubeconfig),
            "context": not_empty("--context", self.context),
            "namespace": not_empty("--namespace", namespace),
            "as_user": not_empty("--as", self.as_user),
            "request_timeout": seconds(self.request_timeout),
            "ssh": _bastion(self.ssh),
        }

    def options(self, namespace: str | None = None) -> "Options":
        """As the Kubernetes client takes it. Raises UsageError."""
        from meshdev.kube.kubeconfig import Options  # noqa: PLC0415 -- YAML: few commands read a kubeconfig

        return Options(**self.named(namespace))


@dataclass(kw_only=True, eq=False, repr=False)
class Connection(ClusterFlags):
    """The flags of every command that may have to connect."""

    manager_namespace: ManagerNamespace = None
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="IMAGE", envvar=IMAGE_VARIABLE, help="Image of the traffic-manager."),
    ] = None
    image_pull_secret: Annotated[
        str | None, typer.Option("--image-pull-secret", metavar="NAME", help="Secret to pull that image with.")
    ] = None

    def wanted(self, namespace: str | None = None) -> ConnectOptions:
        """What to connect with. Raises UsageError."""
        return ConnectOptions(
            **self.named(namespace),
            directory=_directory(),
            manager_namespace=not_empty("--manager-namespace", self.manager_namespace),
            image=self.image or None,
            image_pull_secret=not_empty("--image-pull-secret", self.image_pull_secret),
        )


@dataclass(kw_only=True, eq=False, repr=False)
class Intercepting(Bundle):
    """How to intercept, for every command that does."""

    ports: Annotated[
        list[str] | None,
        typer.Option(
            "--port",
            metavar="LOCAL[:REMOTE][/tcp|/udp|/http]",
            help="Port of this machine, and the port of the target that it serves. Default: every port, at the same "
            "number. Repeatable.",
            autocompletion=names.ports,
        ),
    ] = None
    strategy: Annotated[
        AskedStrategy, typer.Option("--strategy", help="How the sidecar joins the pods; patch replaces the pods.")
    ] = "auto"
    takeover: Annotated[bool, typer.Option("--takeover", help="Replace conflicting intercepts of other users.")] = False
    existing: Annotated[
        Literal["keep", "reset"],
        typer.Option("--existing", help="What to do with connections that are already open; reset closes them."),
    ] = "keep"
    no_fallback: Annotated[
        bool,
        typer.Option("--no-fallback", help="Answer 503 while no local program listens."),
    ] = False


def _option(kind: MatchKind[Any]) -> object:
    option = typer.Option(*kind.flags, metavar=kind.metavar, help=kind.help)
    return Annotated[list[str] | None if kind.many else str | None, option]


class Conditions(dict[str, Any], Bundle):
    """What was typed of each kind of condition, by the field of ``InterceptRequest``."""

    __signature__ = inspect.Signature(
        [
            inspect.Parameter(kind.key, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_option(kind))
            for kind in MATCH_KINDS
        ]
    )

    def __init__(self, **given: str | list[str] | None) -> None:
        super().__init__(
            {kind.key: tuple(given[kind.key] or ()) if kind.many else given[kind.key] for kind in MATCH_KINDS}
        )


class Targets(list[tuple[Mode, str]], Bundle):
    """What to intercept, and how: an option for each mode."""

    __signature__ = inspect.Signature(
        [
            inspect.Parameter(
                mode.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None,
                annotation=Annotated[
                    list[str] | None,
                    typer.Option(
                        f"--{mode}",
                        metavar="TARGET",
                        help=f"{mode.help} Repeatable.",
                        autocompletion=names.targets,
                    ),
                ],
            )
            for mode in MODES.values()
        ]
    )

    def __init__(self, **given: list[str] | None) -> None:
        super().__init__((MODES[name], target) for name, targets in given.items() for target in targets or ())


def bundled(command: Callable[..., None]) -> Callable[..., None]:
    """*command* with the options of its bundles in their places."""
    parameters: list[inspect.Parameter] = []
    bundles: dict[str, tuple[Callable[..., Bundle], list[str]]] = {}
    for each in inspect.signature(command, eval_str=True).parameters.values():
        if isinstance(each.annotation, type) and issubclass(each.annotation, Bundle):
            inner = inspect.signature(each.annotation, eval_str=True).parameters
            bundles[each.name] = each.annotation, list(inner)
            parameters += inner.values()
        else:
            parameters.append(each)

    @functools.wraps(command)
    def called(**given: object) -> None:
        for name, (bundle, inner) in bundles.items():
            given[name] = bundle(**{each: given.pop(each) for each in inner})
        command(**given)

    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # inspect reads it
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called


def listen_address(flag: str, text: str | None) -> "ListenAddress | None":
    """Where to listen, None where that was not asked for. Raises UsageError."""
    if text is None:
        return None
    try:
        return values.listen_address(text)
    except ValueError as error:
        raise UsageError(f"{flag} {text}: {error}", hint=f"for instance: {flag} 127.0.0.1:1080") from error


_NO_LIMIT: Final = 86400.0


def seconds(text: str | None) -> float | None:
    """kubectl's ``--request-timeout``: whole seconds, or Go's duration (time.ParseDuration). None: not given.

    0 means no limit, as for kubectl.
    """
    return None if text is None else period("--request-timeout", text) or _NO_LIMIT


def period(flag: str, text: str) -> float:
    """The seconds in the value of a *flag* as kubectl takes it: a whole number, or Go's duration. Raises UsageError."""
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return duration.parse(text)
    except ValueError:
        raise UsageError(f"invalid {flag} {text!r}", hint="use a value such as 10s, 1m30s or 0.") from None


def _bastion(text: str | None) -> str | None:
    """``--ssh``, checked before anything is done. An empty variable means: none."""
    if text:
        from meshdev.ssh.target import SshTarget  # noqa: PLC0415 -- hardly a command needs it

        SshTarget.parse(text)
    return text or None


def _directory() -> str | None:
    """This one; None where it was removed under us."""
    try:
        return str(Path.cwd())
    except OSError:
        return None


def kubeconfig_file(flag: str | None) -> str | None:
    """The flag's value as an absolute path."""
    return None if flag is None else str(Path(not_empty("--kubeconfig", flag)).absolute())


def anchored(environ: Mapping[str, str]) -> dict[str, str]:
    """*environ* with the paths in it made absolute, for a process that runs in another folder: those of KUBECONFIG,
    and of keys and certificates for OTLP."""
    found = dict(environ)
    if paths := [str(Path(path).absolute()) for path in environ.get("KUBECONFIG", "").split(":") if path]:
        found["KUBECONFIG"] = ":".join(paths)
    for name, path in environ.items():
        if path and _OTLP_FILE.fullmatch(name) is not None:
            found[name] = str(Path(path).absolute())
    return found


def ranges(flag: str, values: list[str]) -> tuple[str, ...]:
    """The values of ``--also`` or ``--never`` as canonical IPv4 ranges; an address alone is a range of one."""
    result: list[str] = []
    for value in values:
        for part in value.split(","):
            try:
                result.append(str(IPv4Network(part.strip(), strict=False)))
            except (AddressValueError, NetmaskValueError, ValueError):
                raise UsageError(f"invalid {flag} {part!r}", hint="use IPv4 ranges such as 10.20.0.0/16.") from None
    return tuple(dict.fromkeys(result))


@overload
def not_empty(flag: str, value: str) -> str: ...
@overload
def not_empty(flag: str, value: str | None) -> str | None: ...
def not_empty(flag: str, value: str | None) -> str | None:
    """*value*; raises UsageError for the empty string, which is a script's unset variable."""
    if value == "":
        raise UsageError(f"{flag} is empty", hint=f"leave {flag} out for its default.")
    return value
