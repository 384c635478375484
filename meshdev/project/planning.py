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
from meshdev.wire.answers import PlanStep
from meshdev.wire.message import dump
from meshdev.wire.session_api import ConnectOptions

#: The part of a project's digests that is not an intercept or a process.
CONNECTION: Final = "connection"


def steps(project: Project) -> tuple[PlanStep, ...]:
    """The plan in order, as ``up --dry-run -o json`` has it."""
    intercepts = {each.name: each for each in project.intercepts}
    processes = {each.name: each for each in project.processes}
    return (
        _connection(project.connection),
        *(
            _process(processes[action.name])
            if isinstance(action, StartProcess)
            else _intercept(intercepts[action.name])
            for action in plan(project)
        ),
    )


def lines(project: Project) -> Iterator[str]:
    """The same for people."""
    for step in steps(project):
        match step.step:
            case "connect":
                given = {"context": step.context, "namespace": step.namespace, "ssh": step.ssh}
                rest = ", ".join(f"{key} {value}" for key, value in given.items() if value)
                yield f"connect    {rest or 'the current context'}"
            case "start":
                env = f", with the variables of {step.env_from}" if step.env_from else ""
                yield f"start      {step.name}: {step.command}{env}, ready {step.ready}"
            case _:
                at = f", port {', '.join(step.ports)}" if step.ports else ""
                yield f"intercept  {step.name}: {step.mode} {step.target}, {step.match}{at}"


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


def _connection(options: ConnectOptions) -> PlanStep:
    return PlanStep(
        step="connect",
        context=options.context,
        namespace=options.namespace,
        kubeconfig=options.kubeconfig,
        ssh=options.ssh,
    )


def _process(process: ProjectProcess) -> PlanStep:
    shell = process.command[: len(SHELL)] == SHELL and len(process.command) == len(SHELL) + 1
    return PlanStep(
        step="start",
        name=process.name,
        command=process.command[-1] if shell else shlex.join(process.command),
        working_dir=process.directory,
        env_from=process.env_from,
        env=tuple(name for name, _ in process.env),
        ready="as soon as it runs" if process.ready is None else f"when {process.ready}",
        restart=process.restart,
    )


def _intercept(intercept: ProjectIntercept) -> PlanStep:
    request = intercept.request
    match = parse_match(**typed(request)) if request.mode.needs_match else None
    return PlanStep(
        step="intercept",
        name=intercept.name,
        target=request.target,
        namespace=request.namespace,
        mode=request.mode,
        match=text(match),
        ports=request.ports,
    )


def _digest(value: Any) -> str:  # noqa: ANN401 -- whatever JSON can express
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
