"""How long it takes from the command to the first intercepted request, as a client inside the cluster sees it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from bench import target
from bench.client import Asking, asked, now, wrong
from bench.figures import Figure
from bench.target import INTERCEPTED, LOCAL, NAMESPACE, ORIGINAL, PORT_FLAG
from bench.ways import meshdev

_HEADERS: Final = (("a", "1"),)
#: New connections: those that are older than a sidecar never meet it. More of them would slow down what is measured.
_PAUSE_SECONDS: Final = 0.01


def measure(workloads: Sequence[str]) -> dict[str, Figure]:
    """For each workload, whose pods have no sidecar yet: intercepted cold, left, and intercepted again."""
    figures: dict[str, Figure] = defaultdict(Figure)
    for workload in workloads:
        before = target.pods(workload)
        addresses = [(pod.address, INTERCEPTED) for pod in before]
        with asked(addresses, _HEADERS, keep=False, pause=_PAUSE_SECONDS) as asking:
            for kind in ("cold", "warm"):
                _intercept(workload, kind, asking, figures)
                meshdev("leave", f"deployment/{workload}", "-n", NAMESPACE)
                asking.wait(ORIGINAL, now())
        entered = {(pod.uid, pod.restarts) for pod in target.pods(workload)}
        figures["restarts"].values.append(len(entered ^ {(pod.uid, pod.restarts) for pod in before}))
        figures["restarts"].requests += len(asking.rows)
        figures["restarts"].wrong += wrong(asking.rows)
    return dict(figures)


def _intercept(workload: str, kind: str, asking: Asking, figures: dict[str, Figure]) -> None:
    seen, since = len(asking.rows), now()
    meshdev("mesh", f"deployment/{workload}", "-n", NAMESPACE, "-H", "a=1", "--port", PORT_FLAG, "--detach")
    returned = now() - since
    asking.wait(LOCAL, since)
    rows = asking.rows[seen:]
    answered = [(row.to, row.end - since) for row in rows if row.said == LOCAL]
    firsts = [min(seconds for to, seconds in answered if to == each) for each in range(asking.addresses)]
    for name, value in (
        (f"first intercepted request, {kind}, s", min(firsts)),
        (f"intercepted in every pod, {kind}, s", max(firsts)),
        (f"command returns, {kind}, s", returned),
    ):
        figures[name].values.append(value)
        figures[name].requests += len(rows)
        figures[name].wrong += wrong(rows)
