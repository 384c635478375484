"""The workload's token (docs/design/0008): a Secret that is owned by the workload and made by the first session.

Who can read it may intercept the workload: sessions show it to the manager as its sha256, sidecars get it from the
Secret. Whoever may add ephemeral containers could read every Secret of the namespace anyway, so the right to read
them is no more than that.
"""

import base64
import binascii
import hashlib
import re
import secrets
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from meshdev.config import FIELD_MANAGER
from meshdev.errors import InterceptError
from meshdev.intercept.lease import UID_LABEL, owner
from meshdev.intercept.spec import Workload
from meshdev.kube.client import KubeApi, Object, secrets_path
from meshdev.kube.errors import ConflictError, NotFoundError

KEY: Final = "token"
_TOKEN: Final = re.compile(r"[0-9a-f]{64}")
_ATTEMPTS: Final = 5


@dataclass(frozen=True)
class Token:
    """A workload's token; *created* by this very call. *uid* is the Secret's."""

    namespace: str
    secret: str
    uid: str
    value: str = field(repr=False)
    created: bool

    @property
    def key(self) -> str:
        """What the manager knows the workload by."""
        return hashlib.sha256(self.value.encode()).hexdigest()


def name_of(workload: Workload) -> str:
    """The Secret's name: two workloads of the same name after each other do not share one."""
    return f"meshdev-{hashlib.sha256(workload.uid.encode()).hexdigest()[:40]}"


async def ensure(api: KubeApi, workload: Workload, wanted: str | None = None) -> Token:
    """The workload's token; where there is none it is made, of *wanted* or of 256 random bits.

    A session that holds a token gives it as *wanted*: sidecars that run keep the one they started with.
    """
    path = secrets_path(workload.namespace, name_of(workload))
    for _ in range(_ATTEMPTS):
        with suppress(NotFoundError):
            return _read(workload, await api.get(path))
        with suppress(ConflictError):  # another session was quicker: its token counts
            body = _secret(workload, wanted or secrets.token_hex(32))
            return _read(workload, await api.create(secrets_path(workload.namespace), body), created=True)
    raise InterceptError(f"the Secret {name_of(workload)} of {workload} comes and goes", hint="try again")


async def undo(api: KubeApi, token: Token) -> None:
    """Delete the Secret that :func:`ensure` created; nothing where it did not, or where it is another by now."""
    if token.created:
        with suppress(NotFoundError, ConflictError):
            await api.delete(secrets_path(token.namespace, token.secret), uid=token.uid)


def _secret(workload: Workload, value: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "immutable": True,
        "metadata": {
            "name": name_of(workload),
            "namespace": workload.namespace,
            "labels": {"app.kubernetes.io/managed-by": FIELD_MANAGER, UID_LABEL: workload.uid},
            "ownerReferences": [owner(workload)],
        },
        "data": {KEY: base64.b64encode(value.encode()).decode()},
    }


def _read(workload: Workload, there: Object, *, created: bool = False) -> Token:
    metadata = there["metadata"]
    try:
        value = base64.b64decode((there.get("data") or {}).get(KEY) or "", validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError, TypeError):
        value = ""
    if _TOKEN.fullmatch(value) is None:
        raise InterceptError(
            f"the Secret {metadata['name']} in namespace {workload.namespace} holds no token of meshdev's",
            hint=f"kubectl -n {workload.namespace} delete secret {metadata['name']}",
        )
    return Token(workload.namespace, metadata["name"], metadata["uid"], value, created)
