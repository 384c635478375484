"""Rules compared with the calls that were made: whether they are enough, and whether each of them is needed."""

from collections.abc import Callable, Mapping

from meshdev.config import MANAGER_NAME
from meshdev.kube.access import Access
from meshdev.kube.rbac import Rule

#: By namespace.
Rules = Mapping[str, tuple[Rule, ...]]


def allowed(needed: Rules) -> Callable[[Access], bool]:
    return lambda asked: (
        asked.resource == "selfsubjectaccessreviews"  # system:basic-user: everybody may ask
        or any(rule.allows(asked) for rule in needed.get(asked.namespace, ()))
    )


def superfluous(needed: Rules, asked: set[Access]) -> set[tuple[str, ...]]:
    """Verbs without which all that was *asked* would be allowed, too, by another rule or because nothing asked."""
    return {
        (namespace, rule.resource, verb, *rule.names)
        for namespace, rules_there in needed.items()
        for rule in rules_there
        for verb in rule.verbs
        if not any(
            each.namespace == namespace
            and each.verb == verb
            and [other for other in rules_there if other.allows(each)] == [rule]
            for each in asked
        )
    }


def too_broad(needed: Rules, asked: set[Access]) -> set[tuple[str, str, str]]:
    """Verbs of rules without names that were asked of the manager's own objects only: their names are known."""
    found = set()
    for namespace, rules_there in needed.items():
        for rule in (each for each in rules_there if not each.names):
            for verb in rule.verbs:
                asks = [each for each in asked if (each.namespace, each.verb) == (namespace, verb)]
                if {each.name for each in asks if rule.allows(each)} == {MANAGER_NAME}:
                    found.add((namespace, rule.resource, verb))
    return found
