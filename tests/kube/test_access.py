"""Requests as RBAC reads them."""

import pytest

from meshdev.kube.access import Access, access


@pytest.mark.parametrize(
    ("method", "path", "query", "expected"),
    [
        ("GET", "/api/v1/namespaces/a/pods", {}, Access("list", "", "pods", "a")),
        ("GET", "/api/v1/namespaces/a/pods", {"watch": "1"}, Access("watch", "", "pods", "a")),
        ("GET", "/api/v1/namespaces/a/pods/p", {}, Access("get", "", "pods", "a", "p")),
        ("POST", "/api/v1/namespaces/a/pods/p/portforward", {}, Access("create", "", "pods/portforward", "a", "p")),
        ("GET", "/api/v1/namespaces/a/pods/p/portforward", {}, Access("get", "", "pods/portforward", "a", "p")),
        ("POST", "/apis/apps/v1/namespaces/a/deployments", {}, Access("create", "apps", "deployments", "a")),
        ("PUT", "/apis/apps/v1/namespaces/a/deployments/d", {}, Access("update", "apps", "deployments", "a", "d")),
        ("DELETE", "/apis/apps/v1/namespaces/a/deployments/d", {}, Access("delete", "apps", "deployments", "a", "d")),
        ("GET", "/api/v1/nodes", {}, Access("list", "", "nodes")),
        ("GET", "/api/v1/namespaces/a", {}, Access("get", "", "namespaces", "", "a")),
        ("GET", "/api", {}, Access("get", "", "/api")),
        (
            "GET",
            "/apis/apps/v1/namespaces/a/deployments",
            {"watch": "1", "fieldSelector": "metadata.name=d"},
            Access("watch", "apps", "deployments", "a", "d"),
        ),
    ],
)
def test_a_request_is_a_question_to_the_authorizer(
    method: str, path: str, query: dict[str, str], expected: Access
) -> None:
    assert access(method, path, query) == expected


def test_it_can_be_said_and_asked_for() -> None:
    asked = Access("list", "discovery.k8s.io", "endpointslices", "team-1")
    assert asked.sentence() == "list endpointslices.discovery.k8s.io in namespace team-1"
    assert asked.rule() == ('- apiGroups: ["discovery.k8s.io"]\n  resources: ["endpointslices"]\n  verbs: ["list"]')
    assert Access("list", "", "nodes").sentence() == "list nodes in the whole cluster"
