"""The shell that docs/ci.md tells people to put into their pipelines, to run it."""

import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from tests.e2e.conftest import CHECKOUT, Laptop

_BLOCK: Final = re.compile(r"^```(sh|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: A block that is a file says so in its first line.
_FILE: Final = re.compile(r"# ([\w./-]+\.(?:sh|yml))\n")
#: The testbed has meshdev already, and nothing that could be installed from PyPI under that name.
_INSTALLED: Final = frozenset({"pipx install meshdev", "pip install meshdev"})
_OF_GITHUB: Final = "${{ secrets.CI_KUBECONFIG }}"
_CONFIG: Final = "ci.kubeconfig"
_START: Final = """#!/bin/sh
cd {checkout} && exec python -m tests.cluster.sample --name new-b --next http://c/ "$@"
"""
#: What the services set.
_VARIABLES: Final = {"GITHUB_RUN_ID": "4711", "CI_PIPELINE_ID": "4712", "RUN": "4713"}


@dataclass(frozen=True)
class Recipes:
    """Scripts by the names of their files, and a project's folder in which they make sense."""

    scripts: Mapping[str, str]
    folder: Path

    @classmethod
    @contextmanager
    def of(cls, page: Path, namespace: str) -> Iterator["Recipes"]:
        """Those of *page*. What it tells the administrator to do for ``team-1`` is done for *namespace*."""
        text = page.read_text().replace("team-1", namespace)
        with tempfile.TemporaryDirectory(dir="/tmp", prefix="meshdev-ci-") as name:
            folder = Path(name)
            shutil.copy(CHECKOUT / "examples" / "smoke_test.py", folder)
            (folder / "start-b.sh").write_text(_START.format(checkout=CHECKOUT))
            (folder / "start-b.sh").chmod(0o755)
            _prepare_cluster(text, folder)
            for path in (folder, *folder.iterdir()):
                shutil.chown(path, "dev")
            yield cls(_scripts(text, (folder / _CONFIG).read_text()), folder)

    def run(self, laptop: Laptop, name: str, *, kubeconfig: str = "") -> subprocess.CompletedProcess[str]:
        """Run a script to its end, in a folder without the report of another one."""
        (self.folder / "meshdev.tar.gz").unlink(missing_ok=True)
        variables = {**_VARIABLES, "KUBECONFIG": kubeconfig or str(self.folder / _CONFIG)}
        return laptop.run("sh", "-c", _here(self.folder, variables, self.scripts[name]), timeout=120)


def _prepare_cluster(text: str, folder: Path) -> None:
    """What the administrator does."""
    section = text.partition("## What the cluster must allow")[2].partition("\n## ")[0]
    for _, script in _BLOCK.findall(section):
        Laptop().ok("sh", "-c", _here(folder, {}, script))


def _scripts(text: str, config: str) -> dict[str, str]:
    found = {}
    for language, block in _BLOCK.findall(text):
        name = _FILE.match(block)
        if name is not None:
            found[name[1]] = block if language == "sh" else "\n".join(_steps(yaml.safe_load(block), config))
    return found


def _steps(pipeline: dict[str, Any], config: str) -> Iterator[str]:
    """The steps of a job one after the other, those for failures too, each as a shell of its own."""
    if "jobs" not in pipeline:
        job = pipeline["smoke"]
        yield from map(_step, (*job["before_script"], *job["script"], *job["after_script"]))
        return
    for step in pipeline["jobs"]["smoke"]["steps"]:
        given = {name: value.replace(_OF_GITHUB, config) for name, value in step.get("env", {}).items()}
        if "run" in step:
            yield _step(step["run"], given)


def _step(script: str, variables: Mapping[str, str] | None = None) -> str:
    if script.strip() in _INSTALLED:
        return "true"
    return f"env {_assignments(variables or {})} bash -e -c {shlex.quote(script)} || exit"


def _here(folder: Path, variables: Mapping[str, str], script: str) -> str:
    exports = f"export {_assignments(variables)}" if variables else ""
    return f"cd {folder} || exit\n{exports}\n{script}"


def _assignments(variables: Mapping[str, str]) -> str:
    return " ".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())
