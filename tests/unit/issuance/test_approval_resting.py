"""What an order owes to people, as values."""

from dataclasses import replace
from pathlib import Path

from broker.issuance.approval_resting import Resting, approvals_of_order, resting_on
from tests.fakes.world import World


def test_decision_tells_what_its_order_rests_on() -> None:
    """And says nothing where that is nothing."""
    told = resting_on({"lever": "ask"}, Resting(on=("a1",), goes_back_to=("a0",)))
    assert told == {"lever": "ask", "approvals": ["a1"], "renewed_under": ["a0"]}
    assert resting_on({"lever": "ask"}, Resting()) == {"lever": "ask"}


def test_what_holds_now_stands_beside_what_held_before() -> None:
    """All that the order was made under counts; of its line what it goes back to by now."""
    before = Resting(on=("a1",), goes_back_to=("a0", "a9"))
    now = Resting(on=("a2",), goes_back_to=("a1", "a8"))
    both = now.beside(before)
    assert both == Resting(on=("a1", "a2"), goes_back_to=("a8",))
    assert both.all == ("a1", "a2", "a8")


async def test_order_is_read_as_it_was_kept(tmp_path: Path) -> None:
    """Whatever else its decision says; one from before says nothing."""
    async with World(tmp_path) as world:
        order = await (await world.client()).issue("www.example.com")
    assert approvals_of_order(order) == Resting()
    resting = Resting(on=("a1", "a2"), goes_back_to=("a0",))
    kept = replace(order, decision=resting_on(order.decision, resting))
    assert approvals_of_order(kept) == resting
