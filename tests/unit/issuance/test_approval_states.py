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
ENDS = {ApprovalStatus.WITHDRAWN}


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


def test_what_is_over_opens_nothing_again() -> None:
    """What was withdrawn stays so, and what has ended can be taken back and no more."""
    assert not any(status in ENDS for status, _ in APPROVAL_TABLE)
    ways = {event for status, event in APPROVAL_TABLE if status is ApprovalStatus.EXPIRED}
    assert ways == {ApprovalEvent.WITHDRAWN}


def test_one_state_opens() -> None:
    """And nothing but people saying yes leads there."""
    assert OPENING == (ApprovalStatus.APPROVED,)
    into = {event for (_, event), after in APPROVAL_TABLE.items() if after in OPENING}
    assert into == {ApprovalEvent.APPROVED, ApprovalEvent.RESUMED, ApprovalEvent.RENEWED}


def test_whatever_opens_can_be_taken_back() -> None:
    """In every state that it can have been approved before."""
    never = (ApprovalStatus.DENIED, ApprovalStatus.WITHDRAWN)
    for status in (one for one in ApprovalStatus if one not in never):
        assert advance_approval(status, ApprovalEvent.WITHDRAWN) is ApprovalStatus.WITHDRAWN


def test_diagram_draws_every_line() -> None:
    """Each entry of the table, and the ends."""
    drawn = render_diagram()
    assert drawn.count("-->") == 1 + len(APPROVAL_TABLE) + len(ENDS)
    assert "    withdrawn --> [*]" in drawn
