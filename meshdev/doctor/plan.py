"""All checks, and one run of them."""

from collections.abc import Callable

from meshdev.doctor.checks import kubeconfig, leftovers, machine, manager, network, target
from meshdev.doctor.checks.facts import DoctorFacts, Question
from meshdev.doctor.runner import examine
from meshdev.doctor.verdicts.finding import Examined

#: In the order in which they are shown.
_GROUPS = (kubeconfig, manager, target, machine, network, leftovers)


async def diagnose(question: Question, waiting: Callable[[str], None]) -> tuple[Examined, ...]:
    """Make every check; *waiting* is told what takes long. Raises nothing that a check does."""
    facts = DoctorFacts(question)
    try:
        return await examine([check for group in _GROUPS for check in group.checks(facts)], waiting)
    finally:
        await facts.close()
