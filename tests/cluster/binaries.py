"""The cluster's programs, built from tests/cluster/kubebox by Go and cached by the hash of their sources."""

import os
from pathlib import Path

from tests.cluster import packages
from tests.cluster.hashing import short, text_hash, tree_hash
from tests.cluster.paths import CACHE, SOURCES
from tests.cluster.progress import step
from tests.cluster.run import run

_MODULE = SOURCES / "kubebox"
_FLAGS = ("-trimpath", "-buildvcs=false", "-ldflags=-s -w")


def kubebox() -> Path:
    """Every Kubernetes component in one program; the first build takes minutes."""
    path = _path("kubebox")
    if not path.exists():
        with step("kubebox: Go build (minutes on the first time)"):
            _build(path, ".")
    return path


def pause() -> Path:
    """The tiny program of the pause image."""
    path = _path("pause")
    if not path.exists():
        with step("pause: Go build"):
            _build(path, "./pause")
    return path


def _path(name: str) -> Path:
    return CACHE / f"{name}-{short(text_hash([tree_hash(_MODULE), *_FLAGS]))}"


def _build(path: Path, package: str) -> None:
    """CGO off: the program also runs in a container with another C library."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    run(packages.go(), "build", *_FLAGS, "-o", fresh, package, cwd=_MODULE, env={**os.environ, "CGO_ENABLED": "0"})
    fresh.replace(path)
    for old in set(path.parent.glob(f"{path.name.rpartition('-')[0]}-*")) - {path}:
        old.unlink()
