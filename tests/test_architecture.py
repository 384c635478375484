"""The shape of the code, mostly held by its imports: who is pure, who may load what, how long a file is.

``.importlinter`` holds the arrows between the folders; here is what import-linter cannot see.
"""

import ast
import functools
import importlib.util
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "meshdev").rglob("*.py"))
ALL_FILES = sorted(path for folder in ("meshdev", "tests", "bench", "demo") for path in (ROOT / folder).rglob("*.py"))

PURE = (
    *("wire", "host", "intercept", "observe", "environment", "doctor/verdicts", "sidecar/envoy", "sidecar/passthrough"),
    *("sidecar/agent/lifecycle", "sidecar/agent/plan", "rate", "manager/tunnel/reports", "manager/tunnel/addresses"),
    *(
        "session/checks",
        "session/dashboard_view",
        "manager/relay/client_hello",
        "manager/relay/permissions",
        "manager/relay/admission",
        "manager/control/budget",
        "manager/control/datagrams",
        "manager/control/decided",
        "manager/control/edges",
        "manager/control/listeners",
        "manager/control/permissions",
        "manager/control/pods",
        "manager/control/reports",
        "manager/control/reporting",
        "manager/control/return_paths",
        "manager/control/totals",
        "manager/control/xds",
    ),
    *("project/building", "project/checking", "project/document", "project/model", "project/ordering"),
    *("project/planning", "project/supervising", "project/variables", "duration", "processes/lines"),
    *("ssh/known_hosts", "ssh/settings", "ssh/target"),
    *("telemetry/causes", "telemetry/endpoint", "telemetry/logs", "telemetry/signals", "telemetry/spans"),
)

#: Input and output, clocks and dice, in the standard library. What a pure module needs of them is an argument.
IMPURE = frozenset(
    {
        *("asyncio", "concurrent", "multiprocessing", "queue", "sched", "threading", "signal", "subprocess"),
        *("ctypes", "fcntl", "mmap", "os", "sys", "termios", "glob", "shutil", "tempfile", "sqlite3"),
        *("http", "select", "selectors", "socket", "socketserver", "ssl", "urllib.request"),
        *("importlib", "logging", "random", "secrets", "time"),
        *("aiohttp", "kubernetes", "pyroute2", "pytun", "rich", "typer", "yaml"),
    }
)
IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "__import__"})

#: Processes whose memory and start-up count, and what they must never load, however indirectly.
LIGHT = {
    "meshdev.helper.__main__": {"kubernetes", "aiohttp", "typer", "rich", "grpc", "yaml", "asyncio", "dns"},
    "meshdev.session.__main__": {
        *("prometheus_client", "opentelemetry", "typer", "rich", "grpc"),
        "meshdev.dashboard",
    },
    # Its gRPC needs no protobuf; what an entry point loads later is in this module.
    "meshdev.sidecar.agent.serving": {
        *("kubernetes", "aiohttp", "typer", "rich", "yaml", "dns", "google", "envoy"),
        *("opentelemetry", "prometheus_client"),
    },
    "meshdev.manager.control.__main__": {"kubernetes", "aiohttp", "typer", "rich", "yaml", "opentelemetry"},
    "meshdev.sidecar.worker.__main__": {
        "kubernetes",
        "aiohttp",
        "typer",
        "rich",
        "grpc",
        "yaml",
        "asyncio",
        "dns",
        "ssl",
    },
    "meshdev.manager.relay.__main__": {"kubernetes", "aiohttp", "typer", "rich", "grpc", "yaml", "dns", "pyroute2"},
    "meshdev.manager.tunnel.__main__": {"kubernetes", "aiohttp", "typer", "rich", "grpc", "yaml", "dns", "pyroute2"},
    "meshdev.cli.live_names": {"kubernetes", "aiohttp", "rich", "grpc", "opentelemetry", "prometheus_client"},
    "meshdev.cli.commands": {  # of every command, and of none
        *("meshdev.cli.connect", "meshdev.cli.options", "meshdev.wire.session_api", "meshdev.intercept"),
        *("kubernetes", "aiohttp", "rich", "grpc", "yaml", "asyncio", "pyroute2", "pytun", "ssl"),
        *("opentelemetry", "prometheus_client"),
    },
}

