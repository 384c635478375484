"""Credentials of every kind, planted wherever a bug report looks: none may be in it."""

import secrets
from collections.abc import Iterator
from typing import Any, Final

from tests.e2e.credentials import Credential, credentials
from tests.kube.objects import pod, workload

Object = dict[str, Any]

KINDS: Final = credentials("X-Claimed-Token")


def _secret() -> str:
    return secrets.token_hex(16)


#: By where it is planted.
TOKEN, PASSWORD, KEY, EXEC = _secret(), _secret(), _secret(), _secret()
ENVIRONMENT, ARGUMENT, ANNOTATION, PROBE, OUTPUT, HEADERS = (_secret() for _ in range(6))
ALL: Final = (TOKEN, PASSWORD, KEY, EXEC, ENVIRONMENT, ARGUMENT, ANNOTATION, PROBE, OUTPUT, HEADERS)


def seen_in(text: str, kinds: tuple[Credential, ...] = KINDS) -> list[str]:
    """What of them is there."""
    found = [kind.name for kind in kinds if kind.seen_in(text)]
    return found + [secret for secret in ALL if secret[:10] in text or secret[-10:] in text]


def log_lines() -> Iterator[str]:
    """Lines as somebody's program, or a careless one of ours, could write them."""
    begin = "2026-11-29 19:15:34,123 INFO meshdev.session.health: "
    for kind in KINDS:
        target = f"http://{kind.authority or 'b'}{kind.path}{kind.target}"
        yield f"{begin}GET {target}"
        for name, value in kind.headers.items():
            yield f"{begin}{name}: {value}"
            yield f"{name}: {value}"
            yield f'{{"{name}": "{value}"}}'
    for where in (f"--token {TOKEN}", f"--token={TOKEN}", f"password: {PASSWORD}", f"https://u:{PASSWORD}@b/"):
        yield f"{begin}{where}"
    # What the kubeconfig has is masked by itself, whatever stands before it.
    yield f"{begin}it was {EXEC}, and {KEY}"


def users() -> list[Object]:
    return [
        {"name": "u", "user": {"token": TOKEN, "username": "jane", "password": PASSWORD, "client-key-data": KEY}},
        {
            "name": "other",
            "user": {"exec": {"command": "x", "args": ["--secret", EXEC], "env": [{"name": "S", "value": EXEC}]}},
        },
    ]


def careless_pod(name: str) -> Object:
    """An app's pod with credentials in all its fields, with a sidecar of ours."""
    made = pod(name, workload())
    made["metadata"]["annotations"] = {"last-applied": ANNOTATION}
    made["metadata"]["labels"]["token"] = ANNOTATION
    header = {"name": "Authorization", "value": PROBE}
    app: Object = {
        **made["spec"]["containers"][0],
        "env": [{"name": "PASSWORD", "value": ENVIRONMENT}],
        "args": ["--password", ARGUMENT],
        "command": [ARGUMENT],
        "livenessProbe": {"httpGet": {"port": 80, "httpHeaders": [header]}},
        "image": f"u:{ARGUMENT}@registry/app",
    }
    made["spec"]["containers"] = [app]
    made["spec"]["ephemeralContainers"] = [
        {
            "name": "meshdev-1",
            "image": "traffic-manager:1",
            "args": [ARGUMENT],
            "env": [
                {"name": "MESHDEV_MANAGER", "value": "10.96.0.7:15010"},
                {"name": "MESHDEV_PROBES", "value": PROBE},
                {"name": "OTEL_EXPORTER_OTLP_HEADERS", "value": HEADERS},
            ],
        }
    ]
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "message": OUTPUT}}
    running = {"running": {"startedAt": "2026-11-29T19:15:34Z"}}
    made["status"] |= {
        "containerStatuses": [{"name": app["name"], "ready": True, "state": running, "lastState": ended}],
        "ephemeralContainerStatuses": [{"name": "meshdev-1", "state": running, "containerID": "c"}],
        "message": OUTPUT,
    }
    return made


def event(about: str, field: str = "") -> Object:
    """What a probe of *field* printed, or what Kubernetes says about the pod."""
    message = f"Readiness probe failed: {OUTPUT}" if field else "Scheduled to a node"
    return {
        "metadata": {"name": f"{about}.{field[-4:-1]}", "annotations": {"x": ANNOTATION}},
        "type": "Warning",
        "reason": "Unhealthy" if field else "Scheduled",
        "message": message,
        "involvedObject": {"kind": "Pod", "name": about, "fieldPath": field}
        if field
        else {"kind": "Pod", "name": about},
    }
