"""A middlebox of the laptop (:mod:`tests.e2e.middlebox`) between its commands and the API server."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import addresses
from tests.e2e.conftest import Laptop


@dataclass
class Middlebox:
    """It listens on *port* of the laptop's loopback. *broken* is known when it has ended."""

    folder: Path
    port: int
    broken: list[str] = field(default_factory=list)

    def kubeconfig(self, token: str) -> str:
        """The path of one that goes through it, with its authority; readable by everybody, as the token is a test's."""
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": "ca"}
        config = {
            "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
        }
        path = self.folder / "config"
        path.write_text(json.dumps(config))
        return str(path)


@contextmanager
def between(laptop: Laptop, folder: Path, what: str, how: str) -> Iterator[Middlebox]:
    """It breaks connections that ask for *what*, and says how often at the end; its files are in *folder*."""
    certificate = folder / "middlebox.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=middlebox", "-addext"]
    files = ["-keyout", str(folder / "key"), "-out", str(certificate)]
    subprocess.run([*command, "subjectAltName=IP:127.0.0.1", *files], check=True, capture_output=True)
    authority = certificate.read_text()
    certificate.write_text(authority + (folder / "key").read_text())
    (folder / "ca").write_text(authority)
    root, server = Laptop(laptop.number), f"{addresses.NODE}:6443"
    with root.start("python", "-m", "tests.e2e.middlebox", what, how, server, str(certificate)) as process:
        try:
            assert process.stdout is not None
            made = Middlebox(folder, int(process.stdout.readline()))
            yield made
        finally:
            process.kill()
        made.broken = process.stdout.read().split()
