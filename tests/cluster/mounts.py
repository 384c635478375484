"""Mounts that containerd and the kubelet leave behind when they are stopped."""

from pathlib import Path

from tests.cluster.run import run


def below(mountinfo: str, folders: tuple[Path, ...]) -> list[str]:
    """The mount points inside FOLDERS, the deepest first; MOUNTINFO is /proc/self/mountinfo."""
    points = [line.split()[4].replace("\\040", " ") for line in mountinfo.splitlines()]
    return [point for point in reversed(points) if any(Path(point).is_relative_to(folder) for folder in folders)]


def unmount_below(*folders: Path) -> None:
    """Unmount everything inside FOLDERS."""
    for point in below(Path("/proc/self/mountinfo").read_text(), folders):
        run("umount", "--lazy", point)
