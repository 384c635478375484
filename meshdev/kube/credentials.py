"""Who the user is to the API server: tokens, certificates, basic auth and exec plugins of one kubeconfig user.

Plugins speak client.authentication.k8s.io/v1 (https://kubernetes.io/docs/reference/access-authn-authz/authentication/).
They run in the session, with the user's own uid and environment.
"""

import asyncio
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from meshdev.errors import ConfigError, CredentialError
from meshdev.kube.kubeconfig import Kubeconfig, Section

#: A plugin may open a browser for a login; this is the time limit.
_PLUGIN_SECONDS: Final = 60.0
#: Credentials this close to their end are renewed first.
_SKEW: Final = timedelta(seconds=30)
_EXTENSION: Final = "client.authentication.k8s.io/exec"


@dataclass(frozen=True)
class Credentials:
    """What goes into requests and TLS handshakes. Certificate and key are PEM."""

    authorization: str | None = None
    certificate: bytes | None = None
    key: bytes | None = None
    expires: datetime | None = None

    def fresh(self, now: datetime) -> bool:
        """Whether they can still be used."""
        return self.expires is None or now < self.expires - _SKEW


class CredentialSource:
    """The credentials of one user, renewed when they run out. Concurrent callers share one run of a plugin."""

    def __init__(self, config: Kubeconfig, environment: Mapping[str, str], directory: str | None = None) -> None:
        """Plugins run in *directory*, or where this process is."""
        self._config = config
        self._directory = directory
        self._environment = environment
        self._current: Credentials | None = None
        self._lock = asyncio.Lock()

    async def get(self, *, rejected: Credentials | None = None) -> Credentials:
        """Usable credentials; *rejected* are those that the server just answered with 401."""
        async with self._lock:
            current = self._current
            if current is None or current is rejected or not current.fresh(datetime.now(UTC)) or self._from_file:
                current = await self._load()
                if current != self._current:
                    self._current = current
            assert self._current is not None  # noqa: S101 -- for mypy: set above
            return self._current

    @property
    def _from_file(self) -> bool:
        """A token file is rotated under us (projected service account tokens)."""
        return "tokenFile" in self._config.user

    async def _load(self) -> Credentials:
        found = await self._load_user(self._config.user)
        # As in net/http: user info in the URL is a header already when client-go would set another one.
        return replace(found, authorization=self._config.authorization or found.authorization)

    async def _load_user(self, user: Section) -> Credentials:
        provider = user.get("auth-provider")
        if provider:
            return _from_provider(provider)
        static = _static(user)
        # client-go runs no plugin where the user has credentials without it (exec.go, UpdateTransportConfig).
        if user.get("exec") and not static.authorization and not static.certificate:
            return await _run_plugin(user["exec"], self._config, self._environment, self._directory)
        return static


def pem(section: Section, key: str) -> bytes | None:
    """The PEM text of ``key`` (a file) or ``key-data`` (base64, which wins), None where neither is set."""
    data = section.get(f"{key}-data")
    if data:
        try:
            return base64.b64decode("".join(str(data).split()), validate=True)
        except ValueError as error:  # binascii.Error is its kind
            raise ConfigError(f"{key}-data in the kubeconfig is not base64") from error
    return _contents(section[key]) if section.get(key) else None


def _contents(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}, named in the kubeconfig, cannot be read: {error.strerror}") from error


def _static(user: Section) -> Credentials:
    """The user's token, basic auth and certificate; a token file wins over a token, as in client-go."""
    token = str(user.get("token") or "")
    if user.get("tokenFile"):
        try:
            token = _contents(user["tokenFile"]).decode("utf-8", "replace").strip() or token
        except ConfigError:
            if not token:
                raise
    if not (token.isascii() and token.isprintable()):
        raise CredentialError("the token in the kubeconfig has characters that no HTTP header can hold")
    authorization = f"Bearer {token}" if token else None
    if authorization is None and user.get("username"):
        pair = f"{user['username']}:{user.get('password') or ''}"
        authorization = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
    return Credentials(authorization, pem(user, "client-certificate"), pem(user, "client-key"))


