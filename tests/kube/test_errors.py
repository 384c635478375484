"""What other people's errors become."""

import errno
import json
import socket
import ssl

import pytest

from meshdev.errors import (
    AdmissionError,
    ClusterError,
    CredentialError,
    ForbiddenError,
    MeshdevError,
    UnreachableError,
    UntrustedError,
)
from meshdev.kube.access import Access
from meshdev.kube.endpoint import Endpoint
from meshdev.kube.errors import ConflictError, GoneError, NotFoundError, from_connection, from_status

CREATE = Access("create", "apps", "deployments", "default")
LIST = Access("list", "", "pods", "default")
SERVER = Endpoint("https://k:6443")
RBAC = (
    'deployments.apps is forbidden: User "dev" cannot create resource "deployments" in API group "apps" '
    'in the namespace "default"'
)
POD_SECURITY = 'pods "m" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities'
WEBHOOK = 'admission webhook "policy.example.com" denied the request: no NET_ADMIN here'
POLICY = "deployments.apps \"m\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"
QUOTA = 'deployments.apps "m" is forbidden: exceeded quota: q, requested: count/deployments.apps=1'


def body(message: str) -> bytes:
    return json.dumps({"kind": "Status", "message": message}).encode()


@pytest.mark.parametrize(
    ("asked", "status", "message", "kind", "words"),
    [
        (CREATE, 403, RBAC, ForbiddenError, "you (dev) may not create deployments.apps in namespace default"),
        (CREATE, 403, POD_SECURITY, AdmissionError, POD_SECURITY),
        (CREATE, 403, QUOTA, AdmissionError, QUOTA),
        (CREATE, 400, WEBHOOK, AdmissionError, WEBHOOK),
        (CREATE, 422, POLICY, AdmissionError, POLICY),
        (CREATE, 500, 'failed calling webhook "p": timeout', AdmissionError, 'failed calling webhook "p": timeout'),
        (LIST, 403, "no idea", ForbiddenError, "you may not list pods in namespace default"),
        (LIST, 401, "Unauthorized", CredentialError, "credentials: Unauthorized"),
        (CREATE, 404, 'namespaces "x" not found', NotFoundError, "there is no namespace x"),
        (LIST, 404, "the server could not find", NotFoundError, "could not list pods"),
        (CREATE, 409, "exists", ConflictError, "exists"),
        (LIST, 410, "too old", GoneError, "too old"),
        (LIST, 400, "Client sent an HTTP request to an HTTPS server.", UnreachableError, "speaks TLS"),
        (LIST, 503, "starting", ClusterError, "refused to list pods in namespace default: starting"),
    ],
)
def test_a_status_is_a_sentence_of_the_right_kind(
    asked: Access, status: int, message: str, kind: type[MeshdevError], words: str
) -> None:
    error = from_status(asked, status, body(message))
    assert type(error) is kind
    assert words in error.message


def test_a_refusal_of_rbac_hints_at_the_rule_to_ask_for() -> None:
    error = from_status(CREATE, 403, body(RBAC))
    assert error.hint is not None
    assert error.hint.endswith('- apiGroups: ["apps"]\n  resources: ["deployments"]\n  verbs: ["create"]')


def test_impersonation_that_is_not_allowed_says_so() -> None:
    message = 'users "x" is forbidden: User "dev" cannot impersonate resource "users" in API group "" at cluster scope'
    error = from_status(LIST, 403, body(message))
    assert isinstance(error, ForbiddenError)
    assert error.hint == "--as needs the verb impersonate on users"


@pytest.mark.parametrize("answer", [b"", b"<html>502</html>\nmore", b"[]", b'{"message": 3}', b"\xff\xfe"])
def test_a_body_that_is_no_status_is_survived(answer: bytes) -> None:
    assert isinstance(from_status(LIST, 502, answer), ClusterError)


def verification(message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, message)
    error.verify_message = message
    return error


class WrapperError(Exception):
    """As aiohttp wraps: the original is an attribute."""

    def __init__(self, original: Exception) -> None:
        super().__init__("wrapped")
        self.os_error = original


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (verification("unable to get local issuer certificate"), UntrustedError, "local issuer"),
        (WrapperError(verification("self-signed certificate")), UntrustedError, "self-signed"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), UnreachableError, "connection refused"),
        (WrapperError(OSError(errno.EHOSTUNREACH, "No route to host")), UnreachableError, "no route to host"),
        (socket.gaierror(-2, "Name or service not known"), UnreachableError, "Name or service not known"),
        (TimeoutError(), UnreachableError, "no answer in time"),
        (ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]"), CredentialError, "client certificate"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER]"), UnreachableError, "wrong version"),
        (WrapperError(Exception("odd")), UnreachableError, "wrapped"),
    ],
)
def test_a_connection_that_fails(error: Exception, kind: type[MeshdevError], words: str) -> None:
    mapped = from_connection(error, SERVER)
    assert type(mapped) is kind
    assert words in mapped.message
    assert "https://k:6443" in mapped.message


def test_the_proxy_is_named_without_its_password() -> None:
    server = Endpoint("https://k", proxy="http://me:secret@proxy:3128")
    message = from_connection(TimeoutError(), server).message
    assert "https://k through the proxy http://proxy:3128" in message
    assert "secret" not in message


def test_openssl_says_why_a_certificate_is_not_trusted() -> None:
    wrapped = ssl.SSLCertVerificationError("Cannot connect to host k:6443")
    wrapped.__cause__ = verification("unable to get local issuer certificate")
    error = from_connection(wrapped, SERVER)
    assert isinstance(error, UntrustedError)
    assert error.message.endswith("is not trusted: unable to get local issuer certificate")


UNNAMED = 'pods "m" is forbidden: failed quota: q: must specify limits.ephemeral-storage for: control,tunnel'
LIMITED = 'pods "m" is forbidden: maximum memory usage per Container is 256Mi, but limit is 384Mi'
TERMINATING = (
    'leases "x" is forbidden: unable to create new content in namespace default because it is being terminated'
)


@pytest.mark.parametrize(
    ("status", "message", "hint"),
    [
        (403, QUOTA, "its quota: kubectl -n default describe quota; end something there, or ask for more"),
        (403, UNNAMED, "a LimitRange in namespace default can name a default for limits.ephemeral-storage, which"),
        (403, LIMITED, "its limits: kubectl -n default describe limitranges"),
        (403, TERMINATING, "namespace default is being deleted"),
        (403, POD_SECURITY, "this is a policy of the cluster"),
        (500, 'failed calling webhook "p": timeout', "the webhook does not answer"),
        (429, "too many requests", "try again"),
        (503, "starting", "try again"),
        (422, "Invalid value", "trying again changes nothing"),
        (400, "unknown field", "trying again changes nothing"),
    ],
)
def test_hints_fit_the_cause(status: int, message: str, hint: str) -> None:
    assert (from_status(CREATE, status, body(message)).hint or "").startswith(hint)
