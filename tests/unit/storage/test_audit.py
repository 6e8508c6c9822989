"""Records, checkpoints and positions as the audit's readers want them."""

from dataclasses import replace

from broker.issuance.audit_ports import CheckpointRecord, SinkPosition
from broker.issuance.events import EventKind
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given


async def filled(store: SqliteStore) -> None:
    """Keep four events."""
    events = (
        given.event(EventKind.ORDER_CREATED, order_id="o1", account_id="a1"),
        given.event(EventKind.ACCOUNT_CREATED, order_id=None, account_id="a1"),
        given.event(EventKind.NODE_ENROLLED, order_id=None, account_id=None, data={"node": "n1"}),
        given.event(EventKind.NODE_ENROLLED, order_id=None, account_id=None, data={"node": "n11"}),
    )
    for one in events:
        await store.append(one, durable=False)


async def test_records_come_with_their_predecessor(store: SqliteStore) -> None:
    """Each names the digest of the one before, a page begins anywhere."""
    await filled(store)
    first, second, *_ = await store.audit_records(after=0, limit=10)
    (again,) = await store.audit_records(after=1, limit=1)
    assert first.previous is None
    assert second.previous == first.digest
    assert again == second
    assert await store.last_audit_record() == (
        4,
        (await store.audit_records(after=3, limit=1))[0].digest,
    )


async def test_records_are_found_by_what_they_are_about(store: SqliteStore) -> None:
    """By order, by account without its orders, and by a whole word in their data."""
    await filled(store)
    assert [one.seq for one in await store.records_of_order("o1")] == [1]
    assert [one.seq for one in await store.records_of_account("a1", 10)] == [2]
    assert [one.seq for one in await store.records_mentioning(["n1"], 10)] == [3]
    assert await store.records_mentioning([], 10) == []


async def test_checkpoints_are_kept_in_their_order(store: SqliteStore) -> None:
    """The newest, those past a number, and the first that covers a record."""
    one = CheckpointRecord(number=1, seq=2, at=given.NOW, key_id="k", jws="a.b.c")
    two = replace(one, number=2, seq=4, vault_request="r")
    assert await store.last_checkpoint() is None
    await store.add_checkpoint(one)
    await store.add_checkpoint(two)
    assert await store.last_checkpoint() == two
    assert await store.checkpoints(after=1, limit=10) == [two]
    assert await store.first_checkpoint_from(3) == two
    assert await store.first_checkpoint_from(5) is None


async def test_position_of_a_sink_moves(store: SqliteStore) -> None:
    """There is one for each."""
    here = SinkPosition(name="a", seq=1, checkpoint=0, at=given.NOW)
    await store.save_sink_position(here)
    await store.save_sink_position(replace(here, seq=2, checkpoint=1))
    assert await store.sink_positions() == [replace(here, seq=2, checkpoint=1)]


async def test_certificate_is_found_by_its_serial_number(store: SqliteStore) -> None:
    """None has it: none is found."""
    assert await store.certificates_with_serial("0a") == []


async def test_old_checkpoints_are_thinned_once_every_sink_has_them(store: SqliteStore) -> None:
    """What a sink still has to send stays."""
    for number in range(1, 131):
        await store.add_checkpoint(
            CheckpointRecord(number=number, seq=number, at=given.NOW, key_id="k", jws="a.b.c")
        )
    await store.save_sink_position(SinkPosition(name="a", seq=1, checkpoint=100, at=given.NOW))
    await store.thin_checkpoints(given.NOW)
    assert len(await store.checkpoints(after=0, limit=200)) == 130
    await store.thin_checkpoints(given.NOW + given.HOUR)
    left = [one.number for one in await store.checkpoints(after=0, limit=200)]
    assert left == [60, *range(101, 131)]
