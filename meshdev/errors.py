"""Every error meshdev raises on purpose, with the exit code that scripts rely on (docs/exit-codes.md).

::

    MeshdevError                      1
    ├── UsageError                    2    the command line
    ├── ConfigError                  10    kubeconfig: missing, unreadable, no such context
    │   ├── CredentialError          11    exec plugin or token failed
    │   └── SshError                 13    --ssh: host key, keys, ssh_config
    ├── ProjectFileError             12    the file of `meshdev up`: its place, and what is wrong there
    ├── ForbiddenError               20    RBAC refused: names verb, resource, namespace
    ├── AdmissionError               21    admission refused (verbatim)
    ├── ClusterError                 30    an answer of the API that we cannot continue with
    │   ├── UnreachableError         31    no connection to the API server
    │   ├── UntrustedError           32    the server's certificate is not trusted
    │   ├── ImageError               33    the pod's own reason for not getting its image
    │   ├── ManagerError             34    the manager pod does not start
    │   └── ManagerBusyError         35    others are on the manager
    ├── TunnelError                  40    the path to the manager
    │   ├── PortForwardError         41    the API server or kubelet refused the port-forward
    │   ├── ProtocolError            42    the peer sent what it must not
    │   ├── PeerClosed               43    the peer closed on purpose (with its reason)
    │   ├── VersionError             44    no common protocol version
    │   └── RefusedError             45    the manager does not take this session
    ├── LaptopError                  50    this machine
    │   ├── DeviceError              51    /dev/net/tun
    │   ├── SudoError                52    no root for the helper
    │   ├── DnsError                 53    DNS could not be set up
    │   ├── RouteError               54    addresses or routes
    │   ├── FirewallError            55    nftables
    │   ├── AlreadyConnectedError    56    connected to something else
    │   ├── IsolationError           57    no network of one's own beside the machine's
    │   ├── ProcessError             58    a process of `meshdev up` failed
    │   └── AlreadyUpError           59    another state of that project is up
    ├── InterceptError               60    conflict or target
    └── Cancelled                   130    Ctrl-C
"""

from typing import ClassVar, TypeVar

E = TypeVar("E", bound=BaseException)


class MeshdevError(Exception):
    """Root of the tree. ``message`` is one sentence with the cause, ``hint`` what to do."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_json(self) -> dict[str, str | None]:
        """The value of ``error`` in ``-o json``."""
        return {"code": self.code, "message": self.message, "hint": self.hint}


class UsageError(MeshdevError):
    """The command line is invalid."""

    code = "usage"
    exit_code = 2


class ConfigError(MeshdevError):
    """The kubeconfig is missing, unreadable or names something that is not there."""

    code = "kubeconfig"
    exit_code = 10


class CredentialError(ConfigError):
    """A credential plugin or token could not be used."""

    code = "credentials"
    exit_code = 11


class SshError(ConfigError):
    """The bastion of ``--ssh`` cannot be used: its host key, the user's keys, or ssh_config."""

    code = "ssh"
    exit_code = 13


class ProjectFileError(MeshdevError):
    """The file of ``meshdev up`` cannot be meant; the message has a line for each place, with what is wrong there."""

    code = "project-file"
    exit_code = 12


class ForbiddenError(MeshdevError):
    """RBAC refused: the message names verb, resource and namespace, the hint prints the rule."""

    code = "forbidden"
    exit_code = 20


class AdmissionError(MeshdevError):
    """An admission plugin or webhook refused; the message is its own."""

    code = "admission"
    exit_code = 21


class ClusterError(MeshdevError):
    """The cluster gave an answer that meshdev cannot continue with."""

    code = "cluster"
    exit_code = 30


class UnreachableError(ClusterError):
    """No connection to the API server."""

    code = "unreachable"
    exit_code = 31


class UntrustedError(ClusterError):
    """The API server's certificate is not trusted."""

    code = "untrusted"
    exit_code = 32


class ImageError(ClusterError):
    """The manager's image cannot be pulled; the pod's own reason stands in the message."""

    code = "image"
    exit_code = 33


class ManagerError(ClusterError):
    """The manager pod does not start or does not stay."""

    code = "manager"
    exit_code = 34


class ManagerBusyError(ClusterError):
    """Other sessions use the manager; the message names them."""

    code = "manager-busy"
    exit_code = 35


class TunnelError(MeshdevError):
    """The path between the laptop and the manager does not work."""

    code = "tunnel"
    exit_code = 40


class PortForwardError(TunnelError):
    """The API server, kubelet or pod refused the port-forward."""

    code = "port-forward"
    exit_code = 41


class ProtocolError(TunnelError):
    """The peer sent bytes that its protocol does not allow; the connection is of no further use."""

    code = "protocol"
    exit_code = 42


class PeerClosed(TunnelError):  # noqa: N818 -- an orderly end, not a fault
    """The peer closed on purpose; the message is its reason."""

    code = "peer-closed"
    exit_code = 43


class VersionError(TunnelError):
    """Client and manager have no protocol version in common; ``sessions`` of others are on that manager."""

    code = "version"
    exit_code = 44

    def __init__(self, message: str, *, hint: str | None = None, sessions: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.sessions = sessions


class RefusedError(TunnelError):
    """The manager does not take this session (it is full, has no address); the message is its own."""

    code = "refused"
    exit_code = 45


class LaptopError(MeshdevError):
    """This machine cannot do what is needed."""

    code = "laptop"
    exit_code = 50


class DeviceError(LaptopError):
    """The TUN device cannot be opened."""

    code = "device"
    exit_code = 51


class SudoError(LaptopError):
    """The helper did not get root."""

    code = "sudo"
    exit_code = 52


class DnsError(LaptopError):
    """The laptop's DNS could not be set up."""

    code = "dns"
    exit_code = 53


class RouteError(LaptopError):
    """An address or route could not be set."""

    code = "route"
    exit_code = 54


class FirewallError(LaptopError):
    """nftables refused or is not there."""

    code = "firewall"
    exit_code = 55


class AlreadyConnectedError(LaptopError):
    """A connection to another cluster or namespace is up."""

    code = "already-connected"
    exit_code = 56


class IsolationError(LaptopError):
    """This machine does not let its users have a network of their own; the message names what refused."""

    code = "isolation"
    exit_code = 57


class ProcessError(LaptopError):
    """A process of ``meshdev up`` did not start, did not get ready, or ended."""

    code = "process"
    exit_code = 58


class AlreadyUpError(LaptopError):
    """The project is up as another version of its file describes it."""

    code = "already-up"
    exit_code = 59


class InterceptError(MeshdevError):
    """An intercept conflicts with another or its target cannot be used."""

    code = "intercept"
    exit_code = 60


class Cancelled(MeshdevError):  # noqa: N818 -- what the user asked for is no fault
    """The user pressed Ctrl-C."""

    code = "cancelled"
    exit_code = 130


def by_code(code: str) -> type[MeshdevError] | None:
    """The class of the tree with that code: how an error is made again that came from another process."""
    kinds: list[type[MeshdevError]] = [MeshdevError]
    for kind in kinds:
        if kind.code == code:
            return kind
        kinds.extend(kind.__subclasses__())
    return None


def first_of_group(errors: BaseExceptionGroup[E]) -> E:
    """The first error of a group; later ones are mostly its consequences."""
    error = errors.exceptions[0]
    return first_of_group(error) if isinstance(error, BaseExceptionGroup) else error
