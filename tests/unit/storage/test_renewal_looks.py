"""When it is looked whether clients renewed, as it is kept."""

from datetime import timedelta
from pathlib import Path

from broker.issuance.managed_ports import RenewalLook
from tests.fakes.delivery_world import DeliveryWorld


async def test_each_certificate_is_looked_at_after_half_of_its_life(tmp_path: Path) -> None:
    """It is planned in the transaction that keeps it."""
    async with DeliveryWorld(tmp_path) as world:
        await (await world.client()).issue("www.example.com")
        (certificate,) = await world.certificates()
        half = certificate.not_before + (certificate.not_after - certificate.not_before) / 2
        assert await world.store.due_looks(half - timedelta(seconds=1), 10) == []
        (look,) = await world.store.due_looks(half, 10)
        assert look == RenewalLook(certificate_id=certificate.certificate_id, look_at=half)


async def test_look_is_hurried_and_never_put_off(tmp_path: Path) -> None:
    """Whoever wants it sooner has it so."""
    async with DeliveryWorld(tmp_path) as world:
        await (await world.client()).issue("www.example.com")
        (certificate,) = await world.certificates()
        now = world.clock.now()
        await world.store.hurry_look(certificate.certificate_id, now)
        await world.store.hurry_look(certificate.certificate_id, now + timedelta(days=1))
        (look,) = await world.store.due_looks(now, 10)
        assert look.look_at == now
        await world.store.keep_looks([], dropped=[certificate.certificate_id], events=[])
        assert await world.store.due_looks(now + timedelta(days=99), 10) == []


async def test_heir_is_younger_and_for_the_same_names(tmp_path: Path) -> None:
    """In whatever order they were asked for; of the same account alone."""
    async with DeliveryWorld(tmp_path) as world:
        client, other = await world.client(), await world.client()
        await client.issue("a.example.com", "b.example.com")
        (first,) = await world.certificates()
        world.clock.advance(timedelta(days=1))
        await other.issue("a.example.com", "b.example.com")
        await client.issue("a.example.com")
        assert not await world.store.has_heir(first)
        await client.issue("b.example.com", "a.example.com")
        assert await world.store.has_heir(first)
