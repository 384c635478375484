"""The kubeconfig and the API server."""

import pytest

from meshdev.doctor.verdicts import cluster, kubeconfig
from meshdev.doctor.verdicts.cluster import ReachedServer
from meshdev.doctor.verdicts.kubeconfig import CredentialFacts, SecretFile

ME = 1000


@pytest.mark.parametrize(
    ("mode", "uid", "state", "hint"),
    [
        (0o600, ME, "ok", None),
        (0o600, 0, "ok", None),
        (0o640, ME, "warning", "chmod go-r /k"),
        (0o604, ME, "warning", "chmod go-r /k"),
        (0o666, ME, "failed", "chmod go-w /k"),
        (0o620, ME, "failed", "chmod go-w /k"),
        (0o600, 1001, "warning", "sudo chown 1000 /k"),
    ],
)
def test_who_may_read_and_write_it(mode: int, uid: int, state: str, hint: str | None) -> None:
    found = kubeconfig.permissions([SecretFile("/ok", 0o600, ME), SecretFile("/k", mode, uid)], ME)
    assert (found.state, found.hint) == (state, hint)


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (CredentialFacts("a client certificate"), "ok", "a client certificate"),
        (CredentialFacts("the plugin aws", plugin=True, seconds=0.4), "ok", "the plugin aws (0.4 s)"),
        (CredentialFacts("the plugin aws", plugin=True, seconds=3.2), "warning", "took 3.2 s"),
        (CredentialFacts("a token", left=3600), "ok", "a token"),
        (CredentialFacts("a token", left=60), "warning", "runs out in 60 s"),
        (CredentialFacts("a token", left=-60), "warning", "runs out in 0 s"),
        (CredentialFacts("the plugin aws", plugin=True, left=60), "ok", "the plugin"),
        (CredentialFacts(""), "warning", "anonymous"),
    ],
)
def test_credentials(facts: CredentialFacts, state: str, words: str) -> None:
    found = kubeconfig.credentials(facts)
    assert found.state == state
    assert words in found.detail


@pytest.mark.parametrize(
    ("secure", "verified", "state", "words"),
    [
        (True, True, "ok", "https://x:6443 answers in 12 ms"),
        (True, False, "warning", "insecure-skip-tls-verify"),
        (False, True, "warning", "without TLS"),
    ],
)
def test_the_way_to_the_api_server(secure: bool, verified: bool, state: str, words: str) -> None:
    found = cluster.reached(ReachedServer("https://x:6443", secure, verified, 0.012))
    assert found.state == state
    assert words in found.detail


@pytest.mark.parametrize(
    ("server", "kubelets", "state", "words"),
    [
        ("v1.35.1", ["v1.35.1", "v1.32.0"], "ok", "Kubernetes v1.35.1"),
        ("v1.33.0+k3s1", None, "ok", "Kubernetes v1.33.0+k3s1"),
        ("v1.36.0", None, "ok", "tested on 1.32 to 1.35"),
        ("v1.28.3", None, "ok", "--strategy patch needs 1.29"),
        ("v1.24.0", None, "warning", "proxy and mesh need"),
        ("v1.35.0", ["v1.31.9"], "warning", "a node has v1.31.9"),
        ("v1.34.0", ["v1.35.0"], "warning", "a node has v1.35.0"),
        ("v1.34.0", ["unknown"], "ok", "Kubernetes"),
        ("None", None, "warning", "unknown version 'None'"),
    ],
)
def test_versions(server: str, kubelets: list[str] | None, state: str, words: str) -> None:
    found = cluster.version(server, kubelets)
    assert found.state == state
    assert words in found.detail


@pytest.mark.parametrize(
    ("ahead", "state", "words"),
    [
        (None, "skipped", "no date"),
        (0.4, "ok", "agrees"),
        (-30.0, "ok", "agrees"),
        (31.0, "warning", "31 s ahead of"),
        (-90.0, "warning", "90 s behind"),
    ],
)
def test_clocks(ahead: float | None, state: str, words: str) -> None:
    found = cluster.clock(ahead)
    assert found.state == state
    assert words in found.detail
