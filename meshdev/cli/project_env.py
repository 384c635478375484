"""The environment of each process of a project: this machine's, that of a workload where one is named, and its own."""

import os
from collections.abc import Mapping

from meshdev.project.model import Project
from meshdev.state import Paths


def environments(session: Paths, project: Project) -> dict[str, Mapping[str, str]]:
    """By the processes' names. Workloads are read with the user's rights; raises what keeps that."""
    targets = dict.fromkeys(each.env_from for each in project.processes if each.env_from is not None)
    read = _of_workloads(session, project, list(targets)) if targets else {}
    return {
        each.name: {**(os.environ if each.env_from is None else read[each.env_from]), **dict(each.env)}
        for each in project.processes
    }


def _of_workloads(session: Paths, project: Project, targets: list[str]) -> dict[str, Mapping[str, str]]:
    """Over this machine's environment, by target; each is read once."""
    from meshdev.cli import workload_program  # noqa: PLC0415 -- the Kubernetes client: where it is needed
    from meshdev.kube.kubeconfig import Options  # noqa: PLC0415 -- the same

    wanted = project.connection
    given = Options(
        kubeconfig=wanted.kubeconfig,
        context=wanted.context,
        namespace=wanted.namespace,
        as_user=wanted.as_user,
        request_timeout=wanted.request_timeout,
        ssh=wanted.ssh,
    )
    cluster = workload_program.where(session, given, wanted)
    return {target: workload_program.laid_over(cluster, target) for target in targets}
