"""Which cluster and which user: kubeconfig files, merged and resolved as kubectl does.

Not ``kubernetes.aio.config``: that lets the last file's current-context win (kubectl: the first), writes private keys
to files in /tmp, and goes on without credentials where an exec plugin fails. Rules: client-go
``tools/clientcmd/loader.go`` and ``client_config.go``.
"""

import base64
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import yaml

from meshdev.errors import ConfigError
from meshdev.kube import documents
from meshdev.text import without_user_info

_SECTIONS: Final = {"clusters": "cluster", "contexts": "context", "users": "user"}
#: Keys of each section that are paths, relative to the file they stand in.
_PATHS: Final = {
    "clusters": ("certificate-authority",),
    "contexts": (),
    "users": ("client-certificate", "client-key", "tokenFile"),
}

#: Keys that hold texts.
_TEXTS: Final = {
    "clusters": ("server", "certificate-authority", "certificate-authority-data", "tls-server-name", "proxy-url"),
    "contexts": ("cluster", "user", "namespace"),
    "users": (
        *("token", "tokenFile", "username", "password", "as"),
        *("client-certificate", "client-certificate-data", "client-key", "client-key-data"),
    ),
}

Section = Mapping[str, Any]

#: The time limit of an API call without --request-timeout, in seconds.
REQUEST_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Options:
    """kubectl's own flags. *request_timeout* in seconds; None: :data:`REQUEST_SECONDS`."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    as_user: str | None = None
    request_timeout: float | None = None
    ssh: str | None = None
    """The bastion through which the API server is reached: ``[USER@]HOST[:PORT]``."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    directory: str | None = None
    """Where plugins run, as their arguments may be relative paths; None: where this process is."""


@dataclass(frozen=True)
class Kubeconfig:
    """One context, resolved: *cluster* and *user* as they stand in the file, with absolute paths."""

    context: str
    namespace: str
    server: str
    cluster: Section
    user: Section
    authorization: str | None = field(default=None, repr=False)
    """Of user info in the server's URL; *server* has none."""


def load(options: Options) -> Kubeconfig:
    """Read and resolve. Raises ConfigError, naming the file or the context that is missing."""
    return _resolve(merged(options), options)


def merged(options: Options) -> dict[str, Any]:
    """``current-context``, and the entries of each section by name, credentials included. Raises ConfigError."""
    return _merge([_read(path) for path in existing_files(options)])


def existing_files(options: Options) -> list[Path]:
    """The files to read: the flag's, which must exist, else those of KUBECONFIG that do, else kubectl's default."""
    if options.kubeconfig:
        files = [_expanded(options.kubeconfig)]
    else:
        named = [part for part in options.environment.get("KUBECONFIG", "").split(os.pathsep) if part]
        files = [_expanded(part) for part in named] or _default(options.environment)
    there = [path for path in files if _exists(path)]
    if not there:
        raise ConfigError(
            f"there is no kubeconfig: {', '.join(map(str, files)) or '~/.kube/config'} does not exist",
            hint="name it with --kubeconfig or KUBECONFIG",
        )
    return there


def _default(environment: Mapping[str, str]) -> list[Path]:
    """None for a uid without HOME and without an entry in passwd."""
    try:
        return [Path(environment.get("HOME") or Path.home()) / ".kube" / "config"]
    except RuntimeError:
        return []


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user, or no home: kubectl takes ~ as it stands anyway
        return Path(path)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder that may not be entered: reading it raises the error
        return True


