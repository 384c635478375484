"""The environment of a container: order, precedence, references, and what is missing."""

from typing import Any

import pytest

from meshdev.environment.sources import Needs, Store, Unreadable, config_map_entries, secret_entries
from meshdev.environment.variables import Variables, variables_need, variables_of
from tests.environment.making import ABSENT, FORBIDDEN, config_map, pod, secret, service, sources

SECRET = {Store("Secret", "db"): FORBIDDEN}


def key(ref: str, name: str, of: str, variable: str = "X", **more: Any) -> dict[str, Any]:
    return {"name": variable, "valueFrom": {f"{ref}KeyRef": {"name": of, "key": name, **more}}}


def made(container: dict[str, Any], *stores: Any, **more: Any) -> Variables:
    spec = {name: more.pop(name) for name in ("enableServiceLinks", "live") if name in more}
    return variables_of(sources(pod(container, **spec), *stores, **more))


def complete(found: Variables) -> dict[str, str]:
    assert found.missing == ()
    return dict(found.values)


def reasons(found: Variables) -> list[str]:
    return [str(each) for each in found.missing]


def test_references_do_not_fill_the_memory() -> None:
    env = [{"name": "A0", "value": "x" * 100}]
    env += [{"name": f"A{number}", "value": f"$(A{number - 1})" * 10} for number in range(1, 20)]
    found = made({"env": [*env, {"name": "LAST", "value": "$(A0)"}]})
    assert sum(map(len, found.values.values())) < 8 << 20
    assert str(found.missing[0]) == "A5 (value): its references make it too long"
    assert len(found.missing) == 15, "what refers to it is missing, too"
    assert found.values["LAST"] == "x" * 100


def test_many_references_to_one_value_do_not_either() -> None:
    env = [{"name": "A", "value": "x" * 100_000}, *({"name": f"B{number}", "value": "$(A)"} for number in range(1000))]
    assert sum(map(len, made({"env": env}).values.values())) < 9 << 20


def test_the_later_wins_and_env_before_env_from() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "one"}}, {"secretRef": {"name": "two"}, "prefix": "P_"}],
        "env": [
            {"name": "A", "value": "env"},
            {"name": "P_B", "value": ""},
            {"name": "D"},
            {"name": "A", "value": "again"},
        ],
    }
    found = made(container, config_map("one", A="1", P_B="1", C="1", P_C="1"), secret("two", B=b"2", C=b"2"))
    assert complete(found) == {"A": "again", "C": "1", "D": "", "P_B": "", "P_C": "2"}


def test_references_see_what_came_before_and_services() -> None:
    env = [
        {"name": "EARLY", "value": "$(LATE)|$(FROM)|$(DB_SERVICE_HOST)"},
        {"name": "LATE", "value": "late"},
        {"name": "THEN", "value": "$(LATE) $$(LATE)"},
        {"name": "SELF", "value": "$(SELF)"},
        {"name": "FROM", "value": "<$(FROM)>"},
    ]
    container = {"envFrom": [{"configMapRef": {"name": "one"}}], "env": env}
    found = made(container, config_map("one", FROM="from $(LATE)"), services=[service("db", "10.96.0.9", {"port": 1})])
    values = complete(found)
    assert values["EARLY"] == "$(LATE)|from $(LATE)|10.96.0.9"
    assert values["THEN"] == "late $(LATE)"
    assert values["SELF"] == "$(SELF)"
    assert values["FROM"] == "<from $(LATE)>"


def test_what_is_not_a_value_is_not_expanded() -> None:
    env = [{"name": "A", "value": "a"}, key("secret", "k", "db"), key("configMap", "k", "one", "Y")]
    assert complete(made({"env": env}, secret("db", k=b"$(A) $$"), config_map("one", k="$(A)"))) == {
        "A": "a",
        "X": "$(A) $$",
        "Y": "$(A)",
    }


def test_a_value_comes_before_value_from() -> None:
    both = {**key("secret", "k", "db"), "value": "v"}
    assert complete(made({"env": [both]})) == {"X": "v"}
    assert complete(made({"env": [{**both, "value": ""}]}, secret("db", k=b"s"))) == {"X": "s"}


