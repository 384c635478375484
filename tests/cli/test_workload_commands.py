"""env, pull and run --env-from as real commands, with an API server of the test's."""

import asyncio
import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path, PurePosixPath

import pytest

from meshdev.cli.pulled_files import write
from meshdev.environment.mounts import LocalFile
from meshdev.errors import LaptopError
from tests.cli.conftest import Commands, Ran, Terminal
from tests.kube.conftest import write_kubeconfig
from tests.kube.fake_api import FakeApi, serving
from tests.kube.objects import pod, workload

VALUE = "hunter2-\x1b[31m"


@pytest.fixture
async def fake(meshdev: Commands) -> AsyncIterator[FakeApi]:
    """Deployment b with one pod, with variables and files from a ConfigMap and a Secret."""
    async with serving(FakeApi()) as fake:
        write_kubeconfig(meshdev.home / "config", fake.url)
        made = workload(name="b")
        spec = made["spec"]["template"]["spec"]
        spec["containers"][0] |= {
            "envFrom": [{"configMapRef": {"name": "conf"}}],
            "env": [
                {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "HOME", "value": "/app"},
                {"name": "URL", "value": "http://$(POD)/"},
            ],
            "volumeMounts": [
                {"name": "conf", "mountPath": "/etc/conf"},
                {"name": "db", "mountPath": "/etc/db"},
                {"name": "tmp", "mountPath": "/tmp"},
            ],
        }
        spec["enableServiceLinks"] = False
        spec["volumes"] = [
            {"name": "conf", "configMap": {"name": "conf", "defaultMode": 0o640}},
            {"name": "db", "secret": {"secretName": "db", "defaultMode": 0o444}},
            {"name": "tmp", "emptyDir": {}},
        ]
        fake.put("deployments", made, group="apps")
        fake.put("pods", pod("b-1", made))
        fake.put("configmaps", {"metadata": {"name": "conf"}, "data": {"TEXT": "1\n2", "a.b": "c"}})
        encoded = base64.b64encode(VALUE.encode()).decode()
        fake.put("secrets", {"metadata": {"name": "db"}, "data": {"password": encoded}})
        yield fake


def no_secrets(fake: FakeApi) -> None:
    fake.allow = lambda asked: asked.resource != "secrets"


async def ran(meshdev: Commands, *words: str) -> Ran:
    return await asyncio.to_thread(meshdev, *words)


VARIABLES = {"HOME": "/app", "TEXT": "1\n2", "POD": "b-1", "URL": "http://b-1/", "a.b": "c", "PASSWORD": VALUE}


@pytest.mark.parametrize("option", ["--format", "-o", "--output"])
async def test_env_as_json(meshdev: Commands, fake: FakeApi, option: str) -> None:
    found = await ran(meshdev, "env", "deployment/b", option, "json")
    assert (found.code, found.json(), found.err) == (0, VARIABLES, "")
    assert fake.asked


async def test_env_in_each_format(meshdev: Commands, fake: FakeApi) -> None:
    shell = await ran(meshdev, "env", "deploy/b", "--format", "shell")
    script = ["sh", "-c", f'{shell.out}\nprintf %s "$TEXT$PASSWORD"']
    text = await asyncio.to_thread(subprocess.check_output, script)
    assert text.decode() == f"1\n2{VALUE}"
    assert shell.err == (
        "note: left out of the shell format: HOME: it belongs to this machine's shell\n"
        "note: left out of the shell format: a.b: no shell has variables of such names\n"
    )
    docker = await ran(meshdev, "env", "pod/b-1", "--format=docker")
    assert "URL=http://b-1/\n" in docker.out
    assert "left out of the docker format: TEXT: its value has a newline" in docker.err
    dotenv = await ran(meshdev, "env", "deploy/b")
    assert "TEXT='1\n2'\n" in dotenv.out
    assert fake.asked


async def test_env_without_the_right_to_read_secrets(meshdev: Commands, fake: FakeApi) -> None:
    no_secrets(fake)
    found = await ran(meshdev, "env", "deployment/b", "--format", "json")
    assert (found.code, found.json()) == (0, {key: value for key, value in VARIABLES.items() if key != "PASSWORD"})
    why = "you (dev) may not get secrets in namespace default"
    assert found.err == f"note: not read: PASSWORD (key password of Secret db): {why}\n"
    strict = await ran(meshdev, "env", "deployment/b", "--format", "json", "--strict")
    assert (strict.code, strict.err) == (20, "")
    assert strict.json()["error"]["code"] == "forbidden"
    assert "PASSWORD (key password of Secret db)" in strict.json()["error"]["message"]
    fake.allow = lambda _: True
    fake.remove("secrets", "db")
    gone = await ran(meshdev, "env", "deployment/b", "--strict")
    assert (gone.code, gone.out) == (30, "")


