"""What may stand in a project file, what it means, and what is said, with which place, where something is wrong."""

from pathlib import Path

import pytest

from meshdev.errors import ProjectFileError
from meshdev.intercept.match import MATCH_KINDS
from meshdev.project import reading, schema
from meshdev.project.building import camel
from meshdev.project.model import (
    RESTARTS,
    CompletedReady,
    HttpReady,
    LogReady,
    Project,
    ProjectProcess,
    TcpReady,
)
from meshdev.wire.modes import MESH, MODES, PROXY
from meshdev.wire.session_api import CARRIERS, ConnectOptions
from meshdev.wire.session_intercepts import ASKED_STRATEGIES, InterceptRequest
from tests.project.projects import project

WHOLE = """
    connection:
      kubeconfig: ./dev.kubeconfig
      context: dev
      namespace: team-1
      as: jane
      requestTimeout: 1m30s
      ssh: jane@bastion:2222
      managerNamespace: meshdev
      image: registry.example/tm:1
      imagePullSecret: pull
      carrier: websocket
      also: [10.20.0.0/16]
      never: [10.20.30.0/24]
    intercepts:
      b:
        target: deployment/b
        mode: mesh
        namespace: team-2
        headers: ["x-user=${USER}", x-debug]
        pathPrefix: /v1
        method: GET
        baggage: [user=jane]
        tracestate: [a=1]
        ports: [8080:http, 9090]
        strategy: patch
        takeover: true
        existing: reset
        fallback: false
      c: {target: svc/c, mode: proxy}
    processes:
      migrate:
        command: ./migrate.sh --to $VERSION ${X}
        ready: {completed: true}
      b:
        command: [python3, app.py, "two words"]
        workingDir: services/b
        env: {PORT: 8080, RATIO: 1.10, DEBUG: on, TRACE: true, WHO: "${USER}"}
        envFrom: deployment/b
        serves: [b]
        dependsOn: [migrate]
        ready: {http: "http://localhost:8080/healthz?full=1", timeout: 5s}
        restart: on-failure
        stopTimeout: 500ms
      c: {command: c, workingDir: /opt/c, ready: {tcp: "[::1]:8081"}}
      d: {command: d, ready: {log: listening on}, restart: always}
"""


def test_everything_that_may_be_in_it() -> None:
    assert project(WHOLE, {"USER": "jane"}) == Project(
        ConnectOptions(
            kubeconfig="/srv/shop/dev.kubeconfig",
            context="dev",
            namespace="team-1",
            as_user="jane",
            request_timeout=90.0,
            manager_namespace="meshdev",
            image="registry.example/tm:1",
            image_pull_secret="pull",  # noqa: S106 -- the name of one
            carrier="websocket",
            also=("10.20.0.0/16",),
            never=("10.20.30.0/24",),
            ssh="jane@bastion:2222",
        ),
        tuple(project(WHOLE, {"USER": "jane"}).intercepts),
        (
            ProjectProcess(
                name="migrate",
                command=("sh", "-c", "./migrate.sh --to $VERSION ${X}"),
                directory="/srv/shop",
                ready=CompletedReady(),
            ),
            ProjectProcess(
                name="b",
                command=("python3", "app.py", "two words"),
                directory="/srv/shop/services/b",
                env=(("PORT", "8080"), ("RATIO", "1.10"), ("DEBUG", "on"), ("TRACE", "true"), ("WHO", "jane")),
                env_from="deployment/b",
                serves=("b",),
                depends_on=("migrate",),
                ready=HttpReady("127.0.0.1", 8080, "/healthz?full=1"),
                ready_seconds=5.0,
                restart="on-failure",
                stop_seconds=0.5,
            ),
            ProjectProcess(name="c", command=("sh", "-c", "c"), directory="/opt/c", ready=TcpReady("::1", 8081)),
            ProjectProcess(
                name="d",
                command=("sh", "-c", "d"),
                directory="/srv/shop",
                ready=LogReady("listening on"),
                restart="always",
            ),
        ),
    )