#: Style: a file is read in one sitting.
LIMIT = 400


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names, those of ``from a import b`` as ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _within(name: str, packages: frozenset[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _pure_files() -> list[Path]:
    """Of folders, and of single files."""
    wanted = tuple(f"{name}/" for name in PURE)
    return [path for path in FILES if f"{path.relative_to(ROOT / 'meshdev').with_suffix('')}/".startswith(wanted)]


@pytest.mark.parametrize("path", _pure_files(), ids=_name)
def test_pure_modules_do_no_input_or_output(path: Path) -> None:
    tree = _tree(path)
    assert [name for name in _imports(tree) if _within(name, IMPURE)] == []
    paths = [name for name in _imports(tree) if name.startswith("pathlib") and not name.startswith("pathlib.Pure")]
    assert paths == [], "only the Pure classes of pathlib leave files alone"
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert called & IMPURE_CALLS == set()


def test_there_are_pure_modules() -> None:
    """The test above must not become empty by a move."""
    folders = {path.parent.name for path in _pure_files()}
    assert {"wire", "host"} <= folders


def _users(*packages: str) -> set[str]:
    """The files of meshdev that import one of them."""
    return {_name(path) for path in FILES for name in _imports(_tree(path)) if _within(name, frozenset(packages))}


def test_only_the_adapter_imports_the_kubernetes_client() -> None:
    assert _users("kubernetes") <= {"meshdev/kube/rest.py"}


def test_only_the_ssh_client_imports_paramiko() -> None:
    """Commands and the session start it, and load neither that nor cryptography."""
    client = {f"meshdev/ssh/{name}.py" for name in ("__main__", "bastion", "keys", "login", "streams")}
    assert _users("paramiko") == client
    assert _loaded("meshdev.ssh.jump", {"paramiko", "cryptography"}) == []


def test_only_telemetry_imports_opentelemetry() -> None:
    assert all(user.startswith("meshdev/telemetry/") for user in _users("opentelemetry"))


def test_only_commands_write_to_the_terminal() -> None:
    assert all(user.startswith("meshdev/cli/") for user in _users("typer", "rich"))


def _loaded(module: str, unwanted: set[str]) -> list[str]:
    """Those of *unwanted* that a new process has loaded after it imported *module*."""
    code = f"import sys, {module}; print(*sorted({unwanted!r} & set(sys.modules)))"
    return subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT).split()


@pytest.mark.parametrize("module", sorted(LIGHT))
def test_what_starts_often_or_stays_loads_little(module: str) -> None:
    assert _loaded(module, LIGHT[module]) == []


@pytest.mark.parametrize(
    "module", sorted(LIGHT.keys() - {"meshdev.manager.relay.__main__", "meshdev.manager.control.__main__"})
)
def test_only_the_image_has_cryptography(module: str) -> None:
    """On the laptop only the SSH client of --ssh has it; where packets pass, it would cost 12 MB
    (meshdev.identity.keys).
    The relay has certificates to read, control issues them."""
    assert _loaded(module, {"cryptography"}) == []


def test_the_arrows_between_the_folders() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    ran = subprocess.run([linter, "--no-cache"], check=False, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout


@pytest.mark.parametrize("path", ALL_FILES, ids=_name)
def test_a_file_is_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LIMIT


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_every_module_says_what_lives_in_it(path: Path) -> None:
    assert ast.get_docstring(_tree(path))


def _literal_types(tree: ast.Module) -> Iterator[str]:
    """Names of ``X = Literal[…]``."""
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name(name)], ast.Subscript(ast.Name("Literal"))):
                yield name