async def test_env_of_a_template(meshdev: Commands, fake: FakeApi) -> None:
    fake.remove("pods", "b-1")
    found = await ran(meshdev, "env", "deployment/b", "-o", "json")
    assert found.json() == {key: value for key, value in VARIABLES.items() if key not in {"POD", "URL"}}
    assert found.err.splitlines()[0] == "note: this is the template of deployment/b: no pod of it runs"
    assert "not read: POD (fieldRef metadata.name): no pod runs that has it" in found.err


async def test_env_on_a_terminal_acts_on_nothing(meshdev: Commands, fake: FakeApi) -> None:
    terminal = Terminal(meshdev, "env", "deployment/b")
    assert await asyncio.to_thread(terminal.finish) == 0
    assert "hunter2-\\x1b[31m" in terminal.seen
    assert "\x1b[31m" not in terminal.seen
    assert fake.asked


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("env", "b"), 2),
        (("env", "deployment/none"), 60),
        (("env", "deployment/b", "-c", "none"), 60),
        (("env", "deployment/b", "--format", "yaml"), 2),
        (("pull", "deployment/b", "x"), 2),
        (("pull", "deployment/b:etc", "x"), 2),
        (("pull", "deployment/b:/etc/../x", "x"), 2),
        (("pull", "deployment/b:/usr", "x"), 60),
        (("pull", "deployment/b:/etc/conf/none", "x"), 60),
        (("pull", "deployment/b:/tmp/x", "x"), 30),
        (("run", "-c", "b", "--", "true"), 125),
    ],
)
async def test_what_is_refused(meshdev: Commands, fake: FakeApi, words: tuple[str, ...], code: int) -> None:
    found = await ran(meshdev, *words)
    assert (found.code, found.out) == (code, ""), found.err
    assert found.err.startswith("meshdev: ")
    assert "Traceback" not in found.err
    assert fake.url


async def test_pull(meshdev: Commands, fake: FakeApi, tmp_path: Path) -> None:
    to = tmp_path / "new" / "dir"
    found = await ran(meshdev, "pull", "deployment/b:/", str(to), "-o", "json")
    assert found.json() == {
        "files": [
            {"path": f"{to}/etc/conf/TEXT", "mode": "0640"},
            {"path": f"{to}/etc/conf/a.b", "mode": "0640"},
            {"path": f"{to}/etc/db/password", "mode": "0400"},
        ],
        "missing": [
            {
                "what": "/tmp",
                "source": "volume tmp: emptyDir",
                "reason": "its files are in the pod only; kubectl cp copies them",
            }
        ],
    }
    assert "note: not read: /tmp (volume tmp: emptyDir)" in found.err
    assert (to / "etc/db/password").read_text() == VALUE
    modes = {
        path: stat.S_IMODE(path.stat().st_mode) for path in (to, to / "etc", to / "etc/db", to / "etc/db/password")
    }
    assert list(modes.values()) == [0o700, 0o700, 0o700, 0o400]
    again = await ran(meshdev, "pull", "deployment/b:/etc/db", str(to / "etc/db"), "--strict")
    assert again == Ran(0, f"{to}/etc/db/password\n", "")
    assert fake.asked


async def test_pull_without_the_right_to_read_secrets(meshdev: Commands, fake: FakeApi, tmp_path: Path) -> None:
    no_secrets(fake)
    found = await ran(meshdev, "pull", "deployment/b:/etc", str(tmp_path))
    assert (found.code, found.out) == (0, f"{tmp_path}/conf/TEXT\n{tmp_path}/conf/a.b\n")
    assert found.err == ("note: not read: volume db (Secret db): you (dev) may not get secrets in namespace default\n")
    nothing = await ran(meshdev, "pull", "deployment/b:/etc/db", str(tmp_path / "none"))
    assert (nothing.code, nothing.out) == (20, "")
    assert not (tmp_path / "none").exists()


async def test_run_with_the_environment(meshdev: Commands, fake: FakeApi) -> None:
    meshdev.env |= {"PASSWORD": "mine", "OWN": "own"}
    code = "import json, os; print(json.dumps(dict(os.environ)))"
    found = await ran(meshdev, "run", "--env-from", "deployment/b", "--", sys.executable, "-c", code)
    assert found.code == 0, found.err
    environment = json.loads(found.out)
    assert {name: environment[name] for name in VARIABLES} == {**VARIABLES, "HOME": str(meshdev.home)}
    assert environment["OWN"] == "own"
    assert "note: 5 environment variables of container b of pod/b-1; HOME as on this machine\n" in found.err
    no_secrets(fake)
    found = await ran(meshdev, "run", "--env-from", "deployment/b", "--", sys.executable, "-c", code)
    assert json.loads(found.out).items() >= {"PASSWORD": "mine", "POD": "b-1"}.items()
    assert "note: not read: PASSWORD (key password of Secret db)" in found.err
    assert VALUE not in "".join(meshdev.trace())


