"""env, pull and run --env-from against what a real kubelet made: the same variables and files, and who sees them."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e import pods, workloads
from tests.e2e.accounts import account, binding, kubeconfig
from tests.e2e.conftest import Laptop, kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

NAMESPACE: Final = "environment"
PASSWORD: Final = 'it\'s "hunter2" \\ $(HOME) `x`\n#é'  # noqa: S105 -- of this test
TOKENS: Final = "/var/run/secrets"
CONF: Final = {"LINES": "1\n2", "a.b-c": "$(POD)", "URL": "http://$(POD)/", "file.yaml": "a: é\n"}


def _from(kind: str, **selector: str | bool) -> dict[str, Any]:
    return {"valueFrom": {kind: selector}}


ENV: Final[dict[str, dict[str, Any]]] = {
    "EARLY": {"value": "$(POD) $(LINES)"},
    "POD": _from("fieldRef", fieldPath="metadata.name"),
    "ESCAPES": {"value": "$(POD)-$$(POD)-$$$(POD)-$(NONE)-$(-${POD}-$-$é"},
    "EMPTY": {},
    "PASSWORD": _from("secretKeyRef", name="db", key="password"),
    "DSN": {"value": "db://$(PASSWORD)@$(WEB_SERVICE_HOST):$(WEB_SERVICE_PORT)"},
    "NO_KEY": _from("configMapKeyRef", name="conf", key="none", optional=True),
    "NO_MAP": _from("secretKeyRef", name="none", key="none", optional=True),
    "WEB_PORT": {"value": "mine"},
    **{
        name: _from("fieldRef", fieldPath=path)
        for name, path in {
            "UID_OF_POD": "metadata.uid",
            "NS": "metadata.namespace",
            "LABEL": "metadata.labels['app']",
            "HASH": "metadata.labels['pod-template-hash']",
            "NOTE": "metadata.annotations['example.com/note']",
            "NO_NOTE": "metadata.annotations['none']",
            "NODE": "spec.nodeName",
            "ACCOUNT": "spec.serviceAccountName",
            "IP": "status.podIP",
            "IPS": "status.podIPs",
            "HOST_IP": "status.hostIP",
            "HOST_IPS": "status.hostIPs",
        }.items()
    },
    **{
        name: _from("resourceFieldRef", resource=resource, divisor=divisor)
        for name, resource, divisor in (
            ("CPU", "limits.cpu", "1"),
            ("CPU_M", "limits.cpu", "1m"),
            ("CPU_REQUEST", "requests.cpu", "1m"),
            ("MEMORY", "limits.memory", "1Mi"),
            ("MEMORY_BYTES", "limits.memory", "0"),
            ("MEMORY_REQUEST", "requests.memory", "1Gi"),
            ("STORAGE", "limits.ephemeral-storage", "1Gi"),
        )
    },
}
#: The last two refer to names that are defined nowhere before them, and nobody knows what is in Secret none.
OF_SECRETS: Final = {"PASSWORD", "DSN", "S_password", "EARLY", "ESCAPES"}
OF_THE_NODE: Final = {"MEMORY", "MEMORY_BYTES", "STORAGE"}

PROJECTED: Final = [
    {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 1200}},
    {"configMap": {"name": "conf", "items": [{"key": "file.yaml", "path": "deep/er/file", "mode": 0o440}]}},
    {"secret": {"name": "db", "items": [{"key": "binary", "path": "binary", "mode": 0o755}]}},
    {
        "downwardAPI": {
            "items": [{"path": "cpu", "resourceFieldRef": {"containerName": "web", "resource": "limits.cpu"}}]
        }
    },
]
VOLUMES: Final[list[dict[str, Any]]] = [
    {"name": "conf", "configMap": {"name": "conf", "defaultMode": 0o640}},
    {"name": "db", "secret": {"secretName": "db", "defaultMode": 0o444}},
    {"name": "all", "projected": {"sources": PROJECTED}},
    {
        "name": "fields",
        "downwardAPI": {
            "items": [
                {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                {"path": "notes", "fieldRef": {"fieldPath": "metadata.annotations"}},
            ]
        },
    },
    {"name": "none", "secret": {"secretName": "none", "optional": True}},
    {"name": "tmp", "emptyDir": {}},
]
MOUNTS: Final = [
    {"name": "conf", "mountPath": "/mnt/conf"},
    {"name": "db", "mountPath": "/mnt/conf/inner"},
    {"name": "db", "mountPath": "/mnt/one", "subPath": "password"},
    {"name": "conf", "mountPath": "/mnt/expr", "subPathExpr": "$(LABEL_OF_FILE)"},
    {"name": "all", "mountPath": "/mnt/all"},
    {"name": "all", "mountPath": "/mnt/deep", "subPath": "deep"},
    {"name": "fields", "mountPath": "/mnt/fields"},
    {"name": "none", "mountPath": "/mnt/none"},
    {"name": "tmp", "mountPath": "/mnt/tmp"},
]

#: Files below the folders that it is given, as the app sees them: path → mode and content.
_FILES: Final = """
import base64, json, os, sys
found = {}
for top in sys.argv[1:]:
    for folder, folders, files in os.walk(top, followlinks=True):
        folders[:] = [each for each in folders if not each.startswith("..")]
        for name in files:
            path = os.path.join(folder, name)
            content = base64.b64encode(open(path, "rb").read()).decode()
            found[path] = [os.stat(path).st_mode & 0o7777, content]
