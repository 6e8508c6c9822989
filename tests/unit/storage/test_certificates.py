"""Certificates are found by an index; the behaviour is the contract suite's."""

from broker.issuance.records import JobKind
from broker.storage.sqlite import SqliteStore
from tests.contract.storage import given
from tests.unit.storage.conftest import Plans


async def test_certificates_are_found_by_an_index(store: SqliteStore, plans: Plans) -> None:
    """Look-ups, pages and revocation read no more than they answer with."""
    made = await given.has_certificate(store)
    await store.find_certificate(made.certificate_id)
    await store.find_certificate_by_fingerprint(made.fingerprint)
    await store.is_fingerprint_known(made.fingerprint)
    await store.list_certificates(community=None, after=made.certificate_id, limit=9)
    job = given.job(JobKind.REVOKE, subject=made.certificate_id)
    event = given.event()
    await store.request_revocation(
        made.certificate_id, reason=1, at=given.NOW, event=event, job=job
    )
    await store.mark_revoked(made.certificate_id, reason=1, at=given.NOW, event=event)
    assert len(plans.steps) >= 12
    assert plans.scans() == set()


async def test_proof_is_found_through_its_partial_index(store: SqliteStore, plans: Plans) -> None:
    """The words in the index and in the query agree."""
    await store.proved_identifiers("account", given.NOW)
    assert [step for step, _ in plans.steps] == [
        "SEARCH authorizations USING INDEX authorizations_proved (account_id=? AND expires_at>?)"
    ]
