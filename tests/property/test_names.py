"""The pattern matcher against a reference that is too plain to be wrong."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.policy.names import PatternSet

LABELS = ["a", "b", "ab", "a-b", "xn--bcher-kva", "example", "com"]
Labels = st.lists(st.sampled_from(LABELS), min_size=1, max_size=4)
PlainName = st.lists(st.sampled_from(LABELS), min_size=2, max_size=5)
Name = st.one_of(PlainName, PlainName.map(lambda labels: ["*", *labels]))
Pattern = st.one_of(
    PlainName,
    Labels.map(lambda labels: ["*", *labels]),
    Labels.map(lambda labels: ["**", *labels]),
    st.just(["**"]),
)
Patterns = st.lists(Pattern, max_size=8)


def fits(pattern: list[str], name: list[str]) -> bool:
    """Compare label by label from the right; ``name`` has no wildcard."""
    base = [label for label in pattern if label not in {"*", "**"}]
    below = len(name) - len(base)
    if below < 0 or name[below:] != base:
        return False
    return {"*": below == 1, "**": below >= 1}.get(pattern[0], below == 0)


def stands_for(name: list[str]) -> list[list[str]]:
    """Return names that a wildcard stands for: each known label, and one that no pattern has."""
    if name[0] != "*":
        return [name]
    return [[label, *name[1:]] for label in [*LABELS, "unheard-of"]]


def is_covering(pattern: list[str], name: list[str]) -> bool:
    """Tell whether everything that *name* stands for fits."""
    return all(fits(pattern, one) for one in stands_for(name))


def is_touching(pattern: list[str], name: list[str]) -> bool:
    """Tell whether anything that *name* stands for fits."""
    return any(fits(pattern, one) for one in stands_for(name))


def set_of(*patterns: list[str]) -> PatternSet:
    """Return the set of patterns given as labels."""
    return PatternSet.parse([".".join(pattern) for pattern in patterns])


@given(Patterns, Name)
def test_covering_is_fitting_every_name(patterns: list[list[str]], name: list[str]) -> None:
    """The first pattern that fits everything a name stands for is found, or none."""
    expected = [n for n, one in enumerate(patterns) if is_covering(one, name)]
    assert set_of(*patterns).covering(".".join(name)) == (expected[0] if expected else None)


@given(Patterns, Name)
def test_touching_is_fitting_any_name(patterns: list[list[str]], name: list[str]) -> None:
    """Every pattern that fits anything a name stands for is found."""
    expected = tuple(n for n, one in enumerate(patterns) if is_touching(one, name))
    assert set_of(*patterns).touching(".".join(name)) == expected


@given(Pattern, Name)
def test_what_covers_also_touches(pattern: list[str], name: list[str]) -> None:
    """So that a deny rule with the same pattern always undoes an allow rule."""
    made, text = set_of(pattern), ".".join(name)
    assert made.covering(text) is None or made.touching(text) == (0,)