def test_fields_and_resources() -> None:
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
        {"name": "BOTH", "value": "$(NAME)/$(CPU)"},
    ]
    found = made({"env": env, "resources": {"limits": {"cpu": "2"}}})
    assert complete(found) == {"NAME": "web-1", "CPU": "2000", "BOTH": "web-1/2000"}


@pytest.mark.parametrize("ref", ["configMap", "secret"])
def test_optional_keys_and_stores(ref: str) -> None:
    store = Store("ConfigMap" if ref == "configMap" else "Secret", "s")
    there = config_map("s", a="1") if ref == "configMap" else secret("s", a=b"1")
    before = {"name": "X", "value": "before"}
    assert complete(made({"env": [before, key(ref, "none", "s", optional=True)]}, there)) == {"X": "before"}
    assert complete(made({"env": [key(ref, "none", "s", optional=True)]}, {store: ABSENT})) == {}
    assert reasons(made({"env": [before, key(ref, "none", "s")]}, there)) == [
        f"X (key none of {store}): there is no such key"
    ]
    assert reasons(made({"env": [key(ref, "a", "s")]}, {store: ABSENT})) == [f"X (key a of {store}): there is none"]
    assert complete(made({"envFrom": [{f"{ref}Ref": {"name": "s", "optional": True}}]}, {store: ABSENT})) == {}
    assert reasons(made({"envFrom": [{f"{ref}Ref": {"name": "s"}, "prefix": "P_"}]}, {store: ABSENT})) == [
        f"P_* ({store}): there is none"
    ]


def test_what_may_not_be_read_is_named_and_the_rest_is_there() -> None:
    env = [key("secret", "k", "db", optional=True), {"name": "USES", "value": "a$(X)b"}, {"name": "B", "value": "b"}]
    found = made({"env": env}, SECRET)
    assert found.values == {"B": "b"}
    assert reasons(found) == [
        "X (key k of Secret db): you may not get secrets in namespace shop",
        "USES ($(X)): key k of Secret db: you may not get secrets in namespace shop",
    ]
    assert all(each.forbidden for each in found.missing)


def test_an_unreadable_variable_hides_one_of_its_name() -> None:
    container = {"envFrom": [{"configMapRef": {"name": "one"}}], "env": [key("secret", "k", "db")]}
    links = [service("x", "10.96.0.9", {"port": 1})]
    found = made(container, config_map("one", X="no"), SECRET, services=links)
    assert "X" not in found.values
    again = made({"env": [key("secret", "k", "db"), {"name": "X", "value": "v"}]}, SECRET)
    assert complete(again) == {"X": "v"}
    hidden = made(
        {"env": [key("secret", "k", "db", "X_SERVICE_HOST"), {"name": "Y", "value": "$(X_SERVICE_HOST)"}]},
        SECRET,
        services=links,
    )
    assert not {"X_SERVICE_HOST", "Y"} & hidden.values.keys()


def test_references_that_an_unread_source_may_have() -> None:
    env = [{"name": "A", "value": "$(P_B)"}, {"name": "B", "value": "$(Q)"}]
    found = made({"envFrom": [{"secretRef": {"name": "db"}, "prefix": "P_"}], "env": env}, SECRET)
    assert found.values == {"B": "$(Q)"}
    assert [each.what for each in found.missing] == ["P_*", "A"]


def test_services_that_may_not_be_listed() -> None:
    env = [{"name": "A", "value": "$(DB_PORT_1_TCP_ADDR)"}, {"name": "B", "value": "$(DB)"}]
    found = made({"env": env}, services=FORBIDDEN, api_service=FORBIDDEN)
    assert found.values == {"B": "$(DB)"}
    assert [each.what for each in found.missing] == ["A", "*_SERVICE_HOST, *_PORT, …", "KUBERNETES_*"]


