"""Whatever happens in whatever order, an end stays an end."""

from collections.abc import Callable
from enum import Enum, StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.resources import (
    AccountStatus,
    AuthorizationStatus,
    ChallengeStatus,
    OrderStatus,
)
from broker.protocol.transitions import (
    AccountEvent,
    AuthorizationEvent,
    ChallengeEvent,
    IllegalTransition,
    OrderEvent,
    advance_account,
    advance_authorization,
    advance_challenge,
    advance_order,
)

KINDS: dict[str, tuple[Callable[[Any, Any], StrEnum], StrEnum, type[Enum], set[str]]] = {
    "account": (advance_account, AccountStatus.VALID, AccountEvent, {"deactivated", "revoked"}),
    "order": (advance_order, OrderStatus.PENDING, OrderEvent, {"valid", "invalid"}),
    "authorization": (
        advance_authorization,
        AuthorizationStatus.PENDING,
        AuthorizationEvent,
        {"invalid", "deactivated", "expired", "revoked"},
    ),
    "challenge": (
        advance_challenge,
        ChallengeStatus.PENDING,
        ChallengeEvent,
        {"valid", "invalid"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_no_sequence_of_events_leaves_an_end(kind: str, data: st.DataObject) -> None:
    """Illegal events change nothing, and once at an end every event is illegal."""
    advance, status, events, ends = KINDS[kind]
    visited = [status]
    for event in data.draw(st.lists(st.sampled_from(list(events)), max_size=12)):
        try:
            after = advance(status, event)
        except IllegalTransition:
            continue
        assert status not in ends
        status = after
        visited.append(status)
    repeated = [s for s in visited if visited.count(s) > 1]
    assert not set(repeated) - {ChallengeStatus.PROCESSING}


@given(events=st.lists(st.sampled_from(list(OrderEvent)), max_size=12))
def test_an_order_is_valid_only_by_the_whole_way(events: list[OrderEvent]) -> None:
    """No order becomes valid without authorization, finalize and issuance, in this order."""
    status, happened = OrderStatus.PENDING, []
    for event in events:
        try:
            status = advance_order(status, event)
        except IllegalTransition:
            continue
        happened.append(event)
    if status is OrderStatus.VALID:
        assert happened == [
            OrderEvent.AUTHORIZED,
            OrderEvent.FINALIZE_ACCEPTED,
            OrderEvent.ISSUED,
        ]