print(json.dumps(found))
"""
#: What a program has, and every command line on this machine that has the password in it, except its own.
_PROGRAM: Final = """
import glob, json, os
lines = []
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        lines.append(open(path, "rb").read().decode(errors="replace"))
    except OSError:
        pass
print(json.dumps({"environment": dict(os.environ), "seen": [each for each in lines if os.environ["PASSWORD"] in each],
                  "ours": sum("meshdev" in each for each in lines)}))
"""


@dataclass(frozen=True)
class Real:
    """What the kubelet made."""

    pod: str
    environment: dict[str, str]
    bare: dict[str, str]
    """Of a container of the same image that declares nothing, without Services' variables."""


def manifests() -> list[dict[str, Any]]:
    app = workloads.http("web")
    made = workloads.of(app, NAMESPACE, volumes=VOLUMES, serviceAccountName="web", automountServiceAccountToken=True)
    container = workloads.container(made[0])
    container["envFrom"] = [
        {"configMapRef": {"name": "conf"}},
        {"secretRef": {"name": "db-text"}, "prefix": "S_"},
        {"secretRef": {"name": "none", "optional": True}},
    ]
    container["env"] = [
        *({"name": name, **source} for name, source in ENV.items()),
        {"name": "LABEL_OF_FILE", "value": "file.yaml"},
    ]
    container["resources"] = {"limits": {"cpu": "1500m"}, "requests": {"memory": "50M"}}
    container["volumeMounts"] = MOUNTS
    template = made[0]["spec"]["template"]
    template["metadata"].setdefault("annotations", {})["example.com/note"] = 'a "note"\n'
    bare = {
        "name": "bare",
        "image": container["image"],
        "imagePullPolicy": "Never",
        "args": ["--name=x", "--port=8081"],
    }
    template["spec"]["containers"] = [bare, container]
    template["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"] = container["name"]

    def meta(name: str) -> dict[str, str]:
        return {"name": name, "namespace": NAMESPACE}

    def encoded(value: bytes) -> str:
        return base64.b64encode(value).decode()

    secret = {"password": encoded(PASSWORD.encode()), "binary": encoded(b"\0\xff")}
    text = {"password": secret["password"]}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("conf"), "data": CONF},
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta("db"), "data": secret},
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta("db-text"), "data": text},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("web")},
        *reversed(made),  # its Service first: the kubelet takes variables of those it knows
    ]


@pytest.fixture(scope="module")
def real(cluster: None) -> Iterator[Real]:  # noqa: ARG001 -- for its effect
    with workloads.namespace(NAMESPACE, *manifests()):
        pod = pods.pods(NAMESPACE, "app=web")[0]["metadata"]["name"]
        bare = {
            name: value
            for name, value in _environ(pod, "bare").items()
            if "_PORT" not in name and "_SERVICE_" not in name
        }
        yield Real(pod, _environ(pod, "web"), bare)


def _environ(pod: str, container: str) -> dict[str, str]:
    raw = kubectl("-n", NAMESPACE, "exec", pod, "-c", container, "--", "cat", "/proc/1/environ")
    return dict(each.split("=", 1) for each in raw.rstrip("\0").split("\0"))


def declared(real: Real) -> dict[str, str]:
    """Without what the image sets and the runtime adds."""
    assert real.bare.keys() <= {"PATH", "HOSTNAME", "HOME", "PYTHONPATH", "PYTHONUNBUFFERED"}
    return {name: value for name, value in real.environment.items() if name not in real.bare}


@pytest.fixture
def jane(real: Real, tmp_path: Path) -> Iterator[str]:
    """The kubeconfig of a user with ClusterRole view: all of the namespace but Secrets, no nodes, no tokens."""
    assert real.pod
    with account("jane", binding("jane", NAMESPACE, "ClusterRole", "view")):
        yield kubeconfig(tmp_path, "jane", NAMESPACE)


