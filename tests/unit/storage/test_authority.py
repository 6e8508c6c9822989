"""The built-in CA's ledger is read by an index; the behaviour is the contract suite's."""

from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.unit.storage.conftest import Plans


async def test_ledger_is_read_by_an_index(store: SqliteStore, plans: Plans) -> None:
    """Look-ups and revocation read one row, and the next number its own."""
    made = await store.record_ca_certificate(given.ca_certificate())
    await store.find_ca_certificate(made.ca, made.order_ref)
    await store.find_ca_certificate_by_serial(made.ca, made.serial)
    await store.revoke_ca_certificate(made.ca, made.serial, at=given.NOW, reason=1)
    await store.next_crl_number(made.ca, made.issuer_key_id, given.NOW)
    await store.keep_crl(made.ca, made.issuer_key_id, b"list")
    await store.kept_crl(made.ca, made.issuer_key_id)
    assert len(plans.steps) >= 5
    assert plans.scans() == set()


async def test_revoked_certificates_are_found_through_their_partial_index(
    store: SqliteStore, plans: Plans
) -> None:
    """A CRL is made from what is revoked and not over; what was signed besides is not read."""
    await store.revoked_ca_certificates("private", "issuing", given.NOW)
    assert "ca_certificates_revoked (ca=? AND issuer_key_id=? AND not_after>?)" in plans.steps[0][0]
