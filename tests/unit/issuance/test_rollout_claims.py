"""Who is under way, counted as they come and go."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from broker.issuance.rollout_claims import Claims, Party
from broker.policy.node_names import node_patterns
from broker.policy.rollout import Group, RolloutPlan

NOW = datetime(2026, 3, 1, tzinfo=UTC)
WEB = Group(
    name="web",
    nodes=node_patterns(["n1", "n2", "n3", "n4"]),
    canaries=node_patterns(["n1", "n2"]),
    at_once=2,
    halt_after=1,
)
PLAN = RolloutPlan(groups=(WEB,), apart=(node_patterns(["n1", "n3"]), node_patterns(["n3", "x1"])))
NODES = ("n1", "n2", "n3", "n4", "x1", "y1")


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sampled_from(NODES))))
def test_counts_are_those_of_what_is_under_way(steps: list[tuple[bool, int, str]]) -> None:
    """Whatever was taken and dropped, twice or in any order."""
    claims, known = Claims(PLAN), dict[str, str]()
    for is_taken, number, node in steps:
        delivery_id = f"{node}/{number % 3}"
        if is_taken:
            claims.take(delivery_id, node, NOW)
            known[delivery_id] = node
        else:
            assert (claims.drop(delivery_id) is None) is (known.pop(delivery_id, None) is None)
        names = set(known.values())
        assert {delivery_id: flight.node for delivery_id, flight in claims} == known
        assert set(claims.nodes_of(WEB)) == {one for one in names if one.startswith("n")}
        assert set(claims.canaries_of(WEB)) == names & {"n1", "n2"}
        for one in NODES:
            assert claims.apart_from(one) == PLAN.kept_apart(one, names)
            assert claims.group_of(one) is PLAN.group_of(one)
            assert claims.has_rules_for(one) is PLAN.has_rules_for(one)


def test_one_that_is_taken_twice_holds_one_place() -> None:
    """It is found as it was taken last."""
    claims = Claims(PLAN)
    claims.take("d", "n1", NOW)
    claims.take("d", "n1", NOW)
    assert "d" in claims
    found = claims.find("d")
    assert found is not None
    assert claims.drop("d") == found
    assert not claims.nodes_of(WEB)
    assert claims.find("d") is None


def test_party_without_those_that_have_landed() -> None:
    """The same object where none of it has."""
    party = Party(frozenset({"n1", "n4"}), frozenset({"n1"}))
    assert party.without({"n2"}) is party
    assert party.without({"n1"}) == Party(frozenset({"n4"}), frozenset())
