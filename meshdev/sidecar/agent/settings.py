"""Configuration from the container's environment: who the pod is, and where the manager is."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from meshdev.errors import ConfigError
from meshdev.sidecar.probes import PROBES_VARIABLE
from meshdev.wire.agent import PROBES, Probe
from meshdev.wire.codecs import InvalidValueError

#: Set where the sidecar is one of a template.
STAYS_VARIABLE: Final = "MESHDEV_STAYS"

_TARGET: Final = re.compile(r"([A-Za-z0-9.-]{1,253}):([0-9]{1,5})")


@dataclass(frozen=True)
class Settings:
    """Everything that the agent is configured with."""

    pod: str
    uid: str
    namespace: str
    address: IPv4Address
    manager: str
    port: int
    probes: tuple[Probe, ...] = ()
    stays: bool = False
    """The kubelet would start it again: it waits instead of ending."""


def settings(environment: Mapping[str, str]) -> Settings:
    """The configuration in *environment*. Raises ConfigError that names the variable."""
    target = _TARGET.fullmatch(_needed(environment, "MESHDEV_MANAGER"))
    if target is None:
        raise ConfigError("MESHDEV_MANAGER is not HOST:PORT")
    try:
        address = IPv4Address(_needed(environment, "POD_IP"))
    except ValueError:
        raise ConfigError(f"POD_IP is no IPv4 address: {environment['POD_IP'][:60]}") from None
    return Settings(
        pod=_needed(environment, "POD_NAME"),
        uid=_needed(environment, "POD_UID"),
        namespace=_needed(environment, "POD_NAMESPACE"),
        address=address,
        manager=target[1],
        port=int(target[2]),
        probes=_probes(environment.get(PROBES_VARIABLE) or "[]"),
        stays=bool(environment.get(STAYS_VARIABLE)),
    )


def _needed(environment: Mapping[str, str], name: str) -> str:
    value = environment.get(name)
    if not value:
        raise ConfigError(f"{name} is not set")
    return value


def _probes(text: str) -> tuple[Probe, ...]:
    try:
        return PROBES.load(json.loads(text))
    except ValueError as error:
        raise ConfigError(str(InvalidValueError.inside(PROBES_VARIABLE, error))) from None
