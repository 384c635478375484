"""Claims and the agents that they name: an index that is true whatever was told before."""

from hypothesis import given
from hypothesis import strategies as st

from meshdev.manager.control.naming import Naming

STEPS = st.tuples(
    st.sampled_from(["begin", "name", "name", "end"]),
    st.sampled_from("xyz"),
    st.integers(0, 1),
    st.sets(st.sampled_from("abcd")),
)


@given(st.lists(STEPS))
def test_it_is_what_all_parts_say(steps: list[tuple[str, str, int, set[str]]]) -> None:
    naming, claims = Naming(), dict[str, dict[int, set[str]]]()
    for what, alias, part, keys in steps:
        before = {key for some in claims.get(alias, {}).values() for key in some}
        changed: set[str] | None = None
        if what == "begin":
            naming.begin(alias)
            claims.setdefault(alias, {})
        elif what == "name":
            changed = set(naming.name(alias, part, keys))
            if alias in claims:
                claims[alias][part] = keys
        else:
            changed = set(naming.end(alias))
            claims.pop(alias, None)
        named = {one: {key for some in parts.values() for key in some} for one, parts in claims.items()}
        assert changed is None or changed == before ^ named.get(alias, set())
        assert set(naming.claimed()) == set().union(*named.values())
        for key in "abcd":
            assert list(naming.aliases_of(key)) == [one for one, those in named.items() if key in those]
            assert naming.beside(key) == set().union(*(those for those in named.values() if key in those))


def test_a_claim_that_is_over_is_named_no_more() -> None:
    naming = Naming()
    assert naming.name("x", 0, {"a"}) == frozenset()
    naming.begin("x")
    assert naming.name("x", 0, {"a", "b"}) == {"a", "b"}
    assert naming.name("x", 1, {"b", "c"}) == {"c"}
    assert naming.name("x", 0, {"c"}) == {"a"}
    assert naming.end("x") == {"b", "c"}
    assert naming.end("x") == frozenset()
