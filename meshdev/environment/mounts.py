"""What a container finds below a path: mounts, what hides them, and paths that are fit to be written on a laptop."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from meshdev.environment.expansion import ExpansionError, expand
from meshdev.environment.sources import ContainerView, Missing, Needs, Object, Sources, items_of
from meshdev.environment.volumes import VolumeFile, files_of, is_readable, kind_of, volume_needs

#: A name that every file system takes (NAME_MAX), and how deep folders may be; both are more than real volumes have.
_NAME_BYTES: Final = 255
_DEPTH: Final = 32
_PATH_MAX: Final = 4096
#: etcd holds about 1.5 MB for an object, a volume has some objects.
MAX_FILES: Final = 5000
MAX_BYTES: Final = 64 << 20


@dataclass(frozen=True)
class Mount:
    """A volume at a path of the container; *sub_path* is the part of the volume that is there, empty for all."""

    path: PurePosixPath
    volume: Object
    sub_path: str = ""
    problem: str | None = None
    """Why its part of the volume is unknown."""

    def __str__(self) -> str:
        return f"{self.path} ({kind_of(self.volume)} {self.volume.get('name')})"


@dataclass(frozen=True)
class LocalFile:
    """A file to write: path below the folder, checked; permission bits as they shall be on the laptop."""

    path: PurePosixPath
    content: bytes = field(repr=False)
    mode: int


@dataclass(frozen=True)
class Pulled:
    """What is to be written, and what is missing of it."""

    files: tuple[LocalFile, ...]
    missing: tuple[Missing, ...] = ()


def container_path(text: str) -> PurePosixPath:
    """An absolute path in a container, without ``.`` and ``..``. Raises ValueError."""
    path = PurePosixPath("/", *(part for part in PurePosixPath(text).parts if part != "//"))
    if not text.startswith("/") or ".." in path.parts or "\0" in text:
        raise ValueError(f"{text!r} is no absolute path without `..`")
    return path


def mounts_of(pod: ContainerView, variables: Mapping[str, str]) -> tuple[Mount, ...]:
    """Where volumes are mounted in the container, the outer ones first. *variables* are for ``subPathExpr``."""
    volumes = {each.get("name"): each for each in items_of(pod.spec.get("volumes"))}
    found = [
        _mount(each, volumes[each.get("name")], variables)
        for each in items_of(pod.container.get("volumeMounts"))
        if each.get("name") in volumes
    ]
    return tuple(sorted(found, key=lambda mount: mount.path.parts))


def uses_variables(pod: ContainerView) -> bool:
    """Whether a mount depends on the container's environment."""
    return any(each.get("subPathExpr") for each in items_of(pod.container.get("volumeMounts")))


def touched(mounts: tuple[Mount, ...], path: PurePosixPath) -> tuple[Mount, ...]:
    """The mounts below *path*, and the innermost one that it is in."""
    above = [mount for mount in mounts if path.is_relative_to(mount.path)][-1:]
    return (*above, *(mount for mount in mounts if mount.path != path and mount.path.is_relative_to(path)))


def mounts_need(mounts: tuple[Mount, ...], path: PurePosixPath, pod: ContainerView) -> Needs:
    """What has to be read for the files at and below *path*: no token is asked for that is not among them."""
    needs = Needs()
    for mount in mounts:
        if is_readable(mount.volume):
            needs |= volume_needs(mount.volume, pod, partial(_is_below, mount, path))
    return needs


