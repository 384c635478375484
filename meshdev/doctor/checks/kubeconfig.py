"""Kubeconfig, credentials, API server."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from meshdev.doctor.checks.facts import DoctorFacts
from meshdev.doctor.runner import DoctorCheck
from meshdev.doctor.verdicts import cluster, kubeconfig
from meshdev.doctor.verdicts.finding import Finding, ok
from meshdev.doctor.verdicts.kubeconfig import SecretFile
from meshdev.errors import ForbiddenError
from meshdev.kube.kubeconfig import existing_files
from meshdev.kube.watching import listed

GROUP: Final = "Cluster"
#: The API server sends whole seconds: on average its clock was half of one further.
_HALF_SECOND: Final = 0.5


def checks(facts: DoctorFacts) -> tuple[DoctorCheck, ...]:
    """In the order in which a person would look."""

    async def bastion() -> Finding:
        await facts.bastion.get()
        return ok(f"{facts.question.options.ssh} lets you in")

    async def context() -> Finding:
        config = await facts.config.get()
        return kubeconfig.context(config.context, config.namespace, config.server)

    async def permissions() -> Finding:
        config = await facts.config.needed()
        user = [str(config.user[key]) for key in ("client-key", "tokenFile") if config.user.get(key)]
        paths = [*existing_files(facts.question.options), *map(Path, user)]
        return kubeconfig.permissions(await asyncio.to_thread(_secret_files, paths), facts.question.uid)

    async def credentials() -> Finding:
        return kubeconfig.credentials(await facts.credentials.get())

    async def reached() -> Finding:
        return cluster.reached(await facts.server.get())

    async def version() -> Finding:
        found = await facts.api.get("/version")
        return cluster.version(str(found.get("gitVersion")), await _kubelets(facts))

    async def clock() -> Finding:
        there = facts.api.server_time()
        return cluster.clock(None if there is None else time.time() - there - _HALF_SECOND)

    return (
        DoctorCheck("kubeconfig", GROUP, context),
        DoctorCheck("kubeconfig-permissions", GROUP, permissions),
        *([DoctorCheck("ssh", GROUP, bastion, uses=[facts.bastion])] if facts.question.options.ssh else []),
        DoctorCheck("credentials", GROUP, credentials, needs=[facts.config, facts.bastion], uses=[facts.credentials]),
        DoctorCheck("api-server", GROUP, reached, needs=[facts.credentials], uses=[facts.server]),
        DoctorCheck("kubernetes-version", GROUP, version, needs=[facts.server]),
        DoctorCheck("clock", GROUP, clock, needs=[facts.server]),
    )


def _secret_files(paths: list[Path]) -> list[SecretFile]:
    found = []
    for path in paths:
        with suppress(OSError):  # a key that is not there is the credentials' finding
            status = path.stat()
            found.append(SecretFile(str(path), status.st_mode & 0o777, status.st_uid))
    return found


async def _kubelets(facts: DoctorFacts) -> list[str] | None:
    try:
        found, _ = await listed(
            facts.api,
            "/api/v1/nodes",
            {},
            lambda node: str((node["status"].get("nodeInfo") or {}).get("kubeletVersion")),
        )
    except ForbiddenError:
        return None
    return list(found.values())
