"""The workflows around renewal belong together."""

from broker.issuance.records import JobKind
from tests.fakes.world import World


async def test_dispatcher_knows_who_retires(world: World) -> None:
    """And the one that hands over tells the one that retires."""
    assert world.dispatcher._handlers[JobKind.RETIRE] == world.renewing.retirements.carry_out
    assert world.renewing.handover._retirements is world.renewing.retirements
