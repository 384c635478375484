"""Images without a registry: a debootstrapped base, and on it the real Dockerfiles, built by buildah.

Everything in the cache is named by the hash of what it was made of, so "is it current?" is "does the file exist?".
buildah's own layer cache does the rest: when only sources changed, only the last layer is made again.
"""

import os
import shutil
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.enter import MANAGER_IMAGE
from tests.cluster.hashing import short, text_hash, tree_hash
from tests.cluster.paths import BUILDAH, CACHE, CHECKOUT, IMAGES, RUN, SOURCES
from tests.cluster.progress import step
from tests.cluster.run import run

BASE_IMAGE = "localhost/meshdev-base:1"
SAMPLE_IMAGE = "localhost/meshdev-sample:1"

_SUITE = "bookworm"
_MIRROR = "http://deb.debian.org/debian"
_PYTHON = "3.11"  # of _SUITE: wheels are chosen for it, whatever runs the testbed
_PACKAGES = ("ca-certificates", "iproute2", "iputils-ping", "nftables", "procps", "python3", "python3-pip")
# What no program in a container reads.
_STRIPPED = (
    *("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian"),
    *("var/cache/apt", "var/lib/apt/lists", "var/cache/debconf", "var/log", "usr/lib/python3.11/EXTERNALLY-MANAGED"),
)
_BASE_DOCKERFILE = """\
FROM scratch
ADD rootfs.tar /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["python3"]
"""
_PAUSE_DOCKERFILE = """\
FROM scratch
COPY pause /pause
ENTRYPOINT ["/pause"]
"""
_SAMPLE_REQUIREMENTS = ("grpcio>=1.66",)
_KEPT_ARCHIVES = 2
_MTIME = 1_700_000_000  # one time for every staged file: buildah's cache compares it


@dataclass(frozen=True)
class Image:
    """An image and what it is made of. `inputs` decides whether a cached archive is current."""

    name: str
    reference: str
    inputs: tuple[str, ...]

    @property
    def digest(self) -> str:
        return text_hash((self.reference, *self.inputs))

    @property
    def archive(self) -> Path:
        return IMAGES / f"{self.name}-{short(self.digest)}.tar"


def base() -> Image:
    """Debian with Python: what a python:slim would be elsewhere."""
    return Image("base", BASE_IMAGE, (_SUITE, *_PACKAGES, *_STRIPPED, _BASE_DOCKERFILE))


def pause(binary: Path) -> Image:
    """The container that holds a pod's namespaces; BINARY's name carries its hash."""
    return Image("pause", "localhost/meshdev-pause:1", (binary.name, _PAUSE_DOCKERFILE))


def sample() -> Image:
    """The sample application, from tests/cluster/sample."""
    inputs = (base().digest, tree_hash(SOURCES / "sample"), *_SAMPLE_REQUIREMENTS)
    return Image("sample", SAMPLE_IMAGE, inputs)


def manager() -> Image:
    """The traffic manager: the checkout's real Dockerfile and sources."""
    folder = manager_dockerfile().parent
    return Image(
        "manager",
        MANAGER_IMAGE,
        (base().digest, tree_hash(folder), tree_hash(CHECKOUT / "meshdev"), *manager_requirements()),
    )


def manager_dockerfile() -> Path:
    """The one Dockerfile of the product."""
    return CHECKOUT / "images" / "traffic-manager" / "Dockerfile"


def manager_requirements() -> tuple[str, ...]:
    """What pyproject.toml lists for the image."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return (*extras["manager"], *extras["cluster"], *extras["otlp"])


def build_base() -> None:
    """debootstrap, strip, commit. The slowest part after the cluster's programs: under a minute."""
    image = base()
    if _is_built(image):
        return
    rootfs = CACHE / "rootfs"
    with step("image base: debootstrap"):
        shutil.rmtree(rootfs, ignore_errors=True)
        mirror = os.environ.get("MESHDEV_TESTBED_MIRROR", _MIRROR)
        run("debootstrap", "--variant=minbase", f"--include={','.join(_PACKAGES)}", _SUITE, rootfs, mirror)
        for name in _STRIPPED:
            path = rootfs / name
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        (rootfs / "var/log").mkdir()
        (rootfs / "etc/resolv.conf").write_text("")
        stage = _fresh_stage(image.name)
        run("tar", "-C", rootfs, "--numeric-owner", "--exclude=./dev/*", "-cf", stage / "rootfs.tar", ".")
        shutil.rmtree(rootfs)
        (stage / "Dockerfile").write_text(_BASE_DOCKERFILE)
        _build(image, stage, stage / "Dockerfile")
        shutil.rmtree(stage)
        _mark_built(image)


