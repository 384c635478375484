"""The environment of ``run --env-from``: this machine's, overlaid by that of a workload's container."""

import os
from collections.abc import Mapping

from meshdev.cli import api, options
from meshdev.cli import workload_reading as reading
from meshdev.environment.local import overlaid
from meshdev.state import Paths


def environment(
    paths: Paths, cluster: options.ClusterFlags, namespace: str | None, target: str, container: str | None
) -> Mapping[str, str]:
    """What the program gets; what is missing of it, and what is not taken, is noted on stderr.

    *namespace* of the target; without one that of the connection there is, else the context's.
    """
    found = reading.read_variables(cluster.options(namespace or _connected(paths)), target, container)
    made, kept = overlaid(os.environ, found.variables.values)
    taken = len(found.variables.values) - len(kept)
    of_the_machine = f"; {', '.join(kept)} as on this machine" if kept else ""
    reading.note(f"{taken} environment variables of {found.where}{of_the_machine}")
    reading.note_missing(found.variables.missing)
    return made


def _connected(paths: Paths) -> str | None:
    found = api.find(paths)
    return found.status.namespace if found and found.status else None
