"""What is found below a path of a container: kinds of volumes, sub paths, mounts in mounts, modes, hostile paths."""

from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.environment import mounts
from meshdev.environment.mounts import Pulled, container_path, mounts_need, mounts_of, pulled, touched, unfit
from meshdev.environment.sources import Entries, Store, TokenRequest, Unreadable
from tests.environment.making import ABSENT, FORBIDDEN, config_map, pod, secret, sources

TOKEN = {"serviceAccountToken": {"path": "token", "audience": "vault", "expirationSeconds": 600}}


def volume(name: str, **source: Any) -> dict[str, Any]:
    return {"name": name, **source}


def at(path: str, name: str, **more: str) -> dict[str, Any]:
    return {"mountPath": path, "name": name, **more}


def pull(path: str, volumes: list[Any], mounted: list[Any], *stores: Any, variables: Any = None, **more: Any) -> Pulled:
    view = pod({"volumeMounts": mounted}, volumes=volumes, **({"live": more.pop("live")} if "live" in more else {}))
    where = container_path(path)
    found = touched(mounts_of(view, variables or {}), where)
    needed = mounts_need(found, where, view)
    given = sources(view, *stores, **more)
    assert needed.stores <= given.stores.keys()
    assert needed.tokens == frozenset(given.tokens)
    return pulled(found, where, given)


def listing(found: Pulled) -> dict[str, str]:
    return {str(each.path): f"{each.mode:o} {each.content.decode()}" for each in found.files}


CONFIG = [volume("c", configMap={"name": "conf"})]
CONF = config_map("conf", **{"a.yaml": "a: 1", "b": "2"})


def test_a_config_map() -> None:
    mounted = [at("/etc/conf", "c")]
    expected = {"a.yaml": "644 a: 1", "b": "644 2"}
    assert listing(pull("/etc/conf", CONFIG, mounted, CONF)) == expected
    assert listing(pull("/etc/conf/", CONFIG, mounted, CONF)) == expected
    assert listing(pull("/etc/conf/b", CONFIG, mounted, CONF)) == {"b": "644 2"}
    assert listing(pull("/", CONFIG, mounted, CONF)) == {f"etc/conf/{name}": what for name, what in expected.items()}
    assert listing(pull("/etc/conf/none", CONFIG, mounted, CONF)) == {}
    assert pull("/etc/con", CONFIG, mounted, {}) == pull("/usr", CONFIG, mounted, {}) == Pulled(())


@pytest.mark.parametrize("path", ["/../../home/dev/.ssh", "/etc/../../x", "/a\0b", "/..", "/" + "n" * 256])
def test_a_mount_path_that_leads_elsewhere_is_named_and_not_written(path: str) -> None:
    """The API server accepts any text as a mountPath, and a template need not be able to run."""
    found = pull("/", CONFIG, [at(path, "c"), at("/etc/conf", "c")], CONF)
    assert set(listing(found)) == {"etc/conf/a.yaml", "etc/conf/b"}
    (missing,) = found.missing
    assert missing.why.startswith("its mountPath: ")


def test_a_sub_path_that_is_expanded_beyond_any_path() -> None:
    mounted = [at("/c", "c", subPathExpr="$(A)" * 50)]
    (missing,) = pull("/c", CONFIG, mounted, CONF, variables={"A": "a" * 100}).missing
    assert missing.why == "its subPathExpr: its references make it too long"


def test_binary_data_is_in_a_volume() -> None:
    store = {Store("ConfigMap", "conf"): Entries({"a": b"1"}, {"b": b"\xff"})}
    found = pull("/c", CONFIG, [at("/c", "c")], store)
    assert {str(each.path): each.content for each in found.files} == {"a": b"1", "b": b"\xff"}