def test_a_class_name_stands_for_one_class() -> None:
    """Whoever reads a name in another file, a traceback or a log knows which class is meant."""
    classes = Counter(node.name for path in FILES for node in ast.walk(_tree(path)) if isinstance(node, ast.ClassDef))
    assert {name for name, count in classes.items() if count > 1} == set()
    assert classes.keys() & {name for path in FILES for name in _literal_types(_tree(path))} == set()


#: Private words that the code once had for the field's terms (docs/glossary.md): door (listener port), ear (listener),
#: wish (desired state), lead (forward), told and said (reported), stranger (unauthenticated peer), ways (return paths).
GONE = frozenset(
    {
        *("apart", "door", "doors", "ear", "ears", "heard", "hears", "knock", "lead", "leading", "leads", "led", "met"),
        *("said", "says", "story", "stranger", "strangers", "tells", "told", "ways", "wish", "wishes"),
    }
)


def _identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                yield name


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_words_that_are_gone_do_not_come_back(path: Path) -> None:
    parts = {part.lower() for name in _identifiers(_tree(path)) for part in re.findall(r"[A-Z]?[a-z]+", name)}
    assert parts & GONE == set()
    assert not set(path.stem.split("_")) & GONE


def test_every_folder_is_a_package() -> None:
    assert [_name(path.parent) for path in FILES if not (path.parent / "__init__.py").exists()] == []


#: Programs that tests hand to another interpreter; no type checker reads them.
IN_TEXT = re.compile(r"^\s*from (meshdev[\w.]*) import ([\w, ]+)$", re.MULTILINE)


