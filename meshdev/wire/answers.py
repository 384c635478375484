"""What commands print with ``-o json`` and no process sends to another: keys that scripts rely on.

Other answers are messages of the session API: ``Status``, ``InterceptStatus``, ``DashboardServed``, and ``LogLine`` of
:mod:`meshdev.wire.log_lines`. From all of these declarations docs/schemas/ is made (``python -m tests.schemas``).
"""

from typing import Final, Literal

from meshdev.wire.access import ACCESS_PROTOCOLS, SERVED_BY, AccessProtocol, ServedBy
from meshdev.wire.codecs import FLAG, Choice, Integer, Many, Nullable, Number, Pairs, Text
from meshdev.wire.message import field, message, nested
from meshdev.wire.modes import MODE, Mode
from meshdev.wire.project_api import PROJECT_PHASES, ProjectPhaseName, part_name
from meshdev.wire.session_intercepts import INTERCEPT_PHASES, InterceptPhase, PodIdentity

ListedState = Literal[InterceptPhase, "expired"]
LISTED_STATES: Final[tuple[ListedState, ...]] = (*INTERCEPT_PHASES, "expired")
CheckState = Literal["ok", "warning", "failed", "skipped"]
CHECK_STATES: Final[tuple[CheckState, ...]] = ("ok", "warning", "failed", "skipped")

PlanState = Literal[ProjectPhaseName, "down"]
PLAN_STATES: Final[tuple[PlanState, ...]] = (*PROJECT_PHASES, "down")
PlanStepName = Literal["connect", "start", "intercept"]
PLAN_STEPS: Final[tuple[PlanStepName, ...]] = ("connect", "start", "intercept")

_TEXT: Final = Text()
_MAYBE: Final = Nullable(_TEXT)
_COUNT: Final = Integer(0, (1 << 53) - 1)  # RFC 8259, 6: what every reader of JSON has as a whole number
_SECONDS: Final = Number(0, 1e12)


@message()
class FailureAnswer:
    """Any command that fails: the exit code belongs to the code (docs/exit-codes.md)."""

    code: str = field(Text(64), key="error.code")
    message: str = field(_TEXT, key="error.message")
    hint: str | None = field(_MAYBE, key="error.hint")


@message()
class VersionAnswer:
    """``version``: of meshdev, and which versions of the tunnel protocol it speaks."""

    version: str = field(_TEXT)
    oldest: int = field(_COUNT, key="protocol.oldest")
    newest: int = field(_COUNT, key="protocol.newest")


@message()
class LeaveAnswer:
    """``leave``: what was left."""

    left: tuple[str, ...] = field(Many(_TEXT))


@message(kw_only=True)
class ListedIntercept:
    """An item of ``list``: an intercept of anybody's."""

    target: str = field(_TEXT)
    namespace: str = field(_TEXT)
    mode: Mode = field(MODE)
    match: str = field(_TEXT)
    ports: tuple[str, ...] = field(Many(_TEXT))
    holder: str = field(_TEXT)
    age_s: float = field(Number(0, 1e12, digits=1))
    state: ListedState = field(Choice(LISTED_STATES))
    mine: bool = field(FLAG)
    acked: int = field(_COUNT, key="pods.acked")
    total: int = field(_COUNT, key="pods.total")
    pending_listeners: tuple[str, ...] = field(Many(_TEXT))
    identities: tuple[PodIdentity, ...] = field(Many(nested(PodIdentity)))


@message(kw_only=True)
class InspectLine:
    """A line of ``inspect``: one request. Scripts may find null where a protocol has no such thing."""

    time: float = field(_SECONDS)
    namespace: str = field(_TEXT)
    target: str = field(_TEXT)
    pod: str = field(_TEXT)
    address: str = field(_TEXT, key="source.address")
    workload: str | None = field(_MAYBE, key="source.workload")
    protocol: AccessProtocol = field(Choice(ACCESS_PROTOCOLS))
    method: str | None = field(_MAYBE)
    authority: str | None = field(_MAYBE)
    path: str | None = field(_MAYBE)
    status: int | None = field(Nullable(Integer(1, 999)))
    duration_ms: float = field(_SECONDS)
    request_bytes: int = field(_COUNT)
    response_bytes: int = field(_COUNT)
    intercept: str | None = field(_MAYBE)
    holder: str | None = field(_MAYBE)
    served_by: ServedBy = field(Choice(SERVED_BY))
    reason: str | None = field(_MAYBE)
    trace_id: str | None = field(_MAYBE)