def test_items_and_modes() -> None:
    items = [{"key": "a.yaml", "path": "deep/er/x"}, {"key": "b", "path": "y", "mode": 0o755}]
    made = [volume("c", configMap={"name": "conf", "items": items, "defaultMode": 0o440})]
    assert listing(pull("/c", made, [at("/c", "c")], CONF)) == {"deep/er/x": "440 a: 1", "y": "755 2"}


@pytest.mark.parametrize(
    ("declared", "of_config", "of_secret"),
    [(0o644, 0o644, 0o600), (0o440, 0o440, 0o400), (0o777, 0o775, 0o700), (0o0, 0o400, 0o400), (0o7040, 0o440, 0o400)],
)
def test_a_secret_is_its_owners_alone(declared: int, of_config: int, of_secret: int) -> None:
    made = [
        volume("c", configMap={"name": "conf", "defaultMode": declared}),
        volume("s", secret={"secretName": "db", "defaultMode": declared}),
    ]
    found = pull("/m", made, [at("/m/c", "c"), at("/m/s", "s")], config_map("conf", a="1"), secret("db", k=b"s"))
    assert {str(each.path): each.mode for each in found.files} == {"c/a": of_config, "s/k": of_secret}


def test_a_projected_volume() -> None:
    made = [
        volume(
            "p",
            projected={
                "defaultMode": 0o444,
                "sources": [
                    TOKEN,
                    {"configMap": {"name": "conf", "items": [{"key": "b", "path": "ca.crt"}]}},
                    {"secret": {"name": "db", "items": [{"key": "k", "path": "k", "mode": 0o640}]}},
                    {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
                    {"clusterTrustBundle": {"name": "bundle", "path": "bundle.pem"}},
                ],
            },
        )
    ]
    token = {TokenRequest("vault", 600): "eyJ"}
    found = pull("/p", made, [at("/p", "p")], CONF, secret("db", k=b"s"), tokens=token)
    assert listing(found) == {"token": "400 eyJ", "ca.crt": "444 2", "k": "600 s", "ns": "444 shop"}
    assert [str(each) for each in found.missing] == [
        "volume p: bundle.pem (clusterTrustBundle): the kubelet makes this file, and it is in the pod only"
    ]
    # A token is a new credential: not asked for where it is not wanted.
    assert listing(pull("/p/ns", made, [at("/p", "p")], CONF, secret("db", k=b"s"))) == {"ns": "444 shop"}
    refused = pull(
        "/p/token", made, [at("/p", "p")], CONF, secret("db"), tokens={TokenRequest("vault", 600): FORBIDDEN}
    )
    assert (listing(refused), refused.missing[0].forbidden) == ({}, True)


def test_the_downward_api() -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "d/cpu", "resourceFieldRef": {"containerName": "app", "resource": "limits.cpu"}, "mode": 0o600},
    ]
    made = [volume("d", downwardAPI={"items": items})]
    found = pull("/d", made, [at("/d", "d")], allocatable={"cpu": "4"})
    assert listing(found) == {"labels": '644 app="web"\ntier="front"', "d/cpu": "600 4"}
    template = pull("/d", made, [at("/d", "d")], live=False)
    assert (listing(template), [each.what for each in template.missing]) == (
        {},
        ["volume d: labels", "volume d: d/cpu"],
    )


def test_what_is_optional_missing_or_forbidden() -> None:
    made = [
        volume("o", secret={"secretName": "none", "optional": True}),
        volume("m", secret={"secretName": "gone"}),
        volume("f", secret={"secretName": "db"}),
        volume("k", configMap={"name": "conf", "items": [{"key": "zz", "path": "zz"}]}),
    ]
    stores = {Store("Secret", "none"): ABSENT, Store("Secret", "gone"): ABSENT, Store("Secret", "db"): FORBIDDEN}
    found = pull("/", made, [at(f"/{each['name']}", each["name"]) for each in made], stores, CONF)
    assert found.files == ()
    assert [str(each) for each in found.missing] == [
        "volume f (Secret db): you may not get secrets in namespace shop",
        "volume k (key zz of ConfigMap conf): there is no such key",
        "volume m (Secret gone): there is none",
    ]