def test_intercepts_are_what_the_commands_ask_for() -> None:
    assert [each.request for each in project(WHOLE, {"USER": "jane"}).intercepts] == [
        InterceptRequest(
            target="deployment/b",
            namespace="team-2",
            mode=MESH,
            headers=("x-user=jane", "x-debug"),
            path_prefix="/v1",
            method="GET",
            baggage=("user=jane",),
            tracestate=("a=1",),
            ports=("8080:http", "9090"),
            strategy="patch",
            takeover=True,
            reset_existing=True,
            fallback=False,
        ),
        InterceptRequest(target="svc/c", namespace="team-1", mode=PROXY),
    ]


def test_an_empty_file_is_a_connection() -> None:
    for text in ("", "# nothing\n", "connection: {}\n"):
        assert project(text) == Project(ConnectOptions(), (), ())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        # the text itself
        ("a: [1,\nb: 2", "3:1: no YAML: did not find"),
        ("a:\n\tb: 1", "2:1: no YAML: found character that cannot start any token"),
        ("a: b: c", "1:5: no YAML: mapping values are not allowed"),
        ("a: &a [*b]", "1:8: no YAML: found undefined alias"),
        ("a: !!python/name:os.system x", "1:4: a: the tag tag:yaml.org,2002:python/name:os.system is not supported"),
        ("a: !secret x", "1:4: a: the tag !secret is not supported"),
        ("a: 1\n---\nb: 2", "2:1: no YAML: but found another document"),
        ("connection:\n  context: a\n  context: b", "3:3: connection.context: this key stands twice"),
        ("? [a]\n: b", "1:3: a key is no text"),
        ("a: {<<: 1}", "1:9: a: << takes a mapping"),
        ("a: &a {<<: *a}", "1:4: a: a mapping merges itself"),
        ("a: &a [*a]", "1:4: a[0]"),
        ("[" * 500, "1:25: nested more than 24 deep"),
        ("- a", "1:1: must be a mapping, not a list"),
        # the schema
        ("intercept: {}", "1:1: intercept: unknown key, did you mean intercepts?"),
        (
            "intercepts:\n  b:\n    target: svc/b\n    mode: mesh\n    header: [a]",
            "5:5: intercepts.b.header: unknown key, did",
        ),
        (
            "processes: {b: {command: a, depends_on: []}}",
            "1:29: processes.b.depends_on: unknown key, did you mean dependsOn?",
        ),
        ("processes: {b: {command: a, quux: []}}", "1:29: processes.b.quux: unknown key"),
        (
            "processes: {b: {command: a, restart: no}}",
            "1:38: processes.b.restart: no is none of never, on-failure, always",
        ),
        ("processes: {b: {command: a, restart: onfailure}}", "did you mean on-failure?"),
        ("processes: {b: {command: 3}}", "1:26: processes.b.command: must be a text or a list, not 3"),
        ("processes: {b: {command: [a, 3]}}", "1:30: processes.b.command[1]: must be a text, not 3"),
        ("processes: {b: {command: []}}", "1:26: processes.b.command: is empty"),
        ("processes: {b: {}}", "1:13: processes.b: command is missing"),
        ("processes: {b: }", "1:16: processes.b: must be a mapping, not empty"),
        ("processes: {a b: {command: x}}", "1:13: processes.a b: 'a b' is not letters, digits, - and _"),
        ("processes: {b: {command: x, env: {A-B: 1}}}", "1:35: processes.b.env.A-B: 'A-B' is not a variable's name"),
        (
            "processes: {b: {command: x, env: {A: }}}",
            "1:38: processes.b.env.A: must be a text or a number or true or false",
        ),
        ("processes: {b: {command: x, stopTimeout: 10}}", "1:42: processes.b.stopTimeout: must be a text, not 10"),
        ("processes: {b: {command: x, stopTimeout: soon}}", "'soon' is not a duration such as 30s"),
        (
            "intercepts: {b: {target: svc/b, mode: mseh}}",
            "1:39: intercepts.b.mode: mseh is none of proxy, mesh, did you mean mesh?",
        ),
        ("connection: {namespace: A}", "1:25: connection.namespace: 'A' is not a namespace's name"),
        # what a schema cannot say
        ("connection: {ssh: 'a b'}", "1:19: connection.ssh: invalid ssh 'a b' (use [USER@]HOST[:PORT]"),
        ("connection: {also: [10.0.0.0/33]}", "1:21: connection.also[0]: '10.0.0.0/33' is no IPv4 range"),
        ("intercepts: {b: {target: b, mode: proxy}}", "1:26: intercepts.b.target: the target 'b' has no kind"),
        ("intercepts: {b: {target: svc/b, mode: mesh}}", "1:39: intercepts.b.mode: mesh needs to know which"),
        (
            "intercepts: {b: {target: svc/b, mode: mesh, headers: []}}",
            "1:39: intercepts.b.mode: mesh needs to know which",
        ),
        (
            "intercepts: {b: {target: svc/b, mode: proxy, headers: [a=1]}}",
            "1:46: intercepts.b.headers: mode proxy takes all",
        ),
        (
            "intercepts: {b: {target: svc/b, mode: mesh, headers: [a=1, 'b~(']}}",
            "1:60: intercepts.b.headers[1]: --header b~(",
        ),
        (
            "intercepts: {b: {target: svc/b, mode: mesh, pathPrefix: v1}}",
            "1:57: intercepts.b.pathPrefix: --path-prefix v1",
        ),
        ("intercepts: {b: {target: svc/b, mode: proxy, ports: [80, 0]}}", "1:58: intercepts.b.ports[1]: --port 0"),
        ("processes: {b: {command: x, serves: [c]}}", "1:38: processes.b.serves[0]: there is no intercept c"),
        (
            "processes: {b: {command: x, dependsOn: [c]}}",
            "1:41: processes.b.dependsOn[0]: there is no process c; there is: b",
        ),
        ("processes: {b: {command: x, dependsOn: [b]}}", "1:29: processes.b.dependsOn: waits for itself: b → b"),
        (
            "processes:\n  a: {command: x, dependsOn: [b]}\n  b: {command: x, dependsOn: [a]}",
            "2:19: processes.a.dependsOn: waits for itself: a → b → a",
        ),
        ("processes: {b: {command: x, ready: {}}}", "1:29: processes.b.ready: needs exactly one of http, tcp, log"),
        ("processes: {b: {command: x, ready: {tcp: ':1', log: a}}}", "1:29: processes.b.ready: needs exactly one of"),
        ("processes: {b: {command: x, ready: {tcp: b}}}", "1:42: processes.b.ready.tcp: 'b' is not HOST:PORT"),
        ("processes: {b: {command: x, ready: {tcp: 'b:000080999'}}}", "'b:000080999' is not HOST:PORT"),
        (
            "processes: {b: {command: x, ready: {tcp: 'b:80'}}}",
            "processes.b.ready.tcp: b must be an address of this machine",
        ),
        (
            "processes: {b: {command: x, ready: {http: 'https://[::1]'}}}",
            "processes.b.ready.http: 'https://[::1]' is no URL",
        ),
        ("processes: {b: {command: x, ready: {http: 'http://[::1]:x'}}}", "processes.b.ready.http:"),
        (
            "processes: {b: {command: x, ready: {completed: true}, restart: always}}",
            "1:64: processes.b.restart: what is ready",
        ),
        (
            "processes:\n  a: {command: x, ready: {tcp: ':80'}}\n  b: {command: x, ready: {http: 'http://localhost/'}}",
            "3:33: processes.b.ready.http: process a listens on port 80 already",
        ),
        ("processes: {b: {command: ' '}}", "1:26: processes.b.command: is no command"),
        ('processes: {b: {command: [x, "\\0"]}}', "1:30: processes.b.command[1]: is no command"),
        ("processes: {b: {command: x, envFrom: b}}", "1:38: processes.b.envFrom: the target 'b' has no kind"),
        # variables
        ("connection: {context: '${NONE}'}", "1:23: connection.context: the variable NONE is not set"),
        ("connection: {context: '${A-b}'}", "1:23: connection.context: ${A-b} is neither ${NAME} nor"),
    ],
)
def test_what_is_wrong_has_its_place(text: str, problem: str) -> None:
    with pytest.raises(ProjectFileError) as caught:
        project(text, {"USER": "jane"})
    first = caught.value.message.splitlines()[0]
    assert first.startswith("p.yaml:")
    assert problem in first


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_the_file() -> None:
    text = "\n".join(["processes:", *(f"  p{number}: {{}}" for number in range(25))])
    with pytest.raises(ProjectFileError) as caught:
        project(text)
    lines = caught.value.message.splitlines()
    assert lines[0] == "p.yaml:2:3: processes.p0: command is missing"
    assert lines[19:] == ["p.yaml:21:3: processes.p19: command is missing", "and 5 more"]