def build_pause(binary: Path) -> Image:
    """An image of one static program."""
    image = pause(binary)
    if not image.archive.exists():
        with step("image pause"):
            stage = _fresh_stage(image.name)
            shutil.copy(binary, stage / "pause")
            (stage / "Dockerfile").write_text(_PAUSE_DOCKERFILE)
            _build(image, stage, stage / "Dockerfile")
            _push(image)
            shutil.rmtree(stage)
    return image


def build_sample() -> Image:
    """The sample's image."""
    image = sample()
    if not image.archive.exists():
        build_base()
        wheels = _wheels(_SAMPLE_REQUIREMENTS)
        with step("image sample"):
            stage = _fresh_stage(image.name)
            _stage_tree(wheels, stage / "wheels")
            _stage_tree(SOURCES / "sample", stage / "sample")
            _build(image, stage, SOURCES / "sample" / "Dockerfile")
            _push(image)
            shutil.rmtree(stage)
    return image


def build_manager() -> Image | None:
    """The manager's image; None while the checkout has no Dockerfile."""
    if not manager_dockerfile().exists():
        return None
    image = manager()
    if not image.archive.exists():
        build_base()
        wheels = _wheels(manager_requirements())
        with step("image traffic-manager"):
            stage = _fresh_stage(image.name)
            _stage_tree(manager_dockerfile().parent, stage)
            _stage_tree(wheels, stage / "wheels")
            _stage_tree(CHECKOUT / "meshdev", stage / "meshdev")
            _build(image, stage, stage / "Dockerfile", f"WHEELS={wheels.name}")
            _push(image)
            shutil.rmtree(stage)
    return image


def _wheels(requirements: Iterable[str]) -> Path:
    """A folder with the wheels of REQUIREMENTS and of what they need, for the base's Python."""
    wanted = sorted(requirements)
    folder = CACHE / "wheels" / short(text_hash([_PYTHON, *wanted]))
    if not folder.exists():
        with step(f"wheels: {', '.join(wanted)}"):
            fresh = folder.with_suffix(".new")
            shutil.rmtree(fresh, ignore_errors=True)
            command = (sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "--dest", fresh)
            run(*command, f"--python-version={_PYTHON}", *wanted)
            fresh.replace(folder)
    return folder


def _stage_tree(source: Path, target: Path) -> None:
    """Copy sources into the build context, without byte code and with one time stamp."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"), dirs_exist_ok=True)
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else path.stat().st_mode & 0o111 | 0o644)
        os.utime(path, (_MTIME, _MTIME))


def _fresh_stage(name: str) -> Path:
    stage = CACHE / "stage" / name
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    return stage


def _buildah(*argv: str | Path) -> str:
    """buildah with storage of its own; chroot isolation, since there is no container runtime to rely on yet."""
    env = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
    storage = ("--root", BUILDAH / "storage", "--runroot", RUN / "buildah", "--storage-driver", "overlay")
    return run("buildah", *storage, *argv, env=env)


def _build(image: Image, context: Path, dockerfile: Path, *arguments: str) -> None:
    _buildah(
        *("bud", "--layers", "--quiet", "--network=none", "--build-arg", f"BASE={BASE_IMAGE}", "--pull-never"),
        *(word for argument in arguments for word in ("--build-arg", argument)),
        *("-t", image.reference, "-f", dockerfile, context),
    )


def _push(image: Image) -> None:
    """Write the archive that containerd imports, and forget older ones."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    fresh = image.archive.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    _buildah("push", "--quiet", image.reference, f"docker-archive:{fresh}:{image.reference}")
    fresh.replace(image.archive)
    archives = sorted(IMAGES.glob(f"{image.name}-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in archives[_KEPT_ARCHIVES:]:
        old.unlink()


def _marker(image: Image) -> Path:
    return BUILDAH / f"{image.name}-{short(image.digest)}"


def _is_built(image: Image) -> bool:
    return _marker(image).exists()


def _mark_built(image: Image) -> None:
    _marker(image).touch()
