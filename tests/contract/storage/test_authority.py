"""The built-in CA's ledger: one certificate an order, numbers that never repeat."""

import asyncio
from dataclasses import replace

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.ports import Store
from broker.issuance.records import CaMember, CaRole
from tests.contract.storage import given
from tests.contract.storage.given import HOUR, NOW


async def test_certificate_is_found_by_order_and_by_serial(store: Store) -> None:
    """In its own CA, and in no other."""
    made = given.ca_certificate()
    assert await store.record_ca_certificate(made) == made
    assert await store.find_ca_certificate("private", made.order_ref) == made
    assert await store.find_ca_certificate_by_serial("private", made.serial) == made
    assert await store.find_ca_certificate("other", made.order_ref) is None
    assert await store.find_ca_certificate_by_serial("other", made.serial) is None


async def test_order_gets_one_certificate_ever(store: Store) -> None:
    """Of eight that are signed at once for one order, one is kept and all are told it."""
    asked = [given.ca_certificate(order_ref="same") for _ in range(8)]
    got = await asyncio.gather(*(store.record_ca_certificate(one) for one in asked))
    assert len({one.serial for one in got}) == 1
    kept = [await store.find_ca_certificate_by_serial("private", one.serial) for one in asked]
    assert sum(one is not None for one in kept) == 1


async def test_serial_number_is_given_once(store: Store) -> None:
    """A serial number that another order's certificate has is a conflict; another CA's is not."""
    first = await store.record_ca_certificate(given.ca_certificate())
    with pytest.raises(Conflict, match="serial"):
        await store.record_ca_certificate(given.ca_certificate(serial=first.serial))
    elsewhere = given.ca_certificate(serial=first.serial, ca="other")
    assert await store.record_ca_certificate(elsewhere) == elsewhere


async def test_certificate_is_revoked_once(store: Store) -> None:
    """The first call says so; a second, and one for a stranger, say no and change nothing."""
    made = await store.record_ca_certificate(given.ca_certificate())
    assert await store.revoke_ca_certificate("private", made.serial, at=NOW, reason=1)
    assert not await store.revoke_ca_certificate("private", made.serial, at=NOW + HOUR, reason=4)
    assert not await store.revoke_ca_certificate("private", "nothing", at=NOW, reason=1)
    assert not await store.revoke_ca_certificate("other", made.serial, at=NOW, reason=1)
    assert await store.find_ca_certificate("private", made.order_ref) == replace(
        made, revoked_at=NOW, revocation_reason=1
    )


async def test_revoked_certificates_of_an_issuer_until_they_end(store: Store) -> None:
    """A CRL names what is revoked, of that issuer, and not over."""
    listed = given.ca_certificate(not_after=NOW + HOUR)
    others = [
        given.ca_certificate(not_after=NOW),
        given.ca_certificate(issuer_key_id="another"),
        given.ca_certificate(ca="other"),
    ]
    for one in (listed, *others):
        await store.record_ca_certificate(one)
        await store.revoke_ca_certificate(one.ca, one.serial, at=NOW, reason=0)
    await store.record_ca_certificate(given.ca_certificate())
    found = await store.revoked_ca_certificates("private", "issuing", NOW)
    assert [one.serial for one in found] == [listed.serial]


async def test_crl_numbers_rise_whatever_the_clock_says(store: Store) -> None:
    """From the seconds since 1970; each issuer for itself, and no number twice."""
    first = int(NOW.timestamp())
    numbers = await asyncio.gather(
        *(store.next_crl_number("private", "issuing", NOW) for _ in range(8))
    )
    assert sorted(numbers) == list(range(first, first + 8))
    assert await store.next_crl_number("private", "another", NOW) == first
    assert await store.next_crl_number("private", "issuing", NOW - HOUR) == first + 8
    later = await store.next_crl_number("private", "issuing", NOW + HOUR)
    assert later == first + 3600


async def test_last_list_of_each_issuer_is_kept(store: Store) -> None:
    """The newest, whatever became of the one before; none where none was."""
    assert await store.kept_crl("private", "issuing") is None
    for der in (b"first", b"second"):
        await store.keep_crl("private", "issuing", der)
    await store.keep_crl("private", "another", b"theirs")
    assert await store.kept_crl("private", "issuing") == b"second"
    assert await store.kept_crl("other", "issuing") is None


async def test_crl_numbers_rise_past_those_that_a_restored_store_forgot(store: Store) -> None:
    """They are the time's, so a ledger that knows none of them gives higher ones all the same."""
    given_before = await store.next_crl_number("private", "lost", NOW)
    assert await store.next_crl_number("private", "restored", NOW + HOUR) > given_before