def test_the_variables_are_the_containers(real: Real, dev: Laptop) -> None:
    found = dev.run("meshdev", "env", "deployment/web", "-n", NAMESPACE, "--format", "json", "--strict")
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout) == declared(real)
    assert declared(real)["PASSWORD"] == PASSWORD
    bare = json.loads(dev.meshdev("env", f"pod/{real.pod}", "-n", NAMESPACE, "-c", "bare", "-o", "json"))
    assert bare["KUBERNETES_SERVICE_HOST"] == real.environment["KUBERNETES_SERVICE_HOST"]
    script = f'eval "$(meshdev env svc/web -n {NAMESPACE} --format shell --strict 2>/dev/null)"; printf %s "$DSN"'
    assert dev.ok("sh", "-c", script) == real.environment["DSN"]


def test_what_a_user_may_not_read_is_named(real: Real, laptop: Laptop, jane: str) -> None:
    asked = ("meshdev", "env", "deployment/web", "--kubeconfig", jane, "--format", "json")
    found = laptop.run(*asked)
    assert found.returncode == 0, found.stderr
    missing = {name for name in real.environment if name.startswith("KUBERNETES_")} | OF_SECRETS | OF_THE_NODE
    assert json.loads(found.stdout) == {name: value for name, value in declared(real).items() if name not in missing}
    for line in (
        "PASSWORD (key password of Secret db): you (system:serviceaccount:team-1:jane) may not get secrets",
        "S_* (Secret db-text): ",
        "MEMORY (resourceFieldRef limits.memory): ",
        "KUBERNETES_* (Service kubernetes of namespace default): ",
    ):
        assert f"note: not read: {line}" in found.stderr
    strict = laptop.run(*asked, "--strict")
    assert (strict.returncode, json.loads(strict.stdout)["error"]["code"]) == (20, "forbidden")


def test_files_are_those_of_the_container(real: Real, dev: Laptop) -> None:
    tops = ["/mnt", TOKENS]
    there = json.loads(kubectl("-n", NAMESPACE, "exec", real.pod, "-c", "web", "--", "python3", "-c", _FILES, *tops))
    folder = dev.ok("sh", "-c", 'mktemp -d -p "$HOME"').strip()
    try:
        pulled = dev.run("meshdev", "pull", "deployment/web:/", folder, "-n", NAMESPACE, "-o", "json")
        assert pulled.returncode == 0, pulled.stderr
        assert [each["what"] for each in json.loads(pulled.stdout)["missing"]] == ["/mnt/tmp"]
        # /mnt/one is a file that is mounted; os.walk of a folder finds it there, too.
        here = json.loads(dev.ok("python3", "-c", _FILES, f"{folder}/mnt", f"{folder}{TOKENS}"))
        here = {path.removeprefix(folder): what for path, what in here.items()}
        assert here.keys() == there.keys()
        secret = {path for path in here if path.endswith(("/token", "/binary", "/password", "/one"))}
        assert len(secret) == 6
        for path in here:
            mode, content = there[path]
            assert here[path][0] == (mode & 0o700 if path in secret else mode), path
            if path.endswith("/token"):
                assert _claims(here[path][1]) == _claims(content)
            else:
                assert _text(here[path][1]) == _text(content), path
        one = f"{folder}/one"
        dev.meshdev("pull", "deployment/web:/mnt/conf/inner/password", one, "-n", NAMESPACE, "--strict")
        assert dev.ok("cat", f"{one}/password") == PASSWORD
        assert dev.ok("stat", "-c", "%a %U", one, f"{one}/password").split() == ["700", "dev", "400", "dev"]
    finally:
        dev.run("rm", "-rf", folder)


def _text(content: str) -> list[bytes]:
    """Without the annotations that the kubelet keeps to itself: the API server does not have them."""
    lines = base64.b64decode(content).split(b"\n")
    return [line for line in lines if not line.startswith(b"kubernetes.io/config.")]


def _claims(content: str) -> tuple[Any, ...]:
    """Whose token it is, for whom, of which pod, and for how long."""
    payload = base64.b64decode(content).decode().split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    named = {key: value for key, value in claims["kubernetes.io"].items() if key != "warnafter"}
    return claims["sub"], claims["aud"], named


@pytest.mark.parametrize("via", ["rootless", "helper"])
def test_a_program_has_them_and_nobody_sees_them(real: Real, laptop: Laptop, via: str) -> None:
    words = ("--via", via, "--env-from", "deployment/web", "-n", NAMESPACE, "--", "python3", "-c", _PROGRAM)
    ran = laptop.run("meshdev", "run", *words, timeout=90)
    assert ran.returncode == 0, ran.stderr
    has = json.loads(ran.stdout)
    assert has["environment"].items() >= declared(real).items()
    assert has["environment"].get("HOSTNAME") != real.pod
    assert has["ours"] >= 2, "session and helper were looked at"
    assert has["seen"] == []
    assert "hunter2" not in ran.stderr + laptop.log()