def _read(path: Path) -> dict[str, Any]:
    try:
        parsed = documents.parse(path.read_bytes()) or {}
    except OSError as error:
        raise ConfigError(f"the kubeconfig {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        raise ConfigError(f"the kubeconfig {path} is not YAML{f' (line {where.line + 1})' if where else ''}") from error
    if not isinstance(parsed, dict):
        raise ConfigError(f"the kubeconfig {path} is not a mapping")
    _check_texts(parsed, ("current-context",), path)
    for section, key in _SECTIONS.items():
        entries = parsed.get(section) or []
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise ConfigError(f"{section} in the kubeconfig {path} is not a list of named entries")
        found: dict[str, Any] = {}
        for entry in entries:
            _check_texts(entry, ("name",), path)
            name = entry.get("name") or ""
            if name in found:
                raise ConfigError(f"{section} in the kubeconfig {path} has {name!r} twice")
            found[name] = _anchored(section, entry.get(key) or {}, path.absolute())
        parsed[section] = found
    return parsed


def _check_texts(entry: Mapping[str, Any], keys: Iterable[str], file: Path) -> None:
    """kubectl takes no number for a text either: what would 0755 or 1e3 be?"""
    for key in keys:
        value = entry.get(key)
        if value is not None and not isinstance(value, str):
            raise ConfigError(f"{key} in the kubeconfig {file} is no text", hint="put it in quotation marks")


def _anchored(section: str, entry: object, file: Path) -> dict[str, Any]:
    """The entry with its paths made absolute."""
    if not isinstance(entry, dict):
        raise ConfigError(f"an entry of {section} in the kubeconfig {file} is not a mapping")
    _check_texts(entry, _TEXTS[section], file)
    insecure = entry.get("insecure-skip-tls-verify")
    if insecure is not None and not isinstance(insecure, bool):
        raise ConfigError(f"insecure-skip-tls-verify in the kubeconfig {file} is neither true nor false")
    result = {key: value for key, value in entry.items() if value is not None}
    for key in _PATHS[section]:
        if result.get(key):
            result[key] = str(file.parent / result[key])
    plugin = result.get("exec")
    if plugin is None:
        return result
    _check_plugin(plugin, file)
    if "/" in (plugin.get("command") or ""):
        result["exec"] = {**plugin, "command": str(file.parent / plugin["command"])}
    return result


def _check_plugin(plugin: object, file: Path) -> None:
    arguments = plugin.get("args") if isinstance(plugin, dict) else None
    if not isinstance(plugin, dict) or not isinstance(arguments or [], list):
        raise ConfigError(f"an exec plugin in the kubeconfig {file} cannot be read")
    _check_texts(plugin, ("command", "apiVersion", "installHint"), file)
    for argument in arguments or []:
        _check_texts({"args": argument}, ("args",), file)
    variables = plugin.get("env") or []
    if not isinstance(variables, list) or not all(isinstance(each, dict) and "name" in each for each in variables):
        raise ConfigError(f"env of an exec plugin in the kubeconfig {file} is not a list of named entries")
    for each in variables:
        _check_texts(each, ("name", "value"), file)


def _merge(files: list[dict[str, Any]]) -> dict[str, Any]:
    """The first file to set a value wins."""
    merged: dict[str, Any] = {"current-context": ""}
    for section in _SECTIONS:
        merged[section] = {}
        for parsed in files:
            merged[section] = {**parsed[section], **merged[section]}
    for parsed in files:
        merged["current-context"] = merged["current-context"] or str(parsed.get("current-context") or "")
    return merged


def _resolve(merged: dict[str, Any], options: Options) -> Kubeconfig:
    name = options.context or merged["current-context"]
    contexts = ", ".join(sorted(merged["contexts"])) or "none"
    if not name:
        raise ConfigError("the kubeconfig has no current-context", hint=f"choose with --context: {contexts}")
    if name not in merged["contexts"]:
        raise ConfigError(f"the kubeconfig has no context {name}", hint=f"there is: {contexts}")
    context = merged["contexts"][name]
    cluster = _entry(merged, "clusters", name, context.get("cluster"))
    user = _entry(merged, "users", name, context.get("user")) if context.get("user") else {}
    server, authorization = _server(name, cluster)
    for key in ("as-groups", "as-uid", "as-user-extra"):
        if user.get(key):  # without it the API server may allow more
            raise ConfigError(f"context {name}: {key} of its user cannot be used", hint="--as USER can")
    namespace = options.namespace or str(context.get("namespace") or "default")
    return Kubeconfig(name, namespace, server, {**cluster, "server": server}, user, authorization)


def _server(context: str, cluster: Section) -> tuple[str, str | None]:
    """The server's URL without user info, and that as an Authorization header, which Go's HTTP client makes of it.

    Without a scheme it is ``http://`` (client-go rest/url_utils.go, asked before it knows of certificates).
    """
    text = str(cluster.get("server") or "")
    error = ConfigError(
        f"context {context}: the server {without_user_info(text) or '(none)'} is not an http or https address"
    )
    try:
        parts = urlsplit(text)
        if not parts.scheme or not parts.netloc:
            parts = urlsplit(f"http://{text}")
            if parts.path not in {"", "/"}:
                raise error
        if parts.scheme not in {"http", "https"} or not parts.hostname or parts.port == 0:
            raise error
    except ValueError:
        raise error from None
    information, at, host = parts.netloc.rpartition("@")
    url = parts._replace(netloc=host, query="", fragment="").geturl().rstrip("/")
    if not at:
        return url, None
    name, _, password = information.partition(":")
    pair = f"{unquote(name)}:{unquote(password)}"
    return url, "Basic " + base64.b64encode(pair.encode()).decode("ascii")


def _entry(merged: dict[str, Any], section: str, context: str, name: object) -> Section:
    entries: dict[object, Section] = merged[section]
    if name not in entries:
        raise ConfigError(
            f"context {context} names the {_SECTIONS[section]} {name}, which the kubeconfig does not have"
        )
    return entries[name]
