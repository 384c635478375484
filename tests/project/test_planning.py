"""The plan of a project for people and scripts, and how two versions of a file differ."""

from meshdev.project import planning
from tests.project.projects import project

FILE = """
    connection: {context: dev, namespace: team-1}
    intercepts:
      b: {target: deployment/b, mode: mesh, headers: [x-user=jane], ports: [8080:http]}
      c: {target: svc/c, mode: proxy}
    processes:
      b: {command: python3 app.py | cat, serves: [b], ready: {tcp: "localhost:8080"}, env: {TOKEN: s3cret}}
      web: {command: [npm, run, "two words"], workingDir: web, dependsOn: [b]}
"""


def test_the_plan_for_people() -> None:
    assert list(planning.lines(project(FILE))) == [
        "connect    context dev, namespace team-1",
        "start      b: python3 app.py | cat, ready when 127.0.0.1:8080 takes connections",
        "intercept  c: proxy svc/c, all traffic",
        "intercept  b: mesh deployment/b, x-user=jane, port 8080:http",
        "start      web: npm run 'two words', ready as soon as it runs",
    ]
    assert list(planning.lines(project(""))) == ["connect    the current context"]


def test_the_plan_for_scripts_has_names_of_variables_and_no_values() -> None:
    steps = planning.steps(project(FILE))
    assert [step.step for step in steps] == ["connect", "start", "intercept", "intercept", "start"]
    assert steps[1].env == ("TOKEN",)
    assert "s3cret" not in str(steps)


def test_what_an_edit_changes_is_named() -> None:
    old = planning.digests(project(FILE))
    assert planning.differences(old, planning.digests(project("# a comment\n" + FILE))) == []
    edited = FILE.replace("s3cret", "other").replace("c: {target", "d: {target").replace("team-1", "team-2")
    assert planning.differences(old, planning.digests(project(edited))) == [
        "connection changed",
        "intercept b changed",
        "process b changed",
        "intercept d added",
        "intercept c removed",
    ]
    ready = FILE.replace('tcp: "localhost:8080"', 'http: "http://localhost:8080/"')
    assert planning.differences(old, planning.digests(project(ready))) == ["process b changed"]
