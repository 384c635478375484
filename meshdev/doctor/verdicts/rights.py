"""What the user may do, against the rules that ``meshdev rbac`` prints."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from meshdev.doctor.verdicts.finding import Finding, failed, ok, warning
from meshdev.kube.access import Access
from meshdev.text import first_few

_SERVICE_ACCOUNT: Final = "system:serviceaccount:"
_SHOWN: Final = 4


@dataclass(frozen=True, slots=True)
class RightsFacts:
    """What is missing of each group of rules; *user* is the name by which the API server knows the user, if it tells.

    *preinstalled*: a manager runs, so that nobody has to install one.
    """

    namespace: str
    manager_namespace: str
    preinstalled: bool
    user: str = ""
    manager: Sequence[Access] = ()
    """To use the manager, and to install it where none runs."""
    services: Sequence[Access] = ()
    intercept: Sequence[Access] = ()
    ephemeral: Sequence[Access] = ()
    patch: Sequence[Access] = ()


def connecting(facts: RightsFacts) -> Finding:
    """Whether ``connect`` has what it needs."""
    if facts.manager:
        return failed(f"you may not {_sentences(facts.manager)}", _way_out(facts, "--connect-only"))
    if facts.services:
        return warning(
            f"you may not {_sentences(facts.services)}: only whole ranges and names that are asked for are routed",
            _way_out(facts, "--connect-only"),
        )
    install = "" if facts.preinstalled else " and install the traffic-manager"
    return ok(f"you may connect in namespace {facts.namespace}{install}")


def intercepting(facts: RightsFacts) -> Finding:
    """Whether ``proxy`` and ``mesh`` have what they need, by one strategy at least."""
    if facts.intercept:
        return warning(f"no intercepts: you may not {_sentences(facts.intercept)}", _way_out(facts))
    if facts.ephemeral and facts.patch:
        return warning(f"no intercepts: you may not {_sentences(facts.ephemeral)}", _way_out(facts))
    if facts.ephemeral:
        return ok(f"you may intercept in namespace {facts.namespace} by --strategy patch, which replaces the pods")
    return ok(f"you may intercept in namespace {facts.namespace}")


def _sentences(missing: Sequence[Access]) -> str:
    return first_few([each.sentence() for each in missing], _SHOWN)


def _way_out(facts: RightsFacts, *options: str) -> str:
    words = ["meshdev rbac", "-n", facts.namespace]
    if facts.manager_namespace != facts.namespace:
        words += ["--manager-namespace", facts.manager_namespace]
    if facts.preinstalled:
        words.append("--preinstalled")
    if facts.user.startswith(_SERVICE_ACCOUNT):
        words += ["--serviceaccount", facts.user.removeprefix(_SERVICE_ACCOUNT)]
    else:
        words += ["--user", _quoted(facts.user or "YOU")]
    return f"ask an administrator for: {' '.join([*words, *options])} | kubectl apply -f -"


def _quoted(text: str) -> str:
    """For a shell."""
    return (
        text
        if all(letter.isalnum() or letter in "@._-:" for letter in text)
        else "'" + text.replace("'", "'\\''") + "'"
    )
