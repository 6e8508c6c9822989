"""The table of stages: nothing leaves an end, and nothing else changes a stage."""

import itertools
import re
from pathlib import Path

import pytest

from broker.issuance.delivery_stages import (
    AT_NODE,
    DELIVERY_TABLE,
    OPEN,
    DeliveryEvent,
    IllegalStage,
    advance_delivery,
    event_of_receipt,
    first_stage,
    is_news,
    render_diagram,
)
from broker.issuance.node_ports import DeliveryStage

BROKER = Path(__file__).resolve().parents[3] / "broker"

PAIRS = list(itertools.product(DeliveryStage, DeliveryEvent))


@pytest.mark.parametrize(("stage", "event"), PAIRS, ids=[f"{s}-{e.name}" for s, e in PAIRS])
def test_every_pair_leads_on_or_is_refused(stage: DeliveryStage, event: DeliveryEvent) -> None:
    """Ends lead nowhere, nothing leads back, and what the table does not have is refused."""
    if (stage, event) in DELIVERY_TABLE:
        assert not stage.is_end
        assert advance_delivery(stage, event) is not stage
        return
    with pytest.raises(IllegalStage) as caught:
        advance_delivery(stage, event)
    assert (caught.value.stage, caught.value.event) == (stage, event)


def test_every_stage_is_reached_and_every_open_one_left() -> None:
    """A delivery can come to each stage, and away from each that is no end."""
    begun = {first_stage(has_csr=True), first_stage(has_csr=False)}
    assert begun | set(DELIVERY_TABLE.values()) == set(DeliveryStage)
    assert {stage for stage, _ in DELIVERY_TABLE} == set(OPEN)
    assert all(not stage.is_end for stage in OPEN)


def test_each_open_delivery_can_be_superseded_and_taken_back() -> None:
    """A newer one takes the place of any, and a node that has gone of all."""
    for stage in OPEN:
        assert advance_delivery(stage, DeliveryEvent.SUPERSEDED) is DeliveryStage.SUPERSEDED
        assert advance_delivery(stage, DeliveryEvent.WITHDRAWN) is DeliveryStage.WITHDRAWN


def test_receipts_leap_forwards_alone() -> None:
    """One that was lost is leapt over, one that comes late is no news."""
    order = (*AT_NODE, DeliveryStage.SEEN)
    for before, told in itertools.product(AT_NODE, order[1:]):
        is_later = order.index(told) > order.index(before)
        assert is_news(before, told) is is_later
        event = event_of_receipt(told)
        assert event is not None
        if is_later:
            assert advance_delivery(before, event) is told


def test_ends_are_no_news_after_an_end() -> None:
    """What has ended stays as it is."""
    for end, told in itertools.product(DeliveryStage, DeliveryStage):
        if end.is_end:
            assert not is_news(end, told)


def test_no_node_reaches_the_stages_of_the_broker() -> None:
    """A receipt for one of them means nothing."""
    for stage in (DeliveryStage.ASKED, DeliveryStage.ISSUED, DeliveryStage.WITHDRAWN):
        assert event_of_receipt(stage) is None


def test_nothing_else_assigns_a_stage() -> None:
    """No module names a stage when it makes or changes a delivery."""
    assigned = re.compile(r"\bstage=(?!advance_delivery|first_stage|stage\b|str\(|Stage\.)")
    for path in BROKER.rglob("*.py"):
        for line in path.read_text("utf-8").splitlines():
            if assigned.search(line) and "DeliveryStage(" not in line:
                # A receipt is what a node said, and a log line tells.
                assert "DeliveryStage.SEEN" in line or "receipt" in line, f"{path.name}: {line}"


def test_diagram_is_drawn_from_the_table() -> None:
    """Each stage is in it."""
    drawn = render_diagram()
    assert all(f"{stage}" in drawn for stage in DeliveryStage)
