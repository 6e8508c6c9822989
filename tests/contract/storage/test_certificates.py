"""Certificates that came back, their revocation, and who has proved what."""

from dataclasses import replace
from typing import Any

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import EventKind
from broker.issuance.ports import Attached, Store
from broker.issuance.records import CertificateRecord, JobKind, Proof
from broker.protocol.resources import AuthorizationStatus
from tests.contract.storage import given
from tests.contract.storage.given import HOUR, NOW


async def request(store: Store, found: CertificateRecord, **changes: Any) -> None:
    """Ask for the revocation of a certificate."""
    asked: dict[str, Any] = {
        "reason": 4,
        "at": NOW,
        "event": given.event(EventKind.CERTIFICATE_REVOCATION_REQUESTED),
        "job": given.job(JobKind.REVOKE, subject=found.certificate_id),
    }
    await store.request_revocation(found.certificate_id, **(asked | changes))


async def revoke(store: Store, found: CertificateRecord, reason: int = 4) -> None:
    """Mark a certificate revoked."""
    await store.mark_revoked(
        found.certificate_id,
        reason=reason,
        at=NOW + HOUR,
        event=given.event(EventKind.CERTIFICATE_REVOKED),
    )


async def count(store: Store, kind: EventKind) -> int:
    """Return how many events of *kind* are kept."""
    events = await store.read_events(after=0, limit=100, order_id=None)
    return [one.kind for _, one in events].count(kind)


async def test_certificate_is_found_by_id_and_fingerprint(store: Store) -> None:
    """The chain comes back byte for byte."""
    made = await given.has_certificate(store, chain_pem=b"a\r\nb\x00\xff")
    assert await store.find_certificate(made.certificate_id) == made
    assert await store.find_certificate_by_fingerprint(made.fingerprint) == made
    assert await store.is_fingerprint_known(made.fingerprint)


async def test_unknown_certificate_is_none(store: Store) -> None:
    """What was never kept is not found."""
    assert await store.find_certificate("nothing") is None
    assert await store.find_certificate_by_fingerprint("nothing") is None
    assert not await store.is_fingerprint_known("nothing")


async def test_revocation_is_noted_before_it_is_done(store: Store) -> None:
    """The reason and the job are kept; the certificate is not revoked yet."""
    made = await given.has_certificate(store)
    await request(store, made)
    assert await store.find_certificate(made.certificate_id) == replace(made, revocation_reason=4)
    (job,) = await store.due_jobs(NOW, 10)
    assert (job.kind, job.subject) == (JobKind.REVOKE, made.certificate_id)
    assert await count(store, EventKind.CERTIFICATE_REVOCATION_REQUESTED) == 1


async def test_second_wish_hurries_the_job_that_waits(store: Store) -> None:
    """Asked again, the newer reason holds and the one job is due no later than asked."""
    made = await given.has_certificate(store)
    await request(store, made)
    (job,) = await store.due_jobs(NOW, 10)
    await store.postpone_job(job, NOW + HOUR, "no answer")
    assert await store.due_jobs(NOW, 10) == []
    await request(store, made, reason=1)
    (job,) = await store.due_jobs(NOW, 10)
    assert (job.due_at, job.attempts) == (NOW, 1)
    found = await store.find_certificate(made.certificate_id)
    assert found is not None
    assert found.revocation_reason == 1


async def test_revoked_certificate_has_no_job_left(store: Store) -> None:
    """Marking it revoked deletes its job and tells of one event."""
    made = await given.has_certificate(store)
    await request(store, made)
    await revoke(store, made)
    assert await store.find_certificate(made.certificate_id) == replace(
        made, revoked_at=NOW + HOUR, revocation_reason=4
    )
    assert await store.due_jobs(NOW + 9 * HOUR, 10) == []


async def test_second_revocation_changes_nothing(store: Store) -> None:
    """A repeated mark keeps time and reason of the first, and tells of nothing."""
    made = await given.has_certificate(store)
    await revoke(store, made)
    first = await store.find_certificate(made.certificate_id)
    await revoke(store, made, reason=1)
    assert await store.find_certificate(made.certificate_id) == first
    assert await count(store, EventKind.CERTIFICATE_REVOKED) == 1


