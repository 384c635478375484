"""What of a pod's spec are requests of the kubelet."""

from typing import Any

from meshdev.sidecar.agent.settings import settings
from meshdev.sidecar.join.container import container
from meshdev.sidecar.probes import probes
from meshdev.wire.agent import Probe
from tests.sidecar.agent.test_settings import GOOD
from tests.sidecar.join.conftest import SPEC

POD: dict[str, Any] = {
    "spec": {
        "containers": [
            {
                "name": "app",
                "ports": [{"name": "web", "containerPort": 8080}, {"containerPort": 9090}],
                "livenessProbe": {"httpGet": {"port": "web", "path": "/live?full=1"}},
                "readinessProbe": {"httpGet": {"port": 9090}},
                "startupProbe": {"grpc": {"port": 50051, "service": "x"}},
            },
            {
                "name": "other",
                "livenessProbe": {"httpGet": {"port": 8081, "path": "ok", "scheme": "HTTPS"}},
                "readinessProbe": {
                    "httpGet": {"port": 8082, "path": "ok", "httpHeaders": [{"name": "USER-AGENT", "value": "mine"}]}
                },
                "startupProbe": {"tcpSocket": {"port": 8083}},
            },
            {"name": "third", "livenessProbe": {"exec": {"command": ["true"]}}},
            {"name": "fourth", "livenessProbe": {"httpGet": {"port": "nowhere", "path": "/"}}},
            {"name": "fifth", "livenessProbe": {"httpGet": {"port": 8084, "host": "10.0.0.1"}}},
            {
                "name": "sixth",
                "lifecycle": {
                    "preStop": {"httpGet": {"port": 8087, "path": "/quit"}},
                    "postStart": {"exec": {"command": ["true"]}},
                },
            },
        ],
        "initContainers": [
            {"name": "native", "restartPolicy": "Always", "startupProbe": {"httpGet": {"port": 8085, "path": "/n"}}},
            {"name": "once", "startupProbe": {"httpGet": {"port": 8086}}},
        ],
    }
}
FOUND = (
    Probe(8080, "/live"),
    Probe(8082, "/ok", "mine"),
    Probe(8085, "/n"),
    Probe(8087, "/quit", "kube-lifecycle/"),
    Probe(9090, "/"),
    Probe(50051, "/grpc.health.v1.Health/Check"),
)


def test_probes_of_a_pod() -> None:
    assert probes(POD) == FOUND
    assert probes({"spec": {}}) == ()


def test_the_agent_reads_what_is_written_into_its_environment() -> None:
    environment = {each["name"]: each.get("value", "") for each in container(SPEC, "meshdev-1", POD)["env"]}
    assert settings({**GOOD, "MESHDEV_PROBES": environment["MESHDEV_PROBES"]}).probes == FOUND
