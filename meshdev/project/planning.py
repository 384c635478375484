"""What a project would do, for people and scripts, and how two versions of it differ."""

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

from meshdev.intercept.match import parse_match, text, typed
from meshdev.project.building import SHELL
from meshdev.project.model import Project, ProjectIntercept, ProjectProcess
from meshdev.project.supervising import StartProcess, plan
from meshdev.wire.message import dump
from meshdev.wire.session_api import ConnectOptions

#: The part of a project's digests that is not an intercept or a process.
CONNECTION: Final = "connection"


def steps(project: Project) -> list[dict[str, object]]:
    """The plan in order, as ``up --dry-run -o json`` has it. Of variables only the names: values may be secrets."""
    intercepts = {each.name: each for each in project.intercepts}
    processes = {each.name: each for each in project.processes}
    found: list[dict[str, object]] = [{"step": "connect", **_connection(project.connection)}]
    for action in plan(project):
        if isinstance(action, StartProcess):
            found.append({"step": "start", **_process(processes[action.name])})
        else:
            found.append({"step": "intercept", **_intercept(intercepts[action.name])})
    return found


def lines(project: Project) -> Iterator[str]:
    """The same for people."""
    for step in steps(project):
        match step["step"]:
            case "connect":
                rest = ", ".join(f"{key} {value}" for key, value in step.items() if key != "step")
                yield f"connect    {rest or 'the current context'}"
            case "start":
                yield f"start      {step['process']}: {step['command']}, ready {step['ready']}"
            case _:
                ports = step["ports"]
                at = f", port {', '.join(ports)}" if isinstance(ports, tuple) and ports else ""
                yield f"intercept  {step['intercept']}: {step['mode']} {step['target']}, {step['match']}{at}"


def digests(project: Project) -> dict[str, str]:
    """A fingerprint of each part: equal where the part means the same."""
    found = {CONNECTION: _digest(dump(project.connection))}
    found |= {f"intercept {each.name}": _digest(dump(each.request)) for each in project.intercepts}
    return found | {
        f"process {each.name}": _digest([type(each.ready).__name__, asdict(each)]) for each in project.processes
    }


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What an edit of the file did: ``process b changed``."""
    found = [f"{name} changed" for name in new if name in old and old[name] != new[name]]
    found += [f"{name} added" for name in new if name not in old]
    return found + [f"{name} removed" for name in old if name not in new]


def _connection(options: ConnectOptions) -> dict[str, object]:
    named = {
        "context": options.context,
        "namespace": options.namespace,
        "kubeconfig": options.kubeconfig,
        "ssh": options.ssh,
    }
    return {key: value for key, value in named.items() if value is not None}


def _process(process: ProjectProcess) -> dict[str, object]:
    shell = process.command[: len(SHELL)] == SHELL and len(process.command) == len(SHELL) + 1
    return {
        "process": process.name,
        "command": process.command[-1] if shell else shlex.join(process.command),
        "workingDir": process.directory,
        "env": [name for name, _ in process.env],
        "ready": "as soon as it runs" if process.ready is None else f"when {process.ready}",
        "restart": process.restart,
    }


def _intercept(intercept: ProjectIntercept) -> dict[str, object]:
    request = intercept.request
    match = parse_match(**typed(request)) if request.mode.needs_match else None
    return {
        "intercept": intercept.name,
        "target": request.target,
        "namespace": request.namespace,
        "mode": request.mode.name,
        "match": text(match),
        "ports": request.ports,
    }


def _digest(value: Any) -> str:  # noqa: ANN401 -- whatever JSON can express
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
