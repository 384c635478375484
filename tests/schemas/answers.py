"""All answers of commands with ``-o json``, by the names of their schemas, and which command gives which."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from meshdev.wire.answers import (
    CheckAnswer,
    DownAnswer,
    FailureAnswer,
    GatherAnswer,
    InspectLine,
    LeaveAnswer,
    ListedIntercept,
    PlanAnswer,
    PullAnswer,
    UpAnswer,
    VersionAnswer,
)
from meshdev.wire.log_lines import LogLine
from meshdev.wire.session_api import Status
from meshdev.wire.session_dashboard import DashboardServed
from meshdev.wire.session_intercepts import InterceptStatus
from tests.schemas.declared import JsonSchema, message_schema

FOLDER: Final = Path(__file__).parents[2] / "docs" / "schemas"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

#: The messages, and whether the answer is a list of them.
DECLARED: Final[Mapping[str, tuple[type, bool]]] = {
    "dashboard": (DashboardServed, False),
    "doctor": (CheckAnswer, True),
    "down": (DownAnswer, False),
    "error": (FailureAnswer, False),
    "gather": (GatherAnswer, False),
    "inspect": (InspectLine, False),
    "intercept": (InterceptStatus, False),
    "leave": (LeaveAnswer, False),
    "list": (ListedIntercept, True),
    "logs": (LogLine, False),
    "pull": (PullAnswer, False),
    "status": (Status, False),
    "up": (UpAnswer, False),
    "up-dry-run": (PlanAnswer, False),
    "version": (VersionAnswer, False),
}
#: Answers with keys of the cluster's, which no message declares.
OPEN: Final[Mapping[str, JsonSchema]] = {
    "env": {
        "description": "`env`: values by the names of their variables.",
        "type": "object",
        "additionalProperties": {"type": "string"},
    }
}
NAMES: Final = (*DECLARED, *OPEN)
#: Which of them a command prints, where that has another name.
OF_COMMAND: Final[Mapping[str, str]] = {"connect": "status", "mesh": "intercept", "proxy": "intercept"}


def schema(name: str) -> JsonSchema:
    """The whole schema of that name."""
    head = {"$schema": _DIALECT, "$id": f"{name}.json", "title": name}
    if name in OPEN:
        return {**head, **OPEN[name]}
    kind, many = DECLARED[name]
    found = message_schema(kind)
    return {**head, "type": "array", "items": found} if many else {**head, **found}


def of_command(words: Sequence[str]) -> str:
    """The name of the schema of what a command prints that succeeds; *words* are those of its line."""
    command = next((word for word in words if not word.startswith("-")), "")
    return "up-dry-run" if command == "up" and "--dry-run" in words else OF_COMMAND.get(command, command)


def text(found: Mapping[str, Any]) -> str:
    """As it is in the file."""
    return f"{json.dumps(found, indent=2)}\n"