def pulled(mounts: tuple[Mount, ...], path: PurePosixPath, sources: Sources) -> Pulled:
    """The files at and below *path*; those of *mounts*, which is the result of :func:`touched`.

    A single file is called by its own name; the files of a folder as in it. Raises ValueError for more than a laptop
    should take.
    """
    files: dict[PurePosixPath, LocalFile] = {}
    missing: list[Missing] = []
    for mount in mounts:
        if not is_readable(mount.volume):
            why = "its files are in the pod only; kubectl cp copies them"
            missing.append(Missing(str(mount.path), f"volume {mount.volume.get('name')}: {kind_of(mount.volume)}", why))
            continue
        if mount.problem is not None:
            missing.append(Missing(str(mount.path), f"volume {mount.volume.get('name')}", mount.problem))
            continue
        made = files_of(mount.volume, sources, partial(_is_below, mount, path))
        missing += made.missing
        for file in made.files.values():
            problem = unfit(file.path)
            if problem is not None:
                missing.append(Missing(f"{mount.path}: {file.path!r}", f"volume {mount.volume.get('name')}", problem))
                continue
            files |= {each.path: each for each in _at(mount, file, path, mounts)}
    if len(files) > MAX_FILES or sum(len(each.content) for each in files.values()) > MAX_BYTES:
        raise ValueError(f"there are more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB")
    return Pulled(tuple(files.values()), tuple(missing))


def unfit(path: str) -> str | None:
    """Why a relative path must not be written; None where it may."""
    parts = path.split("/")
    if path.startswith("/") or not all(parts) or "\0" in path:
        return "this is no relative path"
    if any(part.startswith("..") or part == "." for part in parts):
        return "it would lead elsewhere, or hide what the kubelet names so"
    if len(parts) > _DEPTH or any(len(part.encode("utf-8", "surrogateescape")) > _NAME_BYTES for part in parts):
        return "it is too long"
    return None


def local_mode(file: VolumeFile) -> int:
    """Permission bits on the laptop: those of the volume, but a secret is its owner's alone, who can read all of it.

    In the pod a group or everybody may be the app; here they are other people. No bit but permissions is taken over.
    """
    return file.mode & (0o700 if file.secret else 0o775) | 0o400


def _at(mount: Mount, file: VolumeFile, path: PurePosixPath, mounts: tuple[Mount, ...]) -> Iterator[LocalFile]:
    """The file as it is seen at *path*; nothing where it is elsewhere, or another mount hides it."""
    seen = _seen(mount, file.path)
    inner = (other.path for other in mounts if other.path != mount.path and other.path.is_relative_to(mount.path))
    if seen is None or not seen.is_relative_to(path) or any(map(seen.is_relative_to, inner)):
        return
    relative = seen.relative_to(path) if seen != path else PurePosixPath(seen.name)
    yield LocalFile(relative, file.content, local_mode(file))


def _is_below(mount: Mount, path: PurePosixPath, inner: str) -> bool:
    seen = _seen(mount, inner)
    return seen is not None and seen.is_relative_to(path)


def _seen(mount: Mount, inner: str) -> PurePosixPath | None:
    """Where the container finds a file of the volume; None where its part of the volume does not have it."""
    if not mount.sub_path:
        return mount.path / inner
    if not PurePosixPath(inner).is_relative_to(mount.sub_path):
        return None
    return mount.path / PurePosixPath(inner).relative_to(mount.sub_path)


def _mount(each: Object, volume: Object, variables: Mapping[str, str]) -> Mount:
    path = PurePosixPath("/", str(each.get("mountPath")))
    if path.parts[1:] and (why := unfit("/".join(path.parts[1:]))) is not None:
        return Mount(path, volume, problem=f"its mountPath: {why}")  # the API server takes `/../..`
    expression, unknown = str(each.get("subPathExpr") or ""), list[str]()

    def value_of(name: str) -> str | None:
        if name not in variables:
            unknown.append(name)
        return variables.get(name)

    try:
        sub_path = expand(expression, value_of, _PATH_MAX) if expression else str(each.get("subPath") or "")
    except ExpansionError as error:
        return Mount(path, volume, problem=f"its subPathExpr: {error}")
    if unknown:
        return Mount(path, volume, problem=f"the variable {unknown[0]} of its subPathExpr is unknown")
    if sub_path and unfit(sub_path) is not None:
        return Mount(path, volume, problem=f"its subPath: {unfit(sub_path)}")
    return Mount(path, volume, sub_path)
