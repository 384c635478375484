"""Claims, agents, and the edges between them: an index that is true whatever was told before, in whatever order."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from meshdev.manager.control.edges import Edges, NamedAgent, named_agents
from tests.manager.control.identities import agents as attested
from tests.manager.control.identities import identity

KEYS, PROOFS = "abcd", "123"
NAMED = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(PROOFS)), max_size=5)
STEPS = st.tuples(
    st.sampled_from(["begin", "name", "name", "end", "consent", "consent", "forget"]),
    st.sampled_from("xyz"),
    st.integers(0, 1),
    NAMED,
)


def agent(key: str, proof: str, pod: str = "") -> NamedAgent:
    return NamedAgent(key, proof, pod or f"pod-{key}", f"uid-{key}", key.encode())


def by_key(parts: dict[int, list[NamedAgent]]) -> dict[str, list[NamedAgent]]:
    found: dict[str, list[NamedAgent]] = {}
    for agents in parts.values():
        for one in agents:
            found.setdefault(one.key, []).append(one)
    return found


@given(st.lists(STEPS))
def test_it_is_what_all_parts_and_all_agents_say(
    steps: list[tuple[str, str, int, list[tuple[str, str]]]],
) -> None:
    edges, claims, consents = Edges(), dict[str, dict[int, list[NamedAgent]]](), dict[str, set[str]]()

    def linked(alias: str, key: str) -> bool:
        return any(one.proof in consents.get(key, ()) for one in by_key(claims[alias]).get(key, ()))

    for what, alias, part, named in steps:
        agents, key = [agent(*each) for each in named], KEYS[part]
        before = by_key(claims.get(alias, {}))
        linked_before = {one for one in claims if linked(one, key)}
        changed: set[str] | None = None
        match what:
            case "begin":
                edges.begin(alias)
                claims.setdefault(alias, {})
            case "name":
                changed = set(edges.name(alias, part, agents))
                if alias in claims:
                    claims[alias][part] = agents
            case "end":
                changed = set(edges.end(alias))
                claims.pop(alias, None)
            case _:
                consents[key] = {proof for _, proof in named} if what == "consent" else set()
                found = edges.consent(key, consents[key]) if what == "consent" else edges.forget(key)
                assert set(found) == linked_before ^ {one for one in claims if linked(one, key)}
        now = by_key(claims.get(alias, {}))
        assert changed is None or changed == {
            one for one in before.keys() | now.keys() if before.get(one) != now.get(one)
        }
        named_keys = {one: set(by_key(parts)) for one, parts in claims.items()}
        assert set(edges.named()) == set().union(*named_keys.values())
        for one in claims:
            assert edges.keys_of(one) == {each for each in KEYS if linked(one, each)}
            assert set(edges.named_by(one)) == named_keys[one]
        for each in KEYS:
            naming = {(one, agent) for one, parts in claims.items() for agent in by_key(parts).get(each, ())}
            assert set(edges.naming(each)) == naming
            assert list(edges.aliases_of(each)) == [one for one in claims if linked(one, each)]
            assert edges.beside(each) == set().union(*(those for those in named_keys.values() if each in those))


def test_key_and_proof_make_an_edge_only_together() -> None:
    edges = Edges()
    edges.begin("x")
    edges.consent("a", ["1"])
    edges.consent("b", ["2"])
    edges.name("x", 0, [agent("a", "2"), agent("b", "1"), agent("c", "1")])
    assert edges.keys_of("x") == frozenset(), "another's proof, and one that has not spoken"
    edges.name("x", 1, [agent("a", "1", "b-1")])
    assert edges.keys_of("x") == {"a"}
    found = edges.edge("x", "a")
    assert found is not None
    assert (found.pod, found.proof) == ("b-1", "1"), "the words are those that came with the proof"
    assert edges.consent("a", []) == {"x"}
    assert edges.keys_of("x") == frozenset()
    assert edges.has_reported("a")
    edges.forget("a")
    assert not edges.has_reported("a")


def test_several_agents_may_be_in_the_pod_of_one_name() -> None:
    edges = Edges()
    edges.begin("x")
    edges.name("x", 0, [agent("a", "1", "b-1"), agent("c", "1", "b-2")])
    edges.name("x", 1, [agent("b", "1", "b-1")])
    assert edges.keys_at("x", "b-1") == {"a", "b"}
    edges.name("x", 0, [agent("c", "1", "b-2")])
    assert edges.keys_at("x", "b-1") == {"b"}
    assert edges.keys_at("y", "b-1") == frozenset()
    edges.end("x")
    assert edges.keys_at("x", "b-1") == frozenset()


def test_a_claim_that_is_over_is_named_no_more() -> None:
    edges = Edges()
    assert edges.name("x", 0, [agent("a", "1")]) == frozenset()
    edges.begin("x")
    assert edges.name("x", 0, [agent("a", "1"), agent("b", "1")]) == {"a", "b"}
    assert edges.name("x", 0, [agent("a", "1"), agent("b", "2")]) == {"b"}, "by another proof"
    assert edges.end("x") == {"a", "b"}
    assert edges.end("x") == frozenset()
    assert edges.edge("x", "a") is None


def test_an_agent_is_named_by_the_key_that_signed_its_request() -> None:
    one, two = attested("b-1", "b-2")
    bad = [replace(two, request=each) for each in (b"", b"DER", two.request + b"x", two.request[:-1] + b"\0")]
    found, fault = named_agents([one, *bad, two])
    assert [(each.key, each.proof, each.pod, each.uid, each.request) for each in found] == [
        (identity(name).key, each.proof, name, f"uid-{name}", each.request)
        for name, each in (("b-1", one), ("b-2", two))
    ]
    assert fault.startswith("the agent of pod b-2 is not taken: ")
    assert named_agents([one])[1] == ""
