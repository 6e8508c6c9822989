"""Renewal, retirement and chains go by indexes, however much is kept."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

from broker.issuance.renewal_ports import RenewalRecord, RetirementRecord, RetirementStatus
from broker.storage.migrate import load_migrations, migrate
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.contract.storage.given import NOW
from tests.unit.storage.conftest import Plans


async def test_all_that_is_asked_is_found_by_an_index(store: SqliteStore, plans: Plans) -> None:
    """A hundred thousand certificates cost no more than one."""
    processing, _ = await given.has_claimed(store)
    made = given.certificate(processing, cert_id="a.b")
    renewal = RenewalRecord(
        certificate_id=made.certificate_id,
        cert_id=made.cert_id or "a.b",
        upstream=made.upstream,
        community=made.community,
        not_after=made.not_after,
        due_at=NOW,
    )
    retirement = RetirementRecord(
        certificate_id=made.certificate_id,
        order_id=made.order_id,
        account_id=made.account_id,
        community=made.community,
        upstream=made.upstream,
        profile="server",
        identifiers=made.identifiers,
        received_at=made.received_at,
        retire_at=made.received_at + timedelta(days=47),
        grace_seconds=60,
        revokes_unreplaced=False,
        status=RetirementStatus.WAITING,
    )
    ending = given.closing(
        processing,
        certificate=made,
        alternates=(b"1", b"2"),
        renewal=renewal,
        retirement=retirement,
    )
    await store.close_order(ending)
    assert list(await store.due_renewals(NOW, 10)) == [renewal]
    await store.keep_renewals([replace(renewal, failures=3)], [])
    assert await store.find_renewal(made.certificate_id) == replace(renewal, failures=3)
    assert await store.renewal_views(made.community, made.cert_id or "") != []
    assert await store.successor_of(made.account_id, "x.y") is None
    found = await store.find_with_chains(made.certificate_id)
    assert found == (made, [b"1", b"2"])
    assert await store.find_retirement(made.certificate_id) == retirement
    later = made.received_at + timedelta(days=1)
    waiting = await store.awaiting_successor(made.account_id, made.community, later)
    assert list(waiting) == [retirement]
    done = replace(retirement, status=RetirementStatus.REPLACED)
    await store.change_retirement(done, expected=[RetirementStatus.WAITING], events=[])
    assert await store.list_retirements(RetirementStatus.WAITING, 10) == []
    dates = await store.retirement_dates([made.certificate_id, "nobody"])
    assert dates == {made.certificate_id: retirement.retire_at}
    assert plans.scans() == set()
    assert (await store.count_retirements())["replaced"] == 1
    assert list(await store.list_retirements(None, 10)) == [done]


async def test_answer_for_a_row_that_was_ended_meanwhile_is_dropped(store: SqliteStore) -> None:
    """A certificate that was revoked while its CA was asked stays unasked."""
    processing, _ = await given.has_claimed(store)
    made = given.certificate(processing, cert_id="a.b")
    renewal = RenewalRecord(
        certificate_id=made.certificate_id,
        cert_id="a.b",
        upstream=made.upstream,
        community=made.community,
        not_after=made.not_after,
        due_at=NOW,
    )
    await store.close_order(given.closing(processing, certificate=made, renewal=renewal))
    await store.mark_revoked(made.certificate_id, reason=4, at=NOW, event=given.event())
    await store.keep_renewals([replace(renewal, due_at=NOW + timedelta(hours=6))], [])
    kept = await store.find_renewal(made.certificate_id)
    assert kept is not None
    assert kept.due_at is None


def test_certificates_of_an_older_version_are_asked_about_too() -> None:
    """Those that live: neither withheld nor revoked, and with a name to ask by."""
    steps = load_migrations()
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        migrate(made, steps[:1])
        for name, cert_id, is_released, revoked_at in (
            ("alive", "a.b", 1, None),
            ("nameless", None, 1, None),
            ("withheld", "a.c", 0, None),
            ("revoked", "a.d", 1, 5),
        ):
            made.execute(
                "INSERT INTO certificates (certificate_id, order_id, account_id, community,"
                " upstream, fingerprint, serial, cert_id, chain_pem, leaf_der, identifiers,"
                " spki_sha256, not_before, not_after, received_at, is_released, revoked_at)"
                " VALUES (?1, ?1, 'a', 'default', 'ca', ?1, '1', ?2, x'00', x'00', '[]', 's',"
                " 0, 9, 3, ?3, ?4)",
                (name, cert_id, is_released, revoked_at),
            )
        migrate(made, steps)
        rows = made.execute("SELECT certificate_id, due_at, failures FROM renewals").fetchall()
    assert rows == [("alive", 3, 0)]