def _imported_in_text(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for found in IN_TEXT.finditer(node.value):
                yield from ((found[1], name.split()[0]) for name in found[2].split(","))


def test_what_programs_in_text_import_exists() -> None:
    named = {pair for path in ALL_FILES for pair in _imported_in_text(path)}
    assert len(named) > 10
    missing = []
    for module, name in sorted(named):
        if not hasattr(importlib.import_module(module), name) and importlib.util.find_spec(f"{module}.{name}") is None:
            missing.append(f"{module}.{name}")
    assert missing == []


#: A suppression, and a suppression that goes on with its reason: ``noqa: X -- why``, ``noqa: X (why)``, ``… # why``.
SUPPRESSION = re.compile(r"#\s*(noqa|type:\s*ignore|pragma: no cover)")
EXPLAINED = re.compile(r"#\s*(noqa: [A-Z0-9, ]+|type: ignore\[[a-z, -]+\]|pragma: no cover)\s*(-- |\(|# )\S")


def _comments(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Comments in which *pattern* is found, with their lines."""
    text = path.read_text()
    if pattern.search(text):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT and pattern.search(token.string):
                yield token.start[0], token.string


def _unexplained(path: Path) -> Iterator[str]:
    """Suppressions without a reason, on the same line or in a comment right above."""
    lines = path.read_text().splitlines()
    for row, comment in _comments(path, SUPPRESSION):
        above = lines[row - 2].strip().startswith("# ") if row > 1 else False
        if not above and not EXPLAINED.search(comment):
            yield f"{_name(path)}:{row}: {comment}"


def test_every_suppression_has_its_reason_beside_it() -> None:
    assert [line for path in ALL_FILES for line in _unexplained(path)] == []


#: Where anything at all may be caught, because nobody is above to tell; each tells somebody.
EDGES = {
    "meshdev/manager/relay/connection.py": "one connection: it is reset, the log has it, the others go on",
    "meshdev/cli/commands.py": "a command: a person reads it",
    "meshdev/doctor/runner.py": "one check: its finding says so, the others go on",
    "meshdev/cli/complete.py": "a completion: the shell offers nothing, the command itself reports what is wrong",
    "meshdev/dns/listener.py": "one query: the asker is answered, the log has it, the laptop's DNS goes on",
    "meshdev/session/intercepts.py": "one intercept: who asked is told, the log has it, the connection goes on",
    "meshdev/sidecar/agent/own_key.py": "a child process: stderr has it, and the parent is told by its exit code",
    "meshdev/sidecar/worker/connection.py": "one connection: it is reset, the log has it, the others go on",
    "meshdev/sidecar/worker/recorder.py": "records: they are counted as lost, the log has it, the requests go on",
    "meshdev/sidecar/worker/worker.py": "one connection, as it begins: the same",
    "meshdev/telemetry/exporting.py": "one batch: it is counted as lost, status and the log have it, sending goes on",
    "meshdev/session/supervisor.py": "the session: whoever waits is told, the log has it, everything is undone",
}


def _catches_all(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in caught)


def _swallowed(path: Path) -> Iterator[str]:
    """Handlers for everything that do not end by raising what they caught."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.ExceptHandler) and _catches_all(node) and not isinstance(node.body[-1], ast.Raise):
            yield f"{_name(path)}:{node.lineno}"


def test_everything_is_caught_only_at_the_edge() -> None:
    assert {place.partition(":")[0] for path in FILES for place in _swallowed(path)} == set(EDGES)


def test_no_work_is_left_in_comments() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    assert [f"{_name(path)}:{row}" for path in ALL_FILES for row, _ in _comments(path, marks)] == []


MODES_FILE = ROOT / "meshdev" / "wire" / "modes.py"
#: Of ``run --via proxy``, which is a proxy for programs of the laptop.
OTHER_PROXY = ROOT / "meshdev" / "cli" / "via.py"


def _modes_by_name(tree: ast.AST) -> Iterator[int]:
    """Lines that name a mode as text, or compare with one: a third mode would be forgotten there."""
    compared = {operand for node in ast.walk(tree) if isinstance(node, ast.Compare) for operand in ast.walk(node)}
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value="proxy" | "mesh"):
                yield node.lineno
            case ast.Name(id="PROXY" | "MESH") | ast.Attribute(attr="PROXY" | "MESH") if node in compared:
                yield node.lineno
            case ast.MatchValue(value=ast.Attribute(attr="PROXY" | "MESH")):
                yield node.lineno


def test_what_tells_modes_apart_is_asked_of_the_mode() -> None:
    files = [path for path in FILES if path not in (MODES_FILE, OTHER_PROXY)]
    assert [f"{_name(path)}:{row}" for path in files for row in _modes_by_name(_tree(path))] == []


@pytest.mark.parametrize(
    "code",
    ['if mode == "proxy": pass', "if mode in (modes.MESH, modes.PROXY): pass", "match mode:\n case modes.MESH: pass"],
)
def test_a_mode_that_is_asked_for_by_its_name_is_found(code: str) -> None:
    assert list(_modes_by_name(ast.parse(code)))


#: asyncio.sleep() of no more than this lets others run; a longer one waits for time to pass.
LETS_OTHERS_RUN = 0.05


def _sleeps(tree: ast.AST, function: str = "") -> Iterator[ast.Call]:
    """Calls that let time pass, except those between two looks of ``until…()`` and ``wait_for…()``."""
    for node in ast.iter_child_nodes(tree):
        inner = node.name if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else function
        yield from _sleeps(node, inner)
        if not isinstance(node, ast.Call) or inner.startswith(("until", "wait_for")):
            continue
        match ast.unparse(node.func), node.args:
            case "asyncio.sleep", [ast.Constant(int() | float() as seconds)] if seconds <= LETS_OTHERS_RUN:
                continue
            case "asyncio.sleep" | "time.sleep", _:
                yield node


def test_tests_wait_for_what_happens_and_not_for_time_to_pass() -> None:
    """Stand-ins, which are not named so, may be slow on purpose."""
    tests = [path for path in ALL_FILES if path.name.startswith("test_") or path.name == "conftest.py"]
    assert [f"{_name(path)}:{call.lineno}" for path in tests for call in _sleeps(_tree(path))] == []
