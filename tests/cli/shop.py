"""A project for `up`: real processes, and what is left of them."""

import socket
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.cli.conftest import Commands

#: Listens on a free port of its own choice, writes it and its pid into a file, and says when it is told to end.
SERVER = """
import http.server, os, pathlib, signal, sys
def end(number, _):
    print("ending by", signal.Signals(number).name, flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
pathlib.Path("new").write_text(str(os.getpid()))
os.replace("new", sys.argv[2])
print("listening", flush=True)
server.serve_forever()
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


class Shop:
    """A project of three processes and two intercepts in a folder of its own."""

    def __init__(self, meshdev: Commands, folder: Path) -> None:
        self.meshdev = meshdev
        self.folder = folder
        self.file = folder / "meshdev.yaml"
        self.port = free_port()
        (folder / "server.py").write_text(SERVER)
        self.write(
            f"""
            intercepts:
              b: {{target: deployment/b, mode: mesh, headers: [a=1]}}
              c: {{target: deployment/c, mode: proxy}}
            processes:
              prepare:
                command: echo prepared > prepared
                ready: {{completed: true}}
              b:
                command: [{sys.executable}, server.py, "{self.port}", b.pid]
                serves: [b]
                dependsOn: [prepare]
                ready: {{http: "http://localhost:{self.port}/", timeout: 10s}}
              web:
                command: echo $$ > web.pid; echo "hello from $WHO"; exec sleep 60
                env: {{WHO: web}}
                dependsOn: [b]
            """
        )

    def write(self, text: str) -> None:
        self.file.write_text(textwrap.dedent(text))

    def edit(self, old: str, new: str) -> None:
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return self.meshdev.start("up", "-f", str(self.file), *words)

    def up(self) -> "subprocess.Popen[str]":
        """Started, and up."""
        process = self.start()
        self.until_up(process)
        return process

    def until_up(self, process: "subprocess.Popen[str]") -> str:
        seen = ""
        assert process.stderr is not None
        while "| up" not in seen:
            line = process.stderr.readline()
            assert line, seen
            seen += line
        return seen

    def pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())

    def processes(self) -> list[int]:
        """Those that run in its folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if (entry / "cwd").readlink() == self.folder and (entry / "stat").read_text().split()[2] != "Z":
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found