@message()
class CheckAnswer:
    """An item of ``doctor``: what a check found, and what to do."""

    check: str = field(_TEXT)
    state: CheckState = field(Choice(CHECK_STATES))
    detail: str = field(_TEXT)
    hint: str | None = field(_MAYBE)


@message()
class MissingPart:
    """A part of a bug report, or of it, that could not be collected."""

    part: str = field(_TEXT)
    reason: str = field(_TEXT)


@message()
class GatherAnswer:
    """``gather``: the archive, and what is missing in it."""

    file: str = field(_TEXT)
    missing: tuple[MissingPart, ...] = field(Many(nested(MissingPart)))


@message()
class PulledFileAnswer:
    """A file that was written, and its mode as chmod takes it."""

    path: str = field(_TEXT)
    mode: str = field(Text(4))


@message()
class MissingFiles:
    """Files that could not be read: where, what they would be made of, and why."""

    what: str = field(_TEXT)
    source: str = field(_TEXT)
    reason: str = field(_TEXT)


@message()
class PullAnswer:
    """``pull``: the files that were written, and what is missing."""

    files: tuple[PulledFileAnswer, ...] = field(Many(nested(PulledFileAnswer)))
    missing: tuple[MissingFiles, ...] = field(Many(nested(MissingFiles)))


@message()
class DownAnswer:
    """``down``: whether there was something to end."""

    ended: bool = field(FLAG)


@message()
class UpAnswer:
    """``up``: how the project stands; *changed*: by this command. Processes and intercepts have phases."""

    file: str = field(_TEXT)
    state: ProjectPhaseName = field(Choice(PROJECT_PHASES))
    changed: bool = field(FLAG)
    pid: int = field(_COUNT)
    processes: tuple[tuple[str, str], ...] = field(Pairs(part_name, _TEXT))
    intercepts: tuple[tuple[str, str], ...] = field(Pairs(part_name, _TEXT))


@message(kw_only=True)
class PlanStep:
    """A step of a project; keys that do not belong to a step of that kind are left out."""

    step: PlanStepName = field(Choice(PLAN_STEPS))
    name: str | None = field(_MAYBE, default=None, sparse=True)
    """Of the process or intercept."""
    context: str | None = field(_MAYBE, default=None, sparse=True)
    namespace: str | None = field(_MAYBE, default=None, sparse=True)
    kubeconfig: str | None = field(_MAYBE, default=None, sparse=True)
    ssh: str | None = field(_MAYBE, default=None, sparse=True)
    command: str | None = field(_MAYBE, default=None, sparse=True)
    working_dir: str | None = field(_MAYBE, default=None, sparse=True)
    env_from: str | None = field(_MAYBE, default=None, sparse=True)
    env: tuple[str, ...] = field(Many(_TEXT), default=(), sparse=True)
    """Names only: values may be secrets."""
    ready: str | None = field(_MAYBE, default=None, sparse=True)
    restart: str | None = field(_MAYBE, default=None, sparse=True)
    target: str | None = field(_MAYBE, default=None, sparse=True)
    mode: Mode | None = field(Nullable(MODE), default=None, sparse=True)
    match: str | None = field(_MAYBE, default=None, sparse=True)
    ports: tuple[str, ...] = field(Many(_TEXT), default=(), sparse=True)


@message()
class PlanAnswer:
    """``up --dry-run``: how the project stands, what its file has changed since, and what ``up`` would do."""

    file: str = field(_TEXT)
    state: PlanState = field(Choice(PLAN_STATES))
    changes: tuple[str, ...] = field(Many(_TEXT))
    steps: tuple[PlanStep, ...] = field(Many(nested(PlanStep)))
