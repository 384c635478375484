"""Errors of the Kubernetes API and of the connection to it, mapped to meshdev's own in one place.

Status codes and bodies come from :mod:`meshdev.kube.client` and, for the upgrade, :mod:`meshdev.kube.portforward`;
socket, TLS and proxy errors from both. The classes below are those that callers handle.
"""

import json
import os
import re
import socket
import ssl
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

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


class NotFoundError(ClusterError):
    """The object (or its namespace) is not there."""


class ConflictError(ClusterError):
    """The object exists already, or has changed since it was read."""


class GoneError(ClusterError):
    """The resource version is too old to watch from (410): list again."""


#: The RBAC and webhook authorizers' sentence (k8s.io/apiserver handlers/responsewriters: forbiddenMessage).
_RBAC: Final = re.compile(r'User "(?P<user>[^"]*)" cannot (?P<verb>\S+) (?:resource|path) "')
_IMPERSONATION: Final = re.compile(r'cannot impersonate resource "(\w+)"')
#: Admission answers with 403 mostly; webhooks choose their own code and policies use 422.
_ADMISSION: Final = re.compile(
    r"admission webhook .* denied the request|denied request|failed calling webhook|ValidatingAdmissionPolicy"
)
#: k8s.io/apiserver/pkg/admission/plugin/resourcequota and plugin/namespace/lifecycle.
_QUOTA: Final = re.compile(r"exceeded quota|failed quota")
_UNNAMED: Final = re.compile(r"failed quota: \S+ must specify (?P<what>[^ ;]+)")
#: k8s.io/kubernetes/plugin/pkg/admission/limitranger.
_LIMITS: Final = re.compile(r"(?:minimum|maximum) \S+ usage per |max limit to request ratio per ")
_TERMINATING: Final = re.compile(r"because it is being terminated")
#: net/http's answer to a request without TLS.
_PLAIN_HTTP: Final = re.compile(r"HTTP request to an HTTPS server")
_NO_NAMESPACE: Final = re.compile(r'^namespaces "([^"]+)" not found')


def from_status(asked: Access, status: int, body: bytes) -> MeshdevError:
    """The error for an HTTP answer ≥ 300; *body* is a ``Status`` object, or whatever a proxy in between wrote."""
    message = status_message(body) or f"HTTP status {status}"
    if status == 401:
        return CredentialError(
            f"the API server does not accept the credentials: {message}",
            hint="check them with: kubectl auth whoami",
        )
    if _ADMISSION.search(message):
        return AdmissionError(message, hint=admission_hint(message, asked.namespace))
    if status == 400 and _PLAIN_HTTP.search(message):
        return UnreachableError(f"the API server speaks TLS: {message}", hint="its address begins with https://")
    if status == 403:
        return _forbidden(asked, message)
    if status == 404:
        return _not_found(asked, message)
    kinds: dict[int, type[ClusterError]] = {409: ConflictError, 410: GoneError}
    kind = kinds.get(status, ClusterError)
    passes = status in {409, 410, 429} or status >= 500  # the others would give the same answer
    hint = (
        f"{'try again; if it stays so' if passes else 'trying again changes nothing'}, ask the cluster's administrators"
    )
    return kind(f"the API server refused to {asked.sentence()}: {message}", hint=hint)


def admission_hint(message: str, namespace: str) -> str:
    """The way out of a refusal by an admission plugin or a webhook, in *namespace*."""
    if unnamed := _UNNAMED.search(message):
        return f"a LimitRange in namespace {namespace} can name a default for {unnamed['what']}, which its quota wants"
    if _LIMITS.search(message):
        return f"its limits: kubectl -n {namespace} describe limitranges; ask for others"
    if _QUOTA.search(message):
        return f"its quota: kubectl -n {namespace} describe quota; end something there, or ask for more"
    if _TERMINATING.search(message):
        return f"namespace {namespace} is being deleted: wait until it is gone, then create it anew, or use another"
    if "failed calling webhook" in message:
        return "the webhook does not answer: that is for the cluster's administrators"
    return "this is a policy of the cluster: ask its administrators, or use another namespace"


