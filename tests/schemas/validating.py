"""What a command printed with ``-o json``, held against docs/schemas. All tests that run commands come through here."""

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

from jsonschema import Draft202012Validator

from meshdev.cli.commands import wants_json
from tests.schemas.answers import FOLDER, of_command


def validate(words: Sequence[str], printed: str) -> None:
    """The output of ``meshdev`` with these *words*, where it is an answer in JSON; AssertionError for another one."""
    if not wants_json(list(words)):  # it compares slices with lists
        return
    for answer in answers(printed):
        name = "error" if isinstance(answer, dict) and answer.keys() == {"error"} else of_command(words)
        faults = [f"{fault.json_path}: {fault.message}" for fault in validator(name).iter_errors(answer)]
        assert faults == [], f"meshdev {' '.join(words)}: {faults}"


def answers(printed: str) -> Iterator[Any]:
    """One behind the other, as lines or not."""
    decoder, rest = json.JSONDecoder(), printed.lstrip()
    while rest:
        answer, at = decoder.raw_decode(rest)
        yield answer
        rest = rest[at:].lstrip()


@functools.cache
def validator(name: str) -> Draft202012Validator:
    """Of the committed schema of that name."""
    return Draft202012Validator(json.loads((FOLDER / f"{name}.json").read_text()))