def _from_provider(provider: Section) -> Credentials:
    """The token that kubectl keeps in the kubeconfig for the ``oidc`` provider.

    It is not refreshed here: an identity provider may rotate the refresh token, and one that we took without writing
    it back to the user's file would lock kubectl out.
    """
    name = provider.get("name")
    if name != "oidc":
        raise CredentialError(
            f"the kubeconfig's auth-provider {name} was removed from Kubernetes in 1.26",
            hint="use the exec plugin that replaced it",
        )
    token = str((provider.get("config") or {}).get("id-token") or "")
    expires = token_expiry(token)
    if not token or (expires is not None and expires <= datetime.now(UTC)):
        raise CredentialError("the OIDC token in the kubeconfig has expired", hint="any kubectl command renews it")
    return Credentials(f"Bearer {token}", expires=expires)


def token_expiry(token: str) -> datetime | None:
    """``exp`` of a JWT (RFC 7519, 4.1.4), unverified: the server verifies."""
    parts = token.split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return datetime.fromtimestamp(float(claims["exp"]), UTC)
    except (IndexError, ValueError, KeyError, TypeError):
        return None


def _existing(directory: str | None) -> str | None:
    """The folder may have been removed since: a plugin that needs it reports the error itself."""
    return directory if directory and Path(directory).is_dir() else None


async def _run_plugin(
    plugin: Section, config: Kubeconfig, environment: Mapping[str, str], directory: str | None
) -> Credentials:
    command = str(plugin.get("command") or "")
    extra = {str(e["name"]): str(e.get("value") or "") for e in plugin.get("env") or []}
    info = {"KUBERNETES_EXEC_INFO": json.dumps(_exec_info(plugin, config))}
    try:
        process = await asyncio.create_subprocess_exec(
            command,
            *map(str, plugin.get("args") or []),
            env={**environment, **extra, **info},
            cwd=_existing(directory),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise CredentialError(
            f"the kubeconfig's credential plugin {command} cannot be run: {error.strerror}",
            hint=str(plugin["installHint"]).strip() if plugin.get("installHint") else None,
        ) from error
    try:
        async with asyncio.timeout(_PLUGIN_SECONDS):
            out, err = await process.communicate()
    except TimeoutError:
        raise CredentialError(
            f"the credential plugin {command} did not finish within {_PLUGIN_SECONDS:.0f} seconds",
            hint="if it asks for a login, log in once with kubectl",
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()  # or what is left of it complains of a loop that is closed by then
    if process.returncode:
        reason = err.decode("utf-8", "replace").strip()[-1000:] or f"exit code {process.returncode}"
        raise CredentialError(f"the credential plugin {command} failed: {reason}")
    return _parse_plugin(command, out)


def _exec_info(plugin: Section, config: Kubeconfig) -> dict[str, Any]:
    spec: dict[str, Any] = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        known = ("tls-server-name", "insecure-skip-tls-verify", "proxy-url")
        spec["cluster"] = {"server": config.server, **{k: config.cluster[k] for k in known if k in config.cluster}}
        authority = pem(config.cluster, "certificate-authority")
        if authority:
            spec["cluster"]["certificate-authority-data"] = base64.b64encode(authority).decode("ascii")
        for extension in config.cluster.get("extensions") or []:
            if extension.get("name") == _EXTENSION:
                spec["cluster"]["config"] = extension.get("extension")
    version = str(plugin.get("apiVersion") or "client.authentication.k8s.io/v1")
    return {"apiVersion": version, "kind": "ExecCredential", "spec": spec}


def _parse_plugin(command: str, out: bytes) -> Credentials:
    try:
        status = json.loads(out)["status"]
        token, expires = status.get("token"), status.get("expirationTimestamp")
        certificate, key = status.get("clientCertificateData"), status.get("clientKeyData")
        return Credentials(
            f"Bearer {token}" if token else None,
            certificate.encode() if certificate else None,
            key.encode() if key else None,
            datetime.fromisoformat(expires) if expires else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CredentialError(f"the credential plugin {command} did not print an ExecCredential") from error
