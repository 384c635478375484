"""The cluster's programs, built from tests/cluster/kubebox by Go and cached by the hash of their sources.

Each Kubernetes version is a Go module of its own and has a hash of its own: changing one does not build the other.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import kinds, packages
from tests.cluster.components import Programs
from tests.cluster.hashing import short, text_hash, tree_hash
from tests.cluster.paths import CACHE, SOURCES
from tests.cluster.progress import step
from tests.cluster.run import run

_MODULES = SOURCES / "kubebox"
_FLAGS = ("-trimpath", "-buildvcs=false")


@dataclass(frozen=True)
class Program:
    """A Go program: the module it is, modules beside it that it uses, and what the linker sets."""

    name: str
    module: str
    uses: tuple[str, ...] = ()
    linker: str = "-s -w"

    @property
    def flags(self) -> tuple[str, ...]:
        return (*_FLAGS, f"-ldflags={self.linker}")

    @property
    def path(self) -> Path:
        """Where it is in the cache."""
        trees = [tree_hash(_MODULES / module) for module in (self.module, *self.uses)]
        return CACHE / f"{self.name}-{short(text_hash([*trees, *self.flags]))}"


PAUSE = Program("pause", "pause")


def kubebox(version: str) -> Program:
    """Every component of Kubernetes VERSION in one program."""
    release = f"-X k8s.io/component-base/version.gitVersion={kinds.RELEASES[version]}"
    return Program(f"kubebox-{version}", version, ("box",), f"{PAUSE.linker} {release}")


def programs(kind: kinds.ClusterKind) -> Programs:
    """What a cluster of KIND runs. The first build of a version takes minutes."""
    return Programs(kubernetes=build(kubebox(kind.kubernetes)), support=build(kubebox(kinds.NEWEST)))


def build(program: Program) -> Path:
    """Have PROGRAM in the cache, and its older builds no longer. CGO off: it also runs with another C library."""
    path = program.path
    if path.exists():
        return path
    with step(f"{program.name}: Go build (minutes on the first time)"):
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f"{path.name}.new")
        env = {**os.environ, "CGO_ENABLED": "0"}
        run(packages.go(), "build", *program.flags, "-o", fresh, ".", cwd=_MODULES / program.module, env=env)
        fresh.replace(path)
        for old in set(path.parent.glob(f"{program.name}-{'[0-9a-f]' * 16}")) - {path}:
            old.unlink()
    return path
