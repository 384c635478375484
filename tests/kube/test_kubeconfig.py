"""Kubeconfig files: what is found, merged and missing."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from meshdev.errors import ConfigError
from meshdev.kube.endpoint import endpoint
from meshdev.kube.kubeconfig import Options, load
from tests.kube.conftest import write_kubeconfig


def options(*files: Path, context: str | None = None, namespace: str | None = None, **more: str) -> Options:
    environment = {"KUBECONFIG": ":".join(map(str, files)), "HOME": "/nonexistent", **more}
    return Options(context=context, namespace=namespace, environment=environment)


def test_the_first_file_wins(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    write_kubeconfig(first, "https://one")
    write_kubeconfig(second, "https://two")
    second.write_text(second.read_text().replace("current-context: c", "current-context: other"))
    found = load(options(tmp_path / "missing", first, second))
    assert (found.context, found.server, found.namespace) == ("c", "https://one", "default")


def test_the_default_is_in_the_home_folder(tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    write_kubeconfig(tmp_path / ".kube" / "config", "https://home/")
    assert load(Options(environment={"HOME": str(tmp_path)})).server == "https://home"


def test_json_is_yaml(tmp_path: Path) -> None:
    path = tmp_path / "c"
    context = {"name": "c", "context": {"cluster": "c", "namespace": "team"}}
    path.write_text(json.dumps({"contexts": [context], "clusters": [{"name": "c", "cluster": {"server": "http://k"}}]}))
    assert load(options(path, context="c")).namespace == "team"
    assert load(options(path, context="c", namespace="mine")).namespace == "mine"


def test_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    user = {"client-key": "k.pem", "tokenFile": "/abs", "exec": {"command": "./plugin"}}
    path = write_kubeconfig(tmp_path / "c", "https://k", user=user, **{"certificate-authority": "ca.pem"})
    found = load(options(path))
    assert found.cluster["certificate-authority"] == str(tmp_path / "ca.pem")
    assert found.user["client-key"] == str(tmp_path / "k.pem")
    assert found.user["tokenFile"] == "/abs"
    assert found.user["exec"]["command"] == str(tmp_path / "plugin")


def test_no_file_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no kubeconfig: .*/x does not exist"):
        load(options(tmp_path / "x"))
    with pytest.raises(ConfigError, match=r"/nonexistent/\.kube/config"):
        load(options())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not YAML"),
        ("- 1", "not a mapping"),
        ("clusters: 3", "clusters .* not a list"),
        ("users: [{name: a, user: 3}]", "an entry of users"),
        ("{}", "no current-context"),
        ("current-context: x", "no context x"),
        ("{current-context: x, contexts: [{name: x, context: {cluster: q}}]}", "names the cluster q"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "c"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        load(options(path))


def test_an_unknown_context_lists_the_known_ones(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "c", "https://k")
    with pytest.raises(ConfigError) as caught:
        load(options(path, context="nope"))
    assert caught.value.message == "the kubeconfig has no context nope"
    assert caught.value.hint == "there is: c"


def test_a_server_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="ftp://k is not an http or https address"):
        load(options(write_kubeconfig(tmp_path / "c", "ftp://k")))


def test_a_proxy_that_cannot_be_used(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "c", "https://k", **{"proxy-url": "https://me:secret@p"})
    with pytest.raises(ConfigError, match="the proxy https://p of context c"):
        endpoint(load(options(path)), {})


def test_the_environments_proxy_and_its_exceptions(tmp_path: Path) -> None:
    found = load(options(write_kubeconfig(tmp_path / "c", "https://k.test:6443")))
    assert endpoint(found, {"HTTPS_PROXY": "http://p:3128"}).proxy == "http://p:3128"
    assert endpoint(found, {"HTTPS_PROXY": "me:secret@p"}).proxy == "http://me:secret@p:80"
    assert endpoint(found, {"HTTPS_PROXY": "http://p:3128", "NO_PROXY": ".test"}).proxy is None
    with pytest.raises(ConfigError, match=r"the proxy ftp://p of context c cannot be used"):
        endpoint(found, {"HTTPS_PROXY": "ftp://me:secret@p"})


def test_user_info_of_the_server_is_not_shown(tmp_path: Path) -> None:
    found = load(options(write_kubeconfig(tmp_path / "c", "https://me:s%40cret@k.test:6443/x?y#z")))
    assert found.server == "https://k.test:6443/x"
    assert found.authorization == "Basic " + base64.b64encode(b"me:s@cret").decode()
    assert "cret" not in repr(found)
    with pytest.raises(ConfigError) as caught:
        load(options(write_kubeconfig(tmp_path / "c", "ftp://me:secret@k.test")))
    assert "secret" not in caught.value.message
    assert "ftp://k.test" in caught.value.message


def test_who_has_neither_home_nor_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(ConfigError, match=r"there is no kubeconfig: ~/\.kube/config"):
        load(Options(environment={}))
    write_kubeconfig(tmp_path / "c", "https://k")
    assert load(Options(environment={"KUBECONFIG": str(tmp_path / "c")})).server == "https://k"


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ({"as": "jane", "as-groups": ["g"]}, "as-groups of its user cannot be used"),
        ({"as": "jane", "as-uid": "1"}, "as-uid of its user cannot be used"),
        ({"as": "jane", "as-user-extra": {"scopes": ["view"]}}, "as-user-extra of its user cannot be used"),
        ({"exec": {"command": "p", "env": {"A": "1"}}}, "env of an exec plugin .* is not a list"),
        ({"exec": {"command": "p", "env": [{"value": "1"}]}}, "env of an exec plugin .* is not a list"),
        ({"exec": {"command": "p", "env": [{"name": "A", "value": 1}]}}, "value in the kubeconfig .* is no text"),
    ],
)
def test_a_user_that_cannot_be_used(tmp_path: Path, user: Any, words: str) -> None:
    path = write_kubeconfig(tmp_path / "config", "https://k", user=user)
    with pytest.raises(ConfigError, match=words):
        load(Options(kubeconfig=str(path), environment={}))