# ------------------------------------------------------------------------------ the register


def member(role: CaRole, key_id: str | None, **changes: object) -> CaMember:
    """Return a member of the CA ``private``."""
    made = CaMember(
        ca="private",
        role=role,
        key_id=key_id,
        subject=f"CN={key_id}",
        certificate_der=b"certificate",
        since=NOW,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


ISSUERS = [
    member(CaRole.ROOT, None),
    member(CaRole.RETIRED, "first", last_crl_der=b"list"),
    member(CaRole.PAST, "issuing"),
    member(CaRole.CURRENT, "third"),
    member(CaRole.REQUESTED, "fourth", certificate_der=None),
]


async def test_members_come_back_in_their_order(store: Store) -> None:
    """Each CA has its own, and their event is kept with them."""
    event = given.event()
    await store.replace_ca_members("private", ISSUERS, event)
    await store.replace_ca_members("other", [replace(ISSUERS[3], ca="other")], None)
    assert list(await store.ca_members("private")) == ISSUERS
    assert len(await store.ca_members("other")) == 1
    assert await store.ca_members("none") == []
    assert [one for _, one in await store.read_events(after=0, limit=9, order_id=None)] == [event]
    await store.replace_ca_members("private", ISSUERS[:1], None)
    assert list(await store.ca_members("private")) == ISSUERS[:1]


async def test_two_current_issuers_are_no_ca(store: Store) -> None:
    """Nothing changes, and no event tells of it."""
    await store.replace_ca_members("private", ISSUERS, None)
    with pytest.raises(Conflict):
        await store.replace_ca_members(
            "private", [*ISSUERS, member(CaRole.CURRENT, "fifth")], given.event()
        )
    assert list(await store.ca_members("private")) == ISSUERS
    assert await store.read_events(after=0, limit=9, order_id=None) == []


async def test_issuer_with_a_certificate_in_force_is_not_retired(store: Store) -> None:
    """Ended and revoked ones do not count, nor do those of others; once none is left, it is."""
    await store.replace_ca_members("private", ISSUERS, None)
    kept = [
        given.ca_certificate(not_after=NOW + HOUR),
        given.ca_certificate(not_after=NOW + 2 * HOUR),
        given.ca_certificate(not_after=NOW),
        given.ca_certificate(issuer_key_id="third", not_after=NOW + 9 * HOUR),
        given.ca_certificate(ca="other", not_after=NOW + 9 * HOUR),
    ]
    for one in kept:
        await store.record_ca_certificate(one)
    count, named = await store.ca_dependents("private", "issuing", NOW, 1)
    assert (count, [one.serial for one in named]) == (2, [kept[1].serial])
    assert await store.last_ca_end("private", "issuing") == NOW + 2 * HOUR
    assert await store.last_ca_end("private", "none") is None
    event = given.event()
    with pytest.raises(Conflict, match="2 certificates of issuer 'issuing' are in force"):
        await store.retire_ca_issuer("private", "issuing", at=NOW, event=event)
    await store.revoke_ca_certificate("private", kept[1].serial, at=NOW, reason=4)
    await store.retire_ca_issuer("private", "issuing", at=NOW + HOUR, event=event)
    retiring = (await store.ca_members("private"))[2]
    assert (retiring.role, retiring.since) == (CaRole.RETIRING, NOW + HOUR)
    assert [one for _, one in await store.read_events(after=0, limit=9, order_id=None)] == [event]


@pytest.mark.parametrize("key_id", ["third", "first", "nobody"])
async def test_only_a_past_issuer_is_retired(store: Store, key_id: str) -> None:
    """No other, and no event."""
    await store.replace_ca_members("private", ISSUERS, None)
    with pytest.raises(Conflict, match=f"'{key_id}' is no past issuer"):
        await store.retire_ca_issuer("private", key_id, at=NOW, event=given.event())
    assert list(await store.ca_members("private")) == ISSUERS


async def test_retired_issuer_gets_nothing_into_the_ledger(store: Store) -> None:
    """What it certified before is told all the same; another issuer's is taken."""
    await store.replace_ca_members("private", ISSUERS, None)
    before = await store.record_ca_certificate(given.ca_certificate(not_after=NOW))
    await store.retire_ca_issuer("private", "issuing", at=NOW, event=given.event())
    with pytest.raises(Conflict, match="issuer 'issuing' of CA 'private' is retired"):
        await store.record_ca_certificate(given.ca_certificate())
    again = given.ca_certificate(order_ref=before.order_ref)
    assert await store.record_ca_certificate(again) == before
    await store.record_ca_certificate(given.ca_certificate(issuer_key_id="third"))
