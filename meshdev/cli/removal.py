"""Ask the manager for its sessions, then remove it: ``uninstall`` in the cluster."""

import os
import secrets
from typing import Final

from meshdev.config import OLDEST_PROTOCOL, PROTOCOL, TUNNEL_PORT
from meshdev.errors import ManagerBusyError, RefusedError, TunnelError, UnreachableError, VersionError
from meshdev.kube import manager
from meshdev.kube.client import KubeApi
from meshdev.kube.kubeconfig import Options
from meshdev.kube.podstate import ManagerPod
from meshdev.kube.portforward import dial
from meshdev.tunnel.carrier import observe
from meshdev.wire.control import Hello, SessionInfo
from meshdev.wire.framing import CARRIER_KINDS

_DIAL_SECONDS: Final = 5.0


async def remove(options: Options, namespace: str, *, force: bool) -> list[str]:
    """Return what was removed. Raises ManagerBusyError while other sessions are connected, unless *force*."""
    async with await KubeApi.open(options) as api:
        pod = None if force else await manager.find_pod(api, namespace)
        if pod is not None:
            _refuse_if(await _sessions(api, pod))
        return await manager.uninstall(api, namespace)


def _refuse_if(sessions: tuple[SessionInfo, ...]) -> None:
    if sessions:
        names = ", ".join(f"{session.holder} ({session.address})" for session in sessions)
        raise ManagerBusyError(
            f"others are connected through this manager: {names}",
            hint="ask them to run meshdev disconnect, or disconnect them with --force",
        )


async def _sessions(api: KubeApi, pod: ManagerPod) -> tuple[SessionInfo, ...]:
    hello = Hello(
        oldest=OLDEST_PROTOCOL,
        newest=PROTOCOL,
        session=secrets.token_hex(16),
        secret=secrets.token_hex(16),
        holder=f"uid {os.getuid()} uninstalling",
        offload=0,
        pools=(),
        observer=True,
    )
    for carrier in CARRIER_KINDS:
        try:
            dialled = await dial(api, pod.namespace, pod.name, TUNNEL_PORT, carrier, _DIAL_SECONDS)
            return (await observe(dialled, hello)).sessions
        except (TunnelError, UnreachableError) as error:
            # Not every network passes every carrier. An answer of the manager itself is final.
            if carrier == CARRIER_KINDS[-1] or isinstance(error, UnreachableError | VersionError | RefusedError):
                raise ManagerBusyError(
                    f"cannot find out who is connected through the manager: {error.message}",
                    hint="remove it anyway with --force",
                ) from error
    raise AssertionError  # pragma: no cover -- the last carrier returned or raised