def test_a_file_that_grows_by_aliases_is_refused_in_time() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join(f'*{of}' for _ in range(10))}]"
        for of, name in zip("abcdef", "bcdefg", strict=True)
    ]
    with pytest.raises(ProjectFileError, match="more than 20,000 values"):
        project("\n".join(lines))
    with pytest.raises(ProjectFileError, match="more than 262,144"):
        project("#" * (reading.MAX_BYTES + 1))


def test_a_file_that_grows_by_merges_is_refused_in_time() -> None:
    lines = ["a: &a {x: 1}"]
    lines += [
        f"{name}: &{name} {{<<: [{', '.join(f'*{of}' for _ in range(10))}]}}"
        for of, name in zip("abcdefghi", "bcdefghij", strict=True)
    ]
    with pytest.raises(ProjectFileError, match="more than 20,000 values"):
        project("\n".join(lines))


def test_bytes_that_are_no_text() -> None:
    with pytest.raises(ProjectFileError, match=r"p.yaml:2:1: byte 8 is no UTF-8"):
        reading.read(b"a: 1\nb: \xff", "p.yaml")


def test_what_is_merged_has_the_place_where_it_stands() -> None:
    text = """
        intercepts:
          b: &b {target: svc/b, mode: mesh, headers: [a=1]}
          c: {<<: *b, target: svc/c}
          d: {<<: [{mode: proxy}, *b], target: d}
    """
    with pytest.raises(ProjectFileError) as caught:
        project(text)
    assert caught.value.message.splitlines() == [
        "p.yaml:2:37: intercepts.d.headers: mode proxy takes all requests; conditions need mesh",
        (
            "p.yaml:4:40: intercepts.d.target: the target 'd' has no kind (deployment/d or svc/d? KIND/NAME, for "
            "instance deployment/b, deploy/b, sts/db, svc/b or pod/b-1)"
        ),
    ]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${A}", "1"),
        ("x${A}y${A}", "x1y1"),
        ("${B:-2}", "2"),
        ("${E:-2}", "2"),
        ("${E}", ""),
        ("$A $$", "$A $$"),
        ("$${A}", "${A}"),
    ],
)
def test_variables(written: str, value: str) -> None:
    found = project(f"processes: {{b: {{command: '${{A}}', env: {{X: '{written}'}}}}}}", {"A": "1", "E": ""})
    assert found.processes[0].env == (("X", value),)
    assert found.processes[0].command[-1] == "${A}"


def test_the_schema_knows_all_that_the_commands_know() -> None:
    kinds = schema.load()["definitions"]
    intercept, process = kinds["intercept"]["properties"], kinds["process"]["properties"]
    assert {camel(kind.key) for kind in MATCH_KINDS} <= intercept.keys()
    assert intercept["mode"]["enum"] == list(MODES)
    assert intercept["strategy"]["enum"] == list(ASKED_STRATEGIES)
    assert kinds["connection"]["properties"]["carrier"]["enum"] == list(CARRIERS)
    assert process["restart"]["enum"] == list(RESTARTS)


def test_the_example_to_copy_is_right() -> None:
    file = Path(__file__).parent.parent.parent / "examples" / "meshdev.yaml"
    found = project(file.read_text(), {"USER": "jane"})
    assert [each.name for each in found.processes] == ["b", "c", "watch"]
    assert found.intercepts[0].request.baggage == ("user=jane",)


def test_the_file_of_the_page_is_right() -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "up.md"
    [written] = [block for block in page.read_text().split("```") if block.startswith("yaml\n")]
    assert [each.name for each in project(written.removeprefix("yaml\n"), {"USER": "jane"}).processes] == [
        "migrate",
        "b",
    ]