def status_message(body: bytes) -> str:
    """The sentence in a ``Status`` body; of anything else its first line."""
    try:
        parsed = json.loads(body)
    except ValueError:
        text = body.decode("utf-8", "replace").strip()
        return text.splitlines()[0][:500] if text else ""
    message = parsed.get("message") if isinstance(parsed, dict) else None
    return message if isinstance(message, str) else ""


def _forbidden(asked: Access, message: str) -> MeshdevError:
    impersonated = _IMPERSONATION.search(message)
    if impersonated:
        return ForbiddenError(message, hint=f"--as needs the verb impersonate on {impersonated.group(1)}")
    found = _RBAC.search(message)
    if found is None and asked.verb in {"create", "update", "patch", "delete"}:
        return AdmissionError(message, hint=admission_hint(message, asked.namespace))
    user = f" ({found['user']})" if found and found["user"] else ""
    if found:
        asked = replace(asked, verb=found["verb"])  # a WebSocket is asked for with get and needs create, too
    return forbidden(asked, user)


def forbidden(asked: Access, user: str = "") -> ForbiddenError:
    """The error for a right that is missing; *user* as it stands behind "you"."""
    return ForbiddenError(
        f"you{user} may not {asked.sentence()}",
        hint=f"ask for this rule, or for the whole Role that `meshdev rbac` prints:\n{asked.rule()}",
    )


def _not_found(asked: Access, message: str) -> NotFoundError:
    namespace = _NO_NAMESPACE.match(message)
    if namespace:
        return NotFoundError(
            f"there is no namespace {namespace.group(1)}", hint=f"kubectl create namespace {namespace.group(1)}"
        )
    return NotFoundError(f"the API server could not {asked.sentence()}: {message}")


def from_connection(error: BaseException, server: Endpoint) -> MeshdevError:
    """The error for a connection that did not come about or broke: sockets, TLS, proxies, aiohttp."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, MeshdevError):
            return cause
    untrusted = [cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)]
    if untrusted:
        # aiohttp's own error is of the same class, but without OpenSSL's message.
        return _untrusted(next((cause for cause in untrusted if _verify_message(cause)), untrusted[0]), server)
    for cause in causes:
        if isinstance(cause, ssl.SSLError):
            return _tls(cause, server)
    return UnreachableError(
        f"no connection to the API server {server}: {_reason(causes)}",
        hint="check the address and the network; kubectl get --raw /version asks the same server",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it wraps: aiohttp and python-socks keep the original in an attribute or as the cause."""
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        if isinstance(current, BaseExceptionGroup):
            pending.extend(current.exceptions)
        for name in ("certificate_error", "os_error"):  # aiohttp: ClientConnectorCertificateError, ClientConnectorError
            inner = getattr(current, name, None)
            pending.append(inner if isinstance(inner, BaseException) else None)
        pending += [current.__cause__, current.__context__]


def _untrusted(error: ssl.SSLCertVerificationError, server: Endpoint) -> UntrustedError:
    return UntrustedError(
        f"the certificate of the API server {server} is not trusted: {_verify_message(error) or error}",
        hint="certificate-authority-data in the kubeconfig must hold the cluster's CA; "
        "for a server reached under another name set tls-server-name",
    )


def _verify_message(error: ssl.SSLCertVerificationError) -> str:
    """OpenSSL's message, empty where it was not OpenSSL that refused."""
    return str(getattr(error, "verify_message", ""))


def _tls(error: ssl.SSLError, server: Endpoint) -> MeshdevError:
    reason = (getattr(error, "reason", None) or str(error)).replace("_", " ").lower()
    if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
        return CredentialError(f"the API server {server} does not accept the client certificate: {reason}")
    hint = "is this an https address?" if "wrong version" in reason or "http request" in reason else None
    return UnreachableError(f"no TLS connection to the API server {server}: {reason}", hint=hint)


def _reason(causes: list[BaseException]) -> str:
    """The most specific of the causes, with the system's message."""
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            return f"its name cannot be resolved ({cause.strerror})"
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno and cause.errno > 0:
            return os.strerror(cause.errno).lower()  # asyncio and python-socks put their own text in strerror
        if isinstance(cause, TimeoutError):
            return "no answer in time"
    return str(causes[0]) or type(causes[0]).__name__