async def test_run_asks_the_cluster_of_the_connection(meshdev: Commands, fake: FakeApi) -> None:
    words = ("run", "--env-from", "deployment/b", "--", "printenv", "POD")
    meshdev.plan(status={"context": "c", "server": fake.url})
    await ran(meshdev, "connect")
    assert (await ran(meshdev, *words)).out == "b-1\n"
    await ran(meshdev, "disconnect")
    meshdev.plan(status={"context": "c", "namespace": "elsewhere"})
    await ran(meshdev, "connect")
    assert "there is no deployment/b in namespace elsewhere" in (await ran(meshdev, *words)).err
    assert (await ran(meshdev, *words[:3], "-n", "default", *words[3:])).out == "b-1\n"
    await ran(meshdev, "disconnect")
    meshdev.plan(status={"context": "c", "server": "https://another"})
    await ran(meshdev, "connect")
    other = await ran(meshdev, *words)
    assert (other.code, other.out) == (125, "")
    assert "this machine is connected to https://another, and context c of the kubeconfig is http://" in other.err


async def test_run_reads_through_the_bastion_of_the_connection(meshdev: Commands, fake: FakeApi) -> None:
    meshdev.plan(status={"context": "c", "server": fake.url, "ssh": "127.0.0.1:1"})  # where nothing listens
    await ran(meshdev, "connect")
    found = await ran(meshdev, "run", "--env-from", "deployment/b", "--", "true")
    assert found.code == 125
    assert "no SSH connection to " in found.err
    assert "`ssh -p 1 " in found.err
    assert not fake.asked


async def test_run_begins_with_nothing_where_the_target_is_not_there(meshdev: Commands, fake: FakeApi) -> None:
    found = await ran(meshdev, "run", "--env-from", "deployment/none", "--", "true")
    assert (found.code, meshdev.trace()) == (125, [])
    asked = len(fake.asked)
    missing = await ran(meshdev, "run", "--env-from", "deployment/b", "--", "no-such-program")
    assert (missing.code, len(fake.asked)) == (127, asked)


def file(path: str, content: bytes = b"x", mode: int = 0o600) -> LocalFile:
    return LocalFile(PurePosixPath(path), content, mode)


def test_symlinks_are_not_followed(tmp_path: Path) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (outside / "file").write_text("theirs")
    (folder / "link").symlink_to(outside)
    (folder / "name").symlink_to(outside / "file")
    with pytest.raises(LaptopError, match="link/file cannot be written"):
        write(folder, [file("link/file")])
    write(folder, [file("name", b"mine")])
    assert (outside / "file").read_text() == "theirs"
    assert not (folder / "name").is_symlink()
    assert (folder / "name").read_bytes() == b"mine"


def test_nothing_is_written_out_of_the_folder(tmp_path: Path) -> None:
    for path in ("../out", "a/../../out", f"{tmp_path}/out"):
        with pytest.raises(LaptopError, match="would lead out"):
            write(tmp_path / "folder", [file("first"), file(path)])
    assert not list(tmp_path.iterdir()), "nor what is before it in the list"


async def test_a_mount_path_does_not_lead_out_of_the_folder(meshdev: Commands, fake: FakeApi) -> None:
    made = workload(name="hostile")
    spec = made["spec"]["template"]["spec"]
    spec["containers"][0]["volumeMounts"] = [{"name": "conf", "mountPath": "/../../outside"}]
    spec["volumes"] = [{"name": "conf", "configMap": {"name": "conf"}}]
    fake.put("deployments", made, group="apps")
    done = await ran(meshdev, "pull", "deployment/hostile:/", str(meshdev.home / "a" / "b"))
    assert done.code != 0
    assert "its mountPath: it would lead elsewhere" in done.err
    assert not (meshdev.home / "outside").exists()


def test_what_is_in_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for path in ("folder", "file/below"):
        with pytest.raises(LaptopError, match="cannot be written"):
            write(tmp_path, [file(path)])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "folder"], "nothing unfinished is left"
    with pytest.raises(LaptopError, match="cannot be written to"):
        write(tmp_path / "file", [])


def test_modes_do_not_depend_on_the_umask(tmp_path: Path) -> None:
    former = os.umask(0o077)
    try:
        write(tmp_path / "a", [file("f", mode=0o644)])
        os.umask(0)
        write(tmp_path / "b" / "c", [file("d/f", mode=0o400)])
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "a" / "f").stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "b" / "c" / "d" / "f").stat().st_mode) == 0o400
    assert stat.S_IMODE((tmp_path / "b" / "c" / "d").stat().st_mode) == 0o700
