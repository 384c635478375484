"""The GitHub workflows are valid, and do with as few rights as possible what this repository does anyway."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.cluster import packages
from tests.cluster.paths import CACHE

ROOT: Final = Path(__file__).parent.parent
WORKFLOWS: Final = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT: Final = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.12"
#: An action by its commit, as a tag can be moved, and beside it the version for people.
PINNED: Final = re.compile(r"uses: [\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
#: What each job may do beyond reading the sources.
RIGHTS: Final = {
    ("image", "push"): {"packages", "id-token", "attestations"},
    ("release", "publish"): {"id-token"},
}

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def test_there_are_workflows() -> None:
    assert [path.stem for path in WORKFLOWS] == ["image", "release", "tests"]


@pytest.mark.skipif(os.getuid() != 0, reason="the testbed's cache is root's")
def test_actionlint_has_nothing_to_say() -> None:
    folder = CACHE / ACTIONLINT.rpartition("/")[2]
    if not (folder / "actionlint").exists():
        environment = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
        subprocess.run([packages.go(), "install", ACTIONLINT], check=True, env=environment, cwd="/")
    # What it finds must not depend on which other linters a machine has.
    command = [str(folder / "actionlint"), "-shellcheck=", "-pyflakes=", *map(str, WORKFLOWS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@every_workflow
def test_actions_are_pinned(path: Path) -> None:
    used = [line for line in path.read_text().splitlines() if "uses:" in line]
    assert [line for line in used if not PINNED.search(line)] == []


@every_workflow
def test_jobs_may_do_what_they_need(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        writes = {right for right, how in job["permissions"].items() if how == "write"}
        assert writes == RIGHTS.get((path.stem, name), set()), name
        assert job["timeout-minutes"] <= 120


def _steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        yield from job["steps"]


@every_workflow
def test_steps_are_shell_without_strangers_words(path: Path) -> None:
    """An expression in a script would be part of its text, whatever is in it: variables only."""
    for step in _steps(path):
        script = step.get("run", "")
        assert "${{" not in script, script
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@every_workflow
def test_no_checkout_keeps_its_token(path: Path) -> None:
    checkouts = [step for step in _steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


def test_what_make_is_asked_for_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    asked = {name for path in WORKFLOWS for name in re.findall(r"\bmake ([a-z]+)", path.read_text())}
    assert asked == {"lint", "image"}
    assert asked <= targets
