"""References to variables: what is replaced, what is escaped, what stays."""

import pytest

from meshdev.environment.expansion import expand

KNOWN = {"A": "a", "B": "b", "EMPTY": "", "REF": "$(A)"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("", ""),
        ("plain", "plain"),
        ("$(A)", "a"),
        ("<$(A)$(B)>", "<ab>"),
        ("x$(EMPTY)y", "xy"),
        ("$(REF)", "$(A)"),  # once only
        ("$(NONE)", "$(NONE)"),
        ("$()", "$()"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$a"),
        ("$$$$(A)", "$$(A)"),
        ("$$$$$$(NONE)", "$$$(NONE)"),
        ("$$A", "$A"),
        ("$$", "$"),
        ("$", "$"),
        ("a$", "a$"),
        ("$A ${A} $?", "$A ${A} $?"),
        ("$(A", "$(A"),
        ("$(A$(B)", "$(A$(B)"),  # a name ends with the first bracket
        ("$(A$(B))", "$(A$(B))"),
        ("$(x$$y)", "$(x$$y)"),
        ("$(x$$y", "$(x$y"),  # no reference, so the rest is read again
        ("--$($($(--", "--$($($(--"),
        ("\\$(A)\n$(B)", "\\a\nb"),
        ("$é $€ $(A)", "$é $€ a"),
        ("$(a\nb)", "$(a\nb)"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert expand(text, KNOWN.get) == expanded
