"""The API server: how it is reached, its version, its clock."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshdev.doctor.verdicts.finding import Finding, ok, skipped, warning

#: docs/compatibility.md: from here on with intercepts, with ``--strategy patch``, and what the tests run on.
_INTERCEPTS: Final = 25
_PATCH: Final = 29
_TESTED: Final = (32, 35)
#: A kubelet may be this many minor versions behind (https://kubernetes.io/releases/version-skew-policy/).
_KUBELET_SKEW: Final = 3
#: Certificates and tokens of minutes, and the ages of Leases, are read against this machine's clock.
_CLOCK_SECONDS: Final = 30.0
_MINOR: Final = re.compile(r"v?1\.(\d+)")


@dataclass(frozen=True, slots=True)
class ReachedServer:
    """An API server that answered, after *seconds*. *place* names it, and the proxy in between."""

    place: str
    secure: bool
    verified: bool
    seconds: float


def reached(server: ReachedServer) -> Finding:
    """Whether what was reached can be trusted."""
    place = f"{server.place} answers in {server.seconds * 1e3:.0f} ms"
    if not server.secure:
        return warning(f"{place}, without TLS: anybody in between reads along", "use an https:// address")
    if not server.verified:
        return warning(
            f"{place}, its certificate is not checked (insecure-skip-tls-verify): anybody in between can be it",
            "put the cluster's CA into certificate-authority-data and remove insecure-skip-tls-verify",
        )
    return ok(place)


def version(server: str, kubelets: Sequence[str] | None) -> Finding:
    """Whether that Kubernetes is supported; *kubelets* are the nodes' versions, None where they may not be listed."""
    minor = _minor(server)
    if minor is None:
        return warning(f"the API server has the unknown version {server!r}", "meshdev needs Kubernetes 1.25 or later")
    if minor < _INTERCEPTS:
        return warning(
            f"Kubernetes {server}: connect works; proxy and mesh need ephemeral containers, of 1.{_INTERCEPTS}",
            "upgrade the cluster to intercept in it",
        )
    skew = _skewed(minor, kubelets or ())
    if skew:
        return warning(
            f"Kubernetes {server}, but a node has {skew}, which the version skew policy does not support",
            "kubectl get nodes",
        )
    patch = "" if minor >= _PATCH else f"; --strategy patch needs 1.{_PATCH}"
    tested = "" if _TESTED[0] <= minor <= _TESTED[1] else f"; meshdev is tested on 1.{_TESTED[0]} to 1.{_TESTED[1]}"
    return ok(f"Kubernetes {server}{patch}{tested}")


def _skewed(server: int, kubelets: Sequence[str]) -> str | None:
    for each in kubelets:
        minor = _minor(each)
        if minor is not None and not server - _KUBELET_SKEW <= minor <= server:
            return each
    return None


def _minor(text: str) -> int | None:
    found = _MINOR.match(text)
    return int(found[1]) if found else None


def clock(ahead: float | None) -> Finding:
    """This machine's clock against the API server's: *ahead* seconds; None where it sent no date."""
    if ahead is None:
        return skipped("the API server's answers have no date")
    if abs(ahead) <= _CLOCK_SECONDS:
        return ok("this machine's clock agrees with the API server's")
    how = "ahead of" if ahead > 0 else "behind"
    return warning(
        f"this machine's clock is {abs(ahead):.0f} s {how} the API server's: certificates and tokens may count as "
        "expired or not yet valid",
        "timedatectl set-ntp true",
    )
