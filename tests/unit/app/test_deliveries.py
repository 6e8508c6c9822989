"""Renewals put together: who is told of what the store commits."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

from broker.app.deliveries import ClientWatch, follow_commits, leave_deliveries
from broker.issuance.events import Event, EventKind
from broker.issuance.records import JobKind
from broker.issuance.unrenewed import UnrenewedWatch
from broker.storage.sqlite import SqliteStore
from tests.fakes.clock import START
from tests.fakes.delivery_world import DeliveryWorld


def test_one_who_follows_commits_hears_beside_the_others() -> None:
    """The first hears first."""
    heard: list[tuple[str, int]] = []
    store = cast(SqliteStore, SimpleNamespace(on_committed=None))

    def hearing(name: str) -> Callable[[Sequence[Event]], None]:
        return lambda events: heard.append((name, len(events)))

    follow_commits(store, hearing("a"))
    follow_commits(store, hearing("b"))
    hook: Any = store.on_committed
    hook([Event(kind=EventKind.CA_CREATED, at=START)])
    assert heard == [("a", 1), ("b", 1)]


async def test_deliveries_lie_while_no_nodes_are_served(tmp_path: Any) -> None:
    """Their jobs are there when the configuration has nodes again."""
    async with DeliveryWorld(tmp_path) as world:
        node = await world.node()
        await node.wants("www")
        leave_deliveries(world.dispatcher, world.clock)
        await world.let_pass(timedelta(hours=2))
        await world.dispatcher.run_due()
        await world.settle()
        assert await world.jobs(JobKind.DELIVER) == 1


async def test_window_that_moved_earlier_is_looked_at_with_the_next_turn(
    tmp_path: Any,
) -> None:
    """The event names the certificate."""
    async with DeliveryWorld(tmp_path) as world:
        await (await world.client()).issue("www.example.com")
        (certificate,) = await world.certificates()
        watch = ClientWatch(UnrenewedWatch(world.store, world.policies, world.clock))
        data = {"certificate_id": certificate.certificate_id}
        watch.on_events(
            [Event(kind=EventKind.RENEWAL_MOVED_EARLIER, at=world.clock.now(), data=data)]
        )
        half = certificate.not_before + timedelta(days=45)
        assert (await world.store.due_looks(half, 10))[0].look_at == half
        await watch.run()
        (look,) = await world.store.due_looks(certificate.not_after, 10)
        assert look.should_by is not None
