"""``meshdev run`` as a pipeline uses it: the smoke test of docs/ci.md, a service account, exit codes, nothing left."""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from meshdev.cli.run import FAILED
from tests.e2e import workloads
from tests.e2e.accounts import HOME_NAMESPACE, account, kubeconfig
from tests.e2e.conftest import CHECKOUT, Laptop
from tests.e2e.intercepting import listed
from tests.e2e.recipes import Recipes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

RUN: Final = "ci-4711"
CHAIN: Final = "service-a>new-b>service-c"
#: The service of the checkout: right, not calling c, not starting.
RIGHT: Final = ("python", "-m", "tests.cluster.sample", "--name=new-b", "--next=http://c/", "--port=8080")
FORGETS_C: Final = ("python", "-m", "tests.cluster.sample", "--name=new-b", "--port=8080")
DOES_NOT_START: Final = ("python", "-m", "tests.cluster.sample", "--port=8080")


@pytest.fixture(scope="module")
def namespace(cluster: None) -> Iterator[str]:  # noqa: ARG001 -- for its effect
    """a → b → c, apart from the testbed's own."""
    apps = [manifest for name in "abc" for manifest in workloads.of(workloads.sample(name), "ci")]
    with workloads.namespace("ci", *apps) as name:
        yield name


@pytest.fixture
def pipeline(laptop: Laptop, namespace: str, tmp_path: Path) -> Iterator["Pipeline"]:
    """A laptop with nothing but a kubeconfig of a service account that has the Role of ``meshdev rbac``."""
    printed = laptop.meshdev("rbac", "-n", namespace, "--serviceaccount", f"{HOME_NAMESPACE}:ci")
    before = laptop.snapshot()
    with account("ci", printed):
        yield Pipeline(laptop, kubeconfig(tmp_path, "ci", namespace))
    assert laptop.status()["state"] == "disconnected"
    assert laptop.snapshot() == before
    assert listed(laptop, "-n", namespace) == []


class Pipeline:
    """Runs programs as docs/ci.md does."""

    def __init__(self, laptop: Laptop, config: str) -> None:
        self._laptop = laptop
        self._config = config

    def run(self, *words: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
        return self._laptop.run("meshdev", "run", "--kubeconfig", self._config, *words, timeout=timeout)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return self._laptop.start("meshdev", "run", "--kubeconfig", self._config, *words)

    def smoke_test(self, service: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        flags = ("--mesh", "deployment/b", "--baggage", f"run={RUN}", "--port", "8080:http", "--no-fallback")
        return self.run(*flags, "--", "python", "examples/smoke_test.py", RUN, "--", *service)


def test_the_smoke_test_passes_with_a_right_service(pipeline: Pipeline) -> None:
    done = pipeline.smoke_test(RIGHT)
    assert done.returncode == 0, done.stdout + done.stderr
    told = [line for line in done.stdout.splitlines() if line != "new-b: ready"]
    assert told == [
        f"ok: a request of this run: {CHAIN}",
        "ok: everybody else's request: service-a>service-b>service-c",
        "passed",
    ]


@pytest.mark.parametrize(
    ("service", "why"),
    [
        (FORGETS_C, f"a request of this run is answered 'service-a>new-b', not '{CHAIN}'"),
        (DOES_NOT_START, "the service ended with 2 before it listened on port 8080"),
    ],
    ids=["forgets-c", "does-not-start"],
)
def test_it_fails_with_a_broken_one(pipeline: Pipeline, service: tuple[str, ...], why: str) -> None:
    done = pipeline.smoke_test(service)
    assert (done.returncode, f"FAILED: {why}" in done.stderr) == (1, True), done.stdout + done.stderr


def test_without_the_service_nothing_stands_in_for_it(pipeline: Pipeline) -> None:
    """Why docs/ci.md says --no-fallback: the original would pass for the service that is not there."""
    flags = ("--mesh", "deployment/b", "--baggage", f"run={RUN}", "--port", "8080:http", "--no-fallback")
    done = pipeline.run(*flags, "--", "curl", "-sS", "-H", f"baggage: run={RUN}", "http://a/")
    assert (done.returncode, done.stdout.startswith("service-a>meshdev: no program of ")) == (0, True), done


def test_exit_codes(pipeline: Pipeline) -> None:
    """As docs/ci.md lists them."""
    assert pipeline.run("--", "sh", "-c", "exit 7").returncode == 7
    assert pipeline.run("--", "sh", "-c", "kill -TERM $$").returncode == 128 + signal.SIGTERM
    assert pipeline.run("--", "nobody-has-this-program").returncode == 127
    assert pipeline.run("--", "/etc").returncode == 126
    missing = pipeline.run("--mesh", "deployment/none", "--header", "a=1", "--", "true")
    assert (missing.returncode, missing.stdout) == (FAILED, "")
    assert "deployment/none" in missing.stderr
    assert pipeline.run("--mesh", "deployment/b", "--", "true").returncode == FAILED  # no match


def test_a_pipeline_that_is_cancelled_leaves_nothing(pipeline: Pipeline) -> None:
    """The runner sends SIGTERM: the program gets it, and everything is undone."""
    script = "echo it runs; exec sleep 60"
    with pipeline.start("--proxy", "deployment/c", "--", "sh", "-c", script) as done:
        assert done.stdout is not None
        assert any(line == "it runs\n" for line in iter(done.stdout.readline, ""))
        done.terminate()
        assert done.wait(60) == 128 + signal.SIGTERM


@pytest.fixture(scope="module")
def recipes(namespace: str) -> Iterator[Recipes]:
    """The shell of docs/ci.md, in the folder of a project, with the account and the kubeconfig that the page makes."""
    with Recipes.of(CHECKOUT / "docs" / "ci.md", namespace) as found:
        yield found


@pytest.mark.parametrize("name", ["steps.sh", ".github/workflows/smoke.yml", ".gitlab-ci.yml"])
def test_what_the_page_says_to_run(dev: Laptop, recipes: Recipes, name: str) -> None:
    before = dev.snapshot()
    done = recipes.run(dev, name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("service-a>new-b>service-c" if name != "steps.sh" else "new-b>service-c") in done.stdout
    assert dev.status()["state"] == "disconnected"
    assert dev.snapshot() == before


def test_the_page_explains_an_error(dev: Laptop, recipes: Recipes) -> None:
    done = recipes.run(dev, "explain.sh", kubeconfig="/nowhere")
    assert (done.returncode, done.stdout) == (10, "")
    assert "--kubeconfig" in done.stderr
