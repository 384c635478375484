"""Which cluster and which user: kubeconfig files, merged and resolved as kubectl does.

Not ``kubernetes.aio.config``: that lets the last file's current-context win (kubectl: the first), writes private keys
to files in /tmp, and goes on without credentials where an exec plugin fails. Rules: client-go
``tools/clientcmd/loader.go`` and ``client_config.go``.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from meshdev.errors import ConfigError

_SECTIONS: Final = {"clusters": "cluster", "contexts": "context", "users": "user"}
#: Keys of each section that are paths, relative to the file they stand in.
_PATHS: Final = {
    "clusters": ("certificate-authority",),
    "contexts": (),
    "users": ("client-certificate", "client-key", "tokenFile"),
}

Section = Mapping[str, Any]

#: One API call where --request-timeout says nothing, in seconds.
REQUEST_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Options:
    """kubectl's own flags. *request_timeout* in seconds."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None
    impersonate: str | None = None
    request_timeout: float = REQUEST_SECONDS
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


@dataclass(frozen=True)
class Kubeconfig:
    """One context, resolved: *cluster* and *user* as they stand in the file, with absolute paths."""

    context: str
    namespace: str
    server: str
    cluster: Section
    user: Section


def load(options: Options) -> Kubeconfig:
    """Read and resolve. Raises ConfigError, naming the file or the context that is missing."""
    return _resolve(_merge([_read(path) for path in _files(options)]), options)


def _files(options: Options) -> list[Path]:
    """The files to read: the flag's, which must exist, else those of KUBECONFIG that do, else kubectl's default."""
    if options.kubeconfig:
        files = [Path(options.kubeconfig).expanduser()]
    else:
        named = [part for part in options.environment.get("KUBECONFIG", "").split(os.pathsep) if part]
        home = Path(options.environment.get("HOME") or Path.home())
        files = [Path(part).expanduser() for part in named] or [home / ".kube" / "config"]
    there = [path for path in files if path.exists()]
    if not there:
        raise ConfigError(
            f"there is no kubeconfig: {', '.join(map(str, files))} does not exist",
            hint="name it with --kubeconfig or KUBECONFIG",
        )
    return there


def _read(path: Path) -> dict[str, Any]:
    try:
        parsed = yaml.safe_load(path.read_text("utf-8")) or {}
    except OSError as error:
        raise ConfigError(f"the kubeconfig {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        raise ConfigError(f"the kubeconfig {path} is not YAML{f' (line {where.line + 1})' if where else ''}") from error
    if not isinstance(parsed, dict):
        raise ConfigError(f"the kubeconfig {path} is not a mapping")
    for section, key in _SECTIONS.items():
        entries = parsed.get(section) or []
        if not isinstance(entries, list) or not all(isinstance(e, dict) and "name" in e for e in entries):
            raise ConfigError(f"{section} in the kubeconfig {path} is not a list of named entries")
        parsed[section] = {str(e["name"]): _anchored(section, e.get(key) or {}, path.absolute()) for e in entries}
    return parsed


def _anchored(section: str, entry: object, file: Path) -> dict[str, Any]:
    """The entry with its paths made absolute."""
    if not isinstance(entry, dict):
        raise ConfigError(f"an entry of {section} in the kubeconfig {file} is not a mapping")
    result = dict(entry)
    for key in _PATHS[section]:
        if result.get(key):
            result[key] = str(file.parent / str(result[key]))
    plugin = result.get("exec")
    if isinstance(plugin, dict) and "/" in str(plugin.get("command", "")):
        result["exec"] = {**plugin, "command": str(file.parent / plugin["command"])}
    return result


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
    server = str(cluster.get("server") or "").rstrip("/")
    parts = urlsplit(server)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"context {name}: the server {server or '(none)'} is not an http or https address")
    if user.get("as-groups"):
        raise ConfigError(f"context {name}: as-groups of its user cannot be used", hint="--as USER can")
    namespace = options.namespace or str(context.get("namespace") or "default")
    return Kubeconfig(name, namespace, server, cluster, user)


def _entry(merged: dict[str, Any], section: str, context: str, name: object) -> Section:
    entries: dict[object, Section] = merged[section]
    if name not in entries:
        raise ConfigError(
            f"context {context} names the {_SECTIONS[section]} {name}, which the kubeconfig does not have"
        )
    return entries[name]
