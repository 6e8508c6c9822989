"""The states of an approval."""

import itertools

import pytest

from broker.issuance.approval_ports import ApprovalStatus
from broker.issuance.approval_states import (
    APPROVAL_TABLE,
    OPENING,
    ApprovalEvent,
    IllegalAnswer,
    advance_approval,
    is_allowed,
    render_diagram,
)

PAIRS = list(itertools.product(ApprovalStatus, ApprovalEvent))
ENDS = {ApprovalStatus.EXPIRED, ApprovalStatus.WITHDRAWN}


@pytest.mark.parametrize(
    ("status", "event"), PAIRS, ids=[f"{status}-{event.name}" for status, event in PAIRS]
)
def test_table_alone_decides(status: ApprovalStatus, event: ApprovalEvent) -> None:
    """What is not in it is refused, and says what was tried."""
    after = APPROVAL_TABLE.get((status, event))
    assert is_allowed(status, event) == (after is not None)
    if after is not None:
        assert advance_approval(status, event) is after
        return
    with pytest.raises(IllegalAnswer, match=f"approval that is '{status}'"):
        advance_approval(status, event)


def test_ends_are_left_by_nothing() -> None:
    """An approval that was withdrawn or has ended never opens anything again."""
    assert not any(status in ENDS for status, _ in APPROVAL_TABLE)


def test_one_state_opens() -> None:
    """And nothing but people saying yes leads there."""
    assert OPENING == (ApprovalStatus.APPROVED,)
    into = {event for (_, event), after in APPROVAL_TABLE.items() if after in OPENING}
    assert into == {ApprovalEvent.APPROVED, ApprovalEvent.RESUMED, ApprovalEvent.RENEWED}


def test_whatever_opens_can_be_taken_back() -> None:
    """In every state that is no end and was approved once."""
    for status in (ApprovalStatus.APPROVED, ApprovalStatus.DUE, ApprovalStatus.SUSPENDED):
        assert advance_approval(status, ApprovalEvent.WITHDRAWN) is ApprovalStatus.WITHDRAWN


def test_diagram_draws_every_line() -> None:
    """Each entry of the table, and the ends."""
    drawn = render_diagram()
    assert drawn.count("-->") == 1 + len(APPROVAL_TABLE) + len(ENDS)
    assert "    withdrawn --> [*]" in drawn
