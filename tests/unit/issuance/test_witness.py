"""Which orders were claimed in this process."""

import pytest

from broker.issuance import witness as room
from broker.issuance.records import WorkStatus
from broker.issuance.witness import Witness
from tests.contract.storage import given


@pytest.mark.parametrize("status", WorkStatus)
@pytest.mark.parametrize("is_seen", [True, False], ids=["claimed here", "claimed earlier"])
def test_what_is_known_to_be_unfinalized(status: WorkStatus, is_seen: bool) -> None:
    """What was never opened; and what is open, if this process knows all that was done with it."""
    order, witness = given.order(given.account()), Witness()
    if is_seen:
        witness.saw_claim(order.order_id)
    work = given.work(status=status, taken_by=order.order_id)
    is_known = status is WorkStatus.INTENDED or (is_seen and status is WorkStatus.OPENED)
    assert witness.is_unfinalized(order, work) is is_known


def test_only_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is forgotten is like one of an earlier process."""
    monkeypatch.setattr(room, "MAX_CLAIMS", 2)
    witness, orders = Witness(), [given.order(given.account()) for _ in range(3)]
    for order in orders:
        witness.saw_claim(order.order_id)
    opened = [given.work(status=WorkStatus.OPENED, taken_by=one.order_id) for one in orders]
    pairs = zip(orders, opened, strict=True)
    assert [witness.is_unfinalized(*pair) for pair in pairs] == [False, True, True]
