"""What rules that only warn would have done, as an event."""

from __future__ import annotations

from broker.issuance.events import EventKind
from broker.issuance.rule_warnings import MAX_TOLD, warning_events
from broker.policy.decisions import Finding, RuleRef
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import ProblemType
from tests.fakes.world import World

RULE = RuleRef("shared/x.yaml", 7, "rule 'soon'")
NAME = "www.example.com"


def finding(number: int = 0) -> Finding:
    """Return something that a rule would find."""
    return Finding(
        check="rule-refused-name",
        type=ProblemType.REJECTED_IDENTIFIER,
        sentence=f"reason {number}",
        identifier=Identifier(IdentifierType.DNS, NAME),
        rule=RULE,
    )


async def test_warnings_are_one_event_with_rules_and_sentences(world: World) -> None:
    """The actor is the account, and the order is named."""
    order = await (await world.client()).ready(NAME)
    (event,) = warning_events(
        order, [finding()], resource="new-order", policy_sha256="ab", at=order.created_at
    )
    assert event.kind is EventKind.RULE_WARNED
    assert (event.order_id, event.community) == (order.order_id, order.community)
    warnings = event.data["warnings"]
    assert isinstance(warnings, list)
    (told,) = warnings
    assert told["rule"] == "shared/x.yaml:7 rule 'soon'"
    assert told["sentence"] == "reason 0"
    assert event.data["resource"] == "new-order"


async def test_no_warnings_are_no_event(world: World) -> None:
    """Most orders have none."""
    order = await (await world.client()).ready(NAME)
    assert (
        warning_events(order, [], resource="finalize", policy_sha256="", at=order.created_at) == ()
    )


async def test_many_warnings_are_told_up_to_a_bound(world: World) -> None:
    """The rest is counted."""
    order = await (await world.client()).ready(NAME)
    many = [finding(number) for number in range(MAX_TOLD + 5)]
    (event,) = warning_events(
        order, many, resource="finalize", policy_sha256="", at=order.created_at
    )
    assert event.data["left_out"] == 5
    assert len(event.data["warnings"]) == MAX_TOLD  # type: ignore[arg-type]