@pytest.mark.parametrize("kind", ["emptyDir", "hostPath", "persistentVolumeClaim", "csi", "image"])
def test_other_volumes_are_named(kind: str) -> None:
    found = pull("/data/x", [volume("v", **{kind: {}})], [at("/data", "v")])
    assert [str(each) for each in found.missing] == [
        f"/data (volume v: {kind}): its files are in the pod only; kubectl cp copies them"
    ]


def test_sub_paths() -> None:
    items = [{"key": "a.yaml", "path": "d/a"}, {"key": "b", "path": "d/b"}]
    made = [*CONFIG, volume("i", configMap={"name": "conf", "items": items})]
    mounted = [
        at("/etc/app.yaml", "c", subPath="a.yaml"),
        at("/d", "i", subPath="d"),
        at("/e", "c", subPathExpr="$(FILE)"),
        at("/u", "c", subPathExpr="$(NONE)"),
        at("/h", "c", subPath="../h"),
    ]
    found = pull("/", made, mounted, CONF, variables={"FILE": "b"})
    assert listing(found) == {"etc/app.yaml": "644 a: 1", "d/a": "644 a: 1", "d/b": "644 2", "e": "644 2"}
    assert [each.what for each in found.missing] == ["/h", "/u"]
    assert listing(pull("/etc/app.yaml", made, mounted, CONF)) == {"app.yaml": "644 a: 1"}


def test_an_inner_mount_hides_what_is_below_it() -> None:
    items = [{"key": "b", "path": "in/b"}, {"key": "b", "path": "index"}]
    made = [volume("c", configMap={"name": "conf", "items": items}), volume("s", secret={"secretName": "db"})]
    mounted = [at("/c/in", "s"), at("/c", "c")]
    assert listing(pull("/c", made, mounted, CONF, secret("db", k=b"s"))) == {"index": "644 2", "in/k": "600 s"}
    assert listing(pull("/c/in", made, mounted, secret("db", k=b"s"))) == {"k": "600 s"}


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "",
        "a//b",
        "./a",
        "a/.",
        "..data",
        "a\0b",
        "x" * 256,
        "/".join("x" * 33),
        "a/",
    ],
)
def test_hostile_paths_are_not_written(path: str) -> None:
    assert unfit(path) is not None
    made = [volume("c", configMap={"name": "conf", "items": [{"key": "b", "path": path}]})]
    found = pull("/c", made, [at("/c", "c")], CONF)
    assert (found.files, len(found.missing)) == ((), 1)


@settings(deadline=None)
@given(st.text(st.sampled_from("./a\0"), max_size=12))
def test_what_is_fit_stays_below(path: str) -> None:
    if unfit(path) is None:
        parts = PurePosixPath("/dir", path).parts
        assert parts[:2] == ("/", "dir")
        assert not {"..", "."} & set(parts)
        assert len(parts) > 2


@pytest.mark.parametrize("text", ["", "etc", "../etc", "/etc/../x", "/a\0b", "~"])
def test_paths_that_are_not_taken(text: str) -> None:
    with pytest.raises(ValueError, match="is no absolute path"):
        container_path(text)


def test_paths_are_normal() -> None:
    assert [str(container_path(text)) for text in ("/", "//", "/a/", "//a//b/.")] == ["/", "/", "/a", "/a/b"]


def test_more_than_a_laptop_should_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "MAX_BYTES", 3)
    with pytest.raises(ValueError, match="there are more than"):
        pull("/c", CONFIG, [at("/c", "c")], CONF)


def test_no_content_is_in_a_repr() -> None:
    found = pull("/s", [volume("s", secret={"secretName": "db"})], [at("/s", "s")], secret("db", k=b"hunter2"))
    assert "hunter2" not in repr(found)
    assert isinstance(FORBIDDEN, Unreadable)
