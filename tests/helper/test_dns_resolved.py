"""The order of search domains in systemd-resolved's own file."""

from pathlib import Path

import pytest

from meshdev.helper import dns_resolved
from meshdev.host.dns import search_first

OURS = ("ns.svc.cluster.local",)
TEXT = "nameserver 127.0.0.53\nsearch home.example ns.svc.cluster.local\n"
ORDERED = "nameserver 127.0.0.53\nsearch ns.svc.cluster.local home.example\n"


def test_ours_come_first(tmp_path: Path) -> None:
    path = tmp_path / "stub-resolv.conf"
    path.write_text(TEXT)
    status = dns_resolved._order_file(path, OURS)
    assert path.read_text() == ORDERED
    assert status.st_mtime_ns == path.stat().st_mtime_ns


def test_a_file_that_resolved_wrote_meanwhile_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, newer = tmp_path / "stub-resolv.conf", tmp_path / "newer"
    path.write_text(TEXT)
    newer.write_text("nameserver 127.0.0.53\nsearch office.example\n")

    def rename_meanwhile(text: str, ours: tuple[str, ...]) -> str:
        newer.rename(path)
        return search_first(text, ours)

    monkeypatch.setattr(dns_resolved, "search_first", rename_meanwhile)
    status = dns_resolved._order_file(path, OURS)
    assert path.read_text() == "nameserver 127.0.0.53\nsearch office.example\n"
    assert status.st_ino != path.stat().st_ino  # not taken for ordered


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target, path = tmp_path / "target", tmp_path / "stub-resolv.conf"
    target.write_text(TEXT)
    path.symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        dns_resolved._order_file(path, OURS)
    assert target.read_text() == TEXT
