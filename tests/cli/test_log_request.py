"""Which logs are meant, and where they are."""

from pathlib import Path
from typing import Any

import pytest

from meshdev.cli.log_request import Component, LogPlace, components, parsed, place, targets
from meshdev.cli.log_sources import LogRequest, locate
from meshdev.errors import ConfigError, InterceptError, UsageError
from meshdev.kube.kubeconfig import Options
from meshdev.kube.logs import WantedLines
from meshdev.state import Paths
from meshdev.wire.session_api import Status
from tests.kube.conftest import write_kubeconfig
from tests.wire.examples import INTERCEPT

HERE = "https://here"
CONNECTED = Status(
    state="connected", server=HERE, namespace="team-1", manager_namespace="ops", intercepts=(INTERCEPT, INTERCEPT)
)


@pytest.mark.parametrize(
    ("given", "target", "connected", "previous", "wanted"),
    [
        ((), None, False, False, ("session", "helper")),
        ((), None, True, False, ("session", "helper", "manager")),
        ((), "deployment/b", True, False, ("sidecar",)),
        ((), None, False, True, ("manager",)),
        ((), "deployment/b", False, True, ("sidecar",)),
        (("session", "manager"), "deployment/b", False, False, ("session", "manager")),
    ],
)
def test_what_is_shown(
    given: tuple[Component, ...], target: str | None, connected: bool, previous: bool, wanted: tuple[Component, ...]
) -> None:
    assert components(given, target, connected=connected, previous=previous) == wanted


def test_components_are_named() -> None:
    assert parsed(["manager", "session", "manager"]) == ("session", "manager")
    with pytest.raises(UsageError, match="session, helper, manager, sidecar"):
        parsed(["session", "control"])


def test_files_have_no_former_instance() -> None:
    with pytest.raises(UsageError, match="containers"):
        components(("session",), None, connected=True, previous=True)


OWN = ((INTERCEPT.target, INTERCEPT.namespace),)


@pytest.mark.parametrize(
    ("status", "server", "manager", "wanted"),
    [
        (None, HERE, None, LogPlace("default", "default")),
        (None, HERE, "tools", LogPlace("tools", "default")),
        (CONNECTED, HERE, None, LogPlace("ops", "team-1", OWN)),
        (CONNECTED, HERE, "tools", LogPlace("tools", "team-1", OWN)),
        (CONNECTED, "https://elsewhere", None, LogPlace("default", "default")),
        (Status(state="connecting"), HERE, None, LogPlace("default", "default")),
    ],
)
def test_where(status: Status | None, server: str, manager: str | None, wanted: LogPlace) -> None:
    assert place(status, server, "default", manager, chosen=True) == wanted


def test_another_cluster_is_meant_only_where_the_user_named_it() -> None:
    with pytest.raises(ConfigError, match=r"https://here, .* https://elsewhere"):
        place(CONNECTED, "https://elsewhere", "default", None, chosen=False)


@pytest.mark.parametrize(
    ("typed", "namespace", "wanted"),
    [
        ("deployment/a", None, (("deployment/a", "team-1"),)),
        ("deployment/a", "team-2", (("deployment/a", "team-2"),)),
        (None, None, OWN),
    ],
)
def test_whose_sidecars(typed: str | None, namespace: str | None, wanted: Any) -> None:
    assert targets(typed, namespace, LogPlace("ops", "team-1", OWN)) == wanted


def test_nobodys() -> None:
    with pytest.raises(InterceptError, match="nothing is intercepted"):
        targets(None, None, LogPlace("ops", "team-1"))


@pytest.mark.parametrize(
    ("chosen", "typed", "wanted"),
    [(False, None, ("c", "bastion")), (False, "other", ("c", "other")), (True, None, (None, None))],
)
def test_the_cluster_is_reached_as_the_connection_does(
    tmp_path: Path, chosen: bool, typed: str | None, wanted: tuple[str | None, str | None]
) -> None:
    path = write_kubeconfig(tmp_path / "config", HERE)
    status = Status(state="connected", context="c", server=HERE, namespace="team-1", ssh="bastion")
    options = Options(kubeconfig=str(path), environment={}, ssh=typed)
    request = LogRequest(Paths(tmp_path), ("manager",), WantedLines(), options, status, chosen=chosen)
    found, where = locate(request)
    assert (found.context, found.ssh) == wanted
    assert where == LogPlace("default", "team-1")
