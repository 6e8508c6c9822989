"""Caps only narrow: no rule that is added ever makes a certificate live longer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.policy.chains import decide_issued, decide_new_order
from broker.policy.checks import CheckName
from broker.policy.units import format_duration
from broker.policy.validity import rule_cap
from tests.unit.policy.builders import (
    AT,
    PROFILE,
    always,
    issued,
    names,
    new_order,
    policy,
    upstream,
)

Cap = st.integers(1, 400).map(lambda days: f"{days}d")
PatternText = st.sampled_from(
    ["**.a.example", "*.a.example", "www.a.example", "**.b.a.example", "b.a.example", "**"]
)
Rule = st.fixed_dictionaries({"names": st.lists(PatternText, max_size=3), "cap": Cap})
Names = st.lists(
    st.sampled_from(
        ["www.a.example", "b.a.example", "*.a.example", "c.b.a.example", "*.b.a.example"]
    ),
    min_size=1,
    unique=True,
)
Policy = st.fixed_dictionaries(
    {"cap": Cap, "caps": st.lists(Rule, max_size=4), "profile_cap": st.none() | Cap}
)


def made(values: dict[str, Any]) -> Any:
    """Return the document of drawn values."""
    profile = {**PROFILE, **({"cap": values["profile_cap"]} if values["profile_cap"] else {})}
    return policy(cap=values["cap"], caps=values["caps"], profiles={"server": profile})


@given(Policy, Rule, st.integers(0, 4), Names)
def test_one_more_rule_never_lengthens(
    values: dict[str, Any], rule: dict[str, Any], where: int, texts: list[str]
) -> None:
    """Wherever it is put in, and whatever it speaks of."""
    more = {**values, "caps": [*values["caps"][:where], rule, *values["caps"][where:]]}
    before, after = made(values), made(more)
    asked = names(*texts)
    cap = rule_cap(after, after.profiles["server"], asked).cap
    assert cap <= rule_cap(before, before.profiles["server"], asked).cap


@given(Policy, Names, Names)
def test_one_more_name_never_lengthens(
    values: dict[str, Any], texts: list[str], more: list[str]
) -> None:
    """A certificate for more names is under every cap of each."""
    document = made(values)
    profile = document.profiles["server"]
    together = rule_cap(document, profile, names(*texts, *more)).cap
    assert together <= rule_cap(document, profile, names(*texts)).cap


@given(Policy, Names)
def test_the_cap_is_one_that_a_rule_sets_and_none_is_tighter(
    values: dict[str, Any], texts: list[str]
) -> None:
    """The rule that is named is the one that decided."""
    document = made(values)
    ruling = rule_cap(document, document.profiles["server"], names(*texts))
    assert (ruling.cap, ruling.rule) in ruling.considered
    assert all(ruling.cap <= cap for cap, _ in ruling.considered)
    assert ruling.cap <= document.cap


@given(
    Policy,
    Names,
    st.booleans(),
    st.integers(1, 400).map(lambda days: timedelta(days=days)),
    st.none() | st.integers(1, 400).map(lambda days: timedelta(days=days)),
    st.none() | st.integers(1, 400).map(lambda days: timedelta(days=days)),
)
def test_a_plan_is_never_past_the_cap(
    values: dict[str, Any],
    texts: list[str],
    honours: bool,
    lifetime: timedelta,
    longest: timedelta | None,
    asked: timedelta | None,
) -> None:
    """Whatever the upstream is like, what is planned ends within the cap."""
    document = made(values)
    ruling = rule_cap(document, document.profiles["server"], names(*texts))
    ca = upstream(
        honours_not_after=honours, max_lifetime=longest, default_lifetimes=always(lifetime)
    )
    not_after = None if asked is None else AT + asked
    decision = decide_new_order(document, new_order(*texts, upstreams=(ca,), not_after=not_after))
    if decision.plan is None:
        return
    ends = asked or (ruling.cap if decision.plan.ask_not_after else lifetime)
    assert decision.plan.cap == ruling.cap
    assert ends <= ruling.cap + decision.plan.tolerance
    assert decision.plan.ask_not_after or asked is None


@given(st.integers(1, 400), st.integers(-200_000, 200_000), st.integers(0, 3600))
def test_the_gate_lets_through_exactly_what_ends_within_cap_and_tolerance(
    days: int, offset: int, tolerance: int
) -> None:
    """To the second, whatever the numbers."""
    cap = timedelta(days=days)
    end = AT + cap + timedelta(seconds=offset)
    facts = issued(
        leaf={"not_before": AT - timedelta(days=400), "not_after": end},
        cap=cap,
        tolerance=timedelta(seconds=tolerance),
    )
    found = {finding.check for finding in decide_issued(policy(), facts)}
    assert (CheckName.ISSUED_END in found) is (offset > tolerance), format_duration(cap)
