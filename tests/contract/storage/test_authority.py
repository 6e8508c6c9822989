"""The built-in CA's ledger: one certificate an order, numbers that never repeat."""

import asyncio
from dataclasses import replace

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.ports import Store
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


async def test_crl_numbers_rise_by_one_from_one(store: Store) -> None:
    """Each issuer counts for itself, and no number is given twice, at once or later."""
    numbers = await asyncio.gather(*(store.next_crl_number("private", "issuing") for _ in range(8)))
    assert sorted(numbers) == list(range(1, 9))
    assert await store.next_crl_number("private", "another") == 1
    assert await store.next_crl_number("private", "issuing") == 9
