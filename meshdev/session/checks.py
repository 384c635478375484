"""The dashboard's health: what a session knows of itself, each check with its state and a way out. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from meshdev.config import PROTOCOL
from meshdev.errors import MeshdevError
from meshdev.modes.state import InterceptState
from meshdev.session.state import SessionState
from meshdev.session.troubles import Source

CheckState = Literal["ok", "warning", "failed", "skipped"]

_RESTORE: Final = "what keeps coming back is another program's doing: docs/troubleshooting.md"


@dataclass(frozen=True)
class Check:
    """One line: *check* is what was looked at, *hint* what to do; none where nothing is to be done."""

    check: str
    state: CheckState
    detail: str
    hint: str | None = None

    def as_json(self) -> dict[str, str | None]:
        """As ``doctor -o json`` has it."""
        return {"check": self.check, "state": self.state, "detail": self.detail, "hint": self.hint}


def checks(state: SessionState, watches: Iterable[MeshdevError] = (), notes: Iterable[str] = ()) -> Iterator[Check]:
    """All of a session. *watches* are errors of what the dashboard follows in the cluster, *notes* what it left out."""
    yield _tunnel(state)
    yield _manager(state)
    yield _api_server(state, tuple(watches))
    yield _troubles(state, "names", ("names", "cluster"), _names(state))
    yield _troubles(state, "routes", ("routes", "networks"), f"{len(state.routes)} routes lead to the tunnel")
    yield _troubles(state, "helper", ("helper",), "it finds everything of ours as it should be")
    yield from _intercepts(state.intercepts)
    for text in notes:
        yield Check("requests", "warning", text)


def _tunnel(state: SessionState) -> Check:
    up, count = sum(each.up for each in state.carriers), len(state.carriers)
    if not up:
        return Check(
            "tunnel", "failed", state.tunnel_error or "no carrier is up", "it reconnects by itself: meshdev status"
        )
    times = [each.rtt_ms for each in state.carriers if each.up and each.rtt_ms is not None]
    took = f", round trip {min(times):.1f} ms" if times else ""
    again = f", {state.reconnects} reconnects" if state.reconnects else ""
    detail = f"{up} of {count} carriers are up{took}{again}"
    if up < count:
        return Check("tunnel", "warning", f"{detail}; {state.tunnel_error}", "it is redialled by itself")
    return Check("tunnel", "ok", detail)


def _manager(state: SessionState) -> Check:
    welcome = state.welcome
    if welcome is None:
        return Check("manager", "failed", "no manager has answered yet", "meshdev status")
    detail = f"pod {welcome.namespace}/{welcome.pod}, protocol {welcome.version}"
    if welcome.version < PROTOCOL:
        hint = "meshdev disconnect, then meshdev connect --upgrade"
        return Check("manager", "warning", f"{detail}; this meshdev speaks {PROTOCOL}", hint)
    return Check("manager", "ok", detail)


def _api_server(state: SessionState, errors: tuple[MeshdevError, ...]) -> Check:
    if errors:
        texts = "; ".join(dict.fromkeys(each.message for each in errors))
        hint = next((each.hint for each in errors if each.hint), None)
        return Check("API server", "warning", texts, hint or "it is tried again by itself")
    return Check("API server", "ok", state.server or "")


def _names(state: SessionState) -> str:
    dns = state.dns
    return f"resolved by {dns.nameserver} ({dns.integration})" if dns is not None else "not set up yet"


def _troubles(state: SessionState, check: str, sources: tuple[Source, ...], fine: str) -> Check:
    found = [text for source, text in zip(state.trouble_sources, state.troubles, strict=True) if source in sources]
    return Check(check, "warning", "; ".join(found), _RESTORE) if found else Check(check, "ok", fine)


def _intercepts(intercepts: tuple[InterceptState, ...]) -> Iterator[Check]:
    if not intercepts:
        yield Check(
            "intercepts",
            "skipped",
            "none: requests are seen in pods with a sidecar of yours",
            "meshdev mesh deployment/NAME --header a=1",
        )
    for each in intercepts:
        yield _intercept(each)


def _intercept(one: InterceptState) -> Check:
    name = f"intercept of {one.workload or 'a target that is looked for'}"
    pods = f"{one.pods.acked} of {one.pods.total} pods have it"
    down = ", ".join(f"{each.port}/{each.transport}" for each in one.local if not each.up)
    if down:
        return Check(name, "warning", f"{pods}; nothing listens here on {down}", "start your program on that port")
    if not one.up:
        return Check(name, "warning", f"{pods}; it is not up yet")
    if one.pods.acked < one.pods.total:
        why = next((each.text for each in one.pods.reports if each.text), "others are asked still")
        return Check(name, "warning", f"{pods}; {why}", "meshdev status has each pod")
    return Check(name, "ok", pods)
