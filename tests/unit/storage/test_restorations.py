"""What a restored store remembers."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.records import RestorationRecord
from broker.storage.sqlite import SqliteStore
from tests.contract.storage.given import NOW, event

RECORD = RestorationRecord(
    restoration_id="r1",
    backup_id="b1",
    backup_at=NOW,
    restored_at=NOW + timedelta(hours=1),
    reconciled_at=None,
    report={},
)


async def begin(store: SqliteStore, record: RestorationRecord = RECORD) -> None:
    """Mark the store as restored."""
    await store.begin_restoration(record, crl_numbers=1000, event=event())


async def test_restoration_is_open_until_it_is_ended(store: SqliteStore) -> None:
    """Over restarts, and ended once."""
    assert await store.open_restoration() is None
    await begin(store)
    assert await store.open_restoration() == RECORD
    await store.save_report("r1", {"found": "nothing"})
    assert await store.open_restoration() == replace(RECORD, report={"found": "nothing"})
    await store.end_restoration("r1", NOW, event())
    assert await store.open_restoration() is None
    with pytest.raises(Conflict):
        await store.end_restoration("r1", NOW, event())


async def test_crl_numbers_leave_a_gap(store: SqliteStore) -> None:
    """Each issuer's next number lies past all that it may have given away."""
    before = await store.next_crl_number("local", "issuing-1", NOW)
    await begin(store)
    assert await store.next_crl_number("local", "issuing-1", NOW) > before + 1000


async def test_lists_of_the_backup_are_forgotten(store: SqliteStore) -> None:
    """What was revoked since is not on them."""
    await store.keep_crl("local", "issuing-1", b"old")
    await begin(store)
    assert await store.kept_crl("local", "issuing-1") is None


async def test_unknown_work_cannot_be_recovered(store: SqliteStore) -> None:
    """Nor pointed elsewhere."""
    with pytest.raises(Conflict):
        await store.recover_work(
            "none", order_url="https://ca/1", spki_sha256="k", fingerprint="f", event=event()
        )
    with pytest.raises(Conflict):
        await store.repoint_work("none", order_url="https://ca/1", event=event())