def test_links_can_be_switched_off_but_the_api_server_is_always_there() -> None:
    api = service("kubernetes", "10.96.0.1", {"name": "https", "port": 443})
    own = [service("db", "10.96.0.9", {"port": 1})]
    with_links = complete(made({}, services=own, api_service=api))
    assert (with_links["DB_SERVICE_HOST"], with_links["KUBERNETES_SERVICE_PORT_HTTPS"]) == ("10.96.0.9", "443")
    without = complete(made({}, services=FORBIDDEN, api_service=api, enableServiceLinks=False))
    assert set(without) == {name for name in with_links if name.startswith("KUBERNETES_")}
    another = service("kubernetes", "10.96.0.77", {"port": 1})
    assert complete(made({}, services=[another], api_service=api))["KUBERNETES_SERVICE_HOST"] == "10.96.0.77"


def test_a_variable_of_the_container_comes_before_a_services() -> None:
    env = [{"name": "DB_PORT", "value": "mine"}]
    found = complete(made({"env": env}, services=[service("db", "10.96.0.9", {"port": 1})]))
    assert (found["DB_PORT"], found["DB_SERVICE_HOST"]) == ("mine", "10.96.0.9")


def test_names_that_are_no_identifiers_are_taken() -> None:
    found = made({"envFrom": [{"configMapRef": {"name": "one"}}]}, config_map("one", **{"a.b-c": "1", "1x": "2"}))
    assert complete(found) == {"a.b-c": "1", "1x": "2"}


def test_what_no_environment_can_hold() -> None:
    container = {"envFrom": [{"secretRef": {"name": "db"}}], "env": [{"name": "a=b", "value": "1"}]}
    found = made(container, secret("db", a=b"x\0y", b=b"\xff\xfe"))
    assert found.values == {"b": "\udcff\udcfe"}
    assert [each.why for each in found.missing] == [
        "it holds a NUL byte",
        "its name is none that an environment can hold",
    ]


def test_sources_that_meshdev_cannot_read() -> None:
    env = [
        {"name": "F", "valueFrom": {"fileKeyRef": {"volumeName": "v", "path": "a.env", "key": "K"}}},
        {"name": "G", "valueFrom": {"futureRef": {}}},
    ]
    found = made({"env": env})
    assert reasons(found) == [
        "F (fileKeyRef K in a.env of volume v): the file is in the pod only",
        "G (valueFrom futureRef): meshdev does not know this kind of source",
    ]


def test_a_template_names_what_only_pods_have() -> None:
    env = [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}, {"name": "A", "value": "1"}]
    found = made({"env": env}, live=False)
    assert (found.values, reasons(found)) == ({"A": "1"}, ["IP (fieldRef status.podIP): no pod runs that has it"])


def test_what_has_to_be_read() -> None:
    container = {
        "envFrom": [{"configMapRef": {"name": "one"}}, {"secretRef": {"name": "two"}}],
        "env": [
            key("secret", "k", "db"),
            {"name": "A", "value": "v", "valueFrom": {"secretKeyRef": {"name": "unused", "key": "k"}}},
            {"name": "B", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "containerName": "none"}}},
        ],
    }
    stores = frozenset({Store("ConfigMap", "one"), Store("Secret", "two"), Store("Secret", "db")})
    assert variables_need(pod(container)) == Needs(stores, services=True, node=True)


def test_objects_of_the_api() -> None:
    entries = secret_entries({"data": {"a": "aGk=", "b": "", "c": None}})
    assert not isinstance(entries, Unreadable)
    assert entries.data == {"a": b"hi", "b": b"", "c": b""}
    both = config_map_entries({"data": {"a": "é"}, "binaryData": {"b": "/w=="}})
    assert not isinstance(both, Unreadable)
    assert (both.get("a"), both.get("b"), both.get("c")) == ("é".encode(), b"\xff", None)
    assert "b" not in both.data
    assert isinstance(secret_entries({"data": {"a": "no base64!"}}), Unreadable)
    assert isinstance(config_map_entries({"binaryData": {"a": "?"}}), Unreadable)
    assert secret_entries({}) == config_map_entries({"data": None})


def test_no_value_is_in_a_repr() -> None:
    found = made({"env": [key("secret", "k", "db")]}, secret("db", k=b"hunter2"))
    assert found.values == {"X": "hunter2"}
    held = sources(pod({}), secret("db", k=b"hunter2"))
    assert "hunter2" not in repr(found) + repr(held) + repr(held.stores)
