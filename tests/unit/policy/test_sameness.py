"""Two versions of a policy are compared by what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.policy.document import PolicyDocument
from broker.policy.replay import Replay
from broker.policy.sameness import RuleDifferences, shape
from tests.unit.policy.builders import new_order, policy
from tests.unit.policy.test_replay import asked, rule, world

SHORT = rule(name="short", names=["**.pay.a.example"], cap="7d")
OTHER = rule(name="other", names=["**.lab.a.example"], refuse="no")


def test_line_that_moved_says_the_same() -> None:
    """A comment above a rule, or another digest, changes nothing."""
    one, other = policy(rules=[SHORT]), policy(caps=[], rules=[SHORT])
    assert one.rules.rules[0].ref.line != other.rules.rules[0].ref.line
    one, other = replace(one, set_sha256="a" * 64), replace(other, set_sha256="b" * 64)
    assert one.sha256 != other.sha256
    assert shape(one) == shape(other)
    assert shape(one.rules.rules[0]) == shape(other.rules.rules[0])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"cap": "30d"}, id="cap"),
        pytest.param({"names": {"allow": ["**.b.example"], "wildcards": True}}, id="names"),
        pytest.param({"names": {"allow": ["**.a.example"]}}, id="wildcards"),
        pytest.param({"keys": {"allow": ["ec-p256"]}}, id="keys"),
        pytest.param({"challenges": ["dns-01"]}, id="challenges"),
        pytest.param({"caps": [{"names": ["x.a.example"], "cap": "1d"}]}, id="caps"),
        pytest.param({"ct": {"allow_private_names": True}}, id="ct"),
        pytest.param({"caa": "refuse"}, id="caa"),
        pytest.param(
            {"trusted": [{"eab": ["k"], "names": ["**.a.example"], "profiles": ["server"],
                          "because": "x"}]},
            id="trusted",
        ),
    ],
)  # fmt: skip
def test_whatever_else_differs_is_a_difference(change: dict[str, Any]) -> None:
    """Then every order is decided by both."""
    assert shape(policy()) != shape(policy(**change))


def test_value_without_a_shape_is_told() -> None:
    """Nothing is taken for the same by mistake."""
    with pytest.raises(TypeError, match="bytearray has no shape"):
        shape(bytearray())


def test_orders_that_no_changed_rule_speaks_of_are_told_apart() -> None:
    """Found by the rules that speak of them, and by nothing else."""
    found = RuleDifferences(policy(rules=[OTHER]), policy(rules=[SHORT, OTHER]))
    assert found.is_alike_for(new_order("www.a.example"))
    assert found.is_alike_for(new_order("x.lab.a.example"))
    assert not found.is_alike_for(new_order("x.pay.a.example"))


NAMES = ("www.a.example", "x.pay.a.example", "x.lab.a.example", "*.pay.a.example", "b.example")
POLICIES = {
    "none": policy(),
    "short": policy(rules=[SHORT]),
    "both": policy(rules=[OTHER, SHORT]),
    "turned": policy(rules=[SHORT, OTHER]),
    "longer": policy(rules=[{**SHORT, "cap": "9d"}]),
    "warns": policy(rules=[{**OTHER, "mode": "warn"}]),
    "spares": policy(rules=[{**OTHER, "renewals": "exempt"}]),
    "base": policy(cap="5d", rules=[SHORT]),
}


@pytest.mark.parametrize("old", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("new", POLICIES.values(), ids=POLICIES)
def test_short_way_finds_what_deciding_finds(old: PolicyDocument, new: PolicyDocument) -> None:
    """Whichever two policies are compared, whatever was asked."""
    quick, slow = Replay(world(old), world(new)), Replay(world(old), world(new))
    slow._differences = {}
    for name in NAMES:
        for renewal in (False, True):
            request = asked(name, is_unchanged_renewal=renewal)
            assert quick.changes(request) == slow.changes(request), (name, renewal)