async def test_wish_for_a_revoked_certificate_is_a_conflict(store: Store) -> None:
    """What is revoked is not queued again."""
    made = await given.has_certificate(store)
    await revoke(store, made)
    with pytest.raises(Conflict, match="revoked already"):
        await request(store, made)
    assert await store.due_jobs(NOW, 10) == []
    assert await count(store, EventKind.CERTIFICATE_REVOCATION_REQUESTED) == 0


async def test_unknown_certificate_is_not_revoked(store: Store) -> None:
    """Neither noted nor marked."""
    nothing = given.certificate(given.order(given.account()))
    with pytest.raises(Conflict, match="unknown"):
        await request(store, nothing)
    with pytest.raises(Conflict, match="unknown"):
        await revoke(store, nothing)
    assert await store.due_jobs(NOW, 10) == []


async def test_certificates_are_listed_newest_first_in_pages(store: Store) -> None:
    """Withheld ones too, page by page without a gap."""
    made = [
        await given.has_certificate(
            store, received_at=NOW + (n // 2) * HOUR, is_released=bool(n % 2)
        )
        for n in range(5)
    ]
    expected = sorted(made, key=lambda one: (one.received_at, one.certificate_id), reverse=True)
    seen: list[CertificateRecord] = []
    while page := await store.list_certificates(
        community=None, after=seen[-1].certificate_id if seen else None, limit=2
    ):
        seen += page
    assert seen == expected
    assert await store.list_certificates(community="other", after=None, limit=9) == []
    assert await store.list_certificates(community=None, after="nothing", limit=9) == []


async def test_soonest_expiries_are_of_live_released_certificates(store: Store) -> None:
    """Withheld, revoked and ended ones do not count; the next to end comes first."""
    late = await given.has_certificate(store, not_after=NOW + 3 * HOUR)
    soon = await given.has_certificate(store, not_after=NOW + HOUR)
    await given.has_certificate(store, not_after=NOW)
    await given.has_certificate(store, is_released=False)
    await revoke(store, await given.has_certificate(store))
    assert await store.soonest_expiries(NOW) == [soon.not_after, late.not_after]


# -------------------------------------------------------------------------- what was proved


async def test_proved_identifiers_are_valid_unexpired_and_by_challenge(store: Store) -> None:
    """Policy's word, an ended authorization and another account's prove nothing."""
    owner = await given.has_account(store)
    order = given.order(owner)
    valid: dict[str, Any] = {
        "status": AuthorizationStatus.VALID,
        "proof": Proof.CHALLENGE,
        "expires_at": NOW + HOUR,
    }
    cases: dict[str, dict[str, Any]] = {
        "proved": {},
        "policy": {"proof": Proof.POLICY},
        "pending": {"status": AuthorizationStatus.PENDING, "proof": None},
        "deactivated": {"status": AuthorizationStatus.DEACTIVATED},
        "expired": {"expires_at": NOW},
    }
    parts = [
        given.authorization(order, identifier=given.dns(f"{case}.example.org"), **valid | changes)
        for case, changes in cases.items()
    ]
    wildcard = given.authorization(
        order, identifier=given.dns("proved.example.org"), is_wildcard=True, **valid
    )
    await store.create_order(order, [*parts, wildcard], Attached())
    name = given.dns("proved.example.org")
    assert await store.proved_identifiers(owner.account_id, NOW) == {(name, False), (name, True)}
    assert await store.proved_identifiers("another", NOW) == frozenset()


async def test_challenge_that_becomes_valid_proves_its_name(store: Store) -> None:
    """What a client proves by the ordinary way counts from then on."""
    (part,) = await given.has_authorizations(store, 1)
    assert await store.proved_identifiers(part.account_id, NOW) == frozenset()
    await store.change_challenge(given.validated(part), durable=True)
    assert await store.proved_identifiers(part.account_id, NOW) == {(part.identifier, False)}
