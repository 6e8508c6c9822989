"""What is planned for a certificate at the moment of its release."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.aftermath import renewal_of, retirement_job, retirement_of
from broker.issuance.records import CertificateRecord, JobKind, OrderRecord
from tests.fakes.world import World

DAY = timedelta(days=1)
RETIRING = {
    "lever": "retire",
    "retirement": {
        "longest_seconds": 90 * 86400,
        "grace_seconds": 3600,
        "revokes_unreplaced": True,
    },
}


@pytest.fixture
async def issued(world: World) -> tuple[OrderRecord, CertificateRecord]:
    """An order with its certificate of 90 days."""
    client = await world.client()
    order = await client.issue("www.example.com")
    found = await world.store.find_certificate(order.certificate_id or "")
    assert found is not None
    return order, found


async def test_ca_is_asked_about_renewal_from_the_first_moment(
    issued: tuple[OrderRecord, CertificateRecord],
) -> None:
    """RFC 9773 §4.3."""
    _, certificate = issued
    record = renewal_of(certificate, is_local=False)
    assert record is not None
    assert (record.due_at, record.cert_id) == (certificate.received_at, certificate.cert_id)


async def test_nobody_is_asked_where_there_is_nothing_to_ask(
    issued: tuple[OrderRecord, CertificateRecord],
) -> None:
    """Our own CA, and a certificate without an authority key identifier."""
    _, certificate = issued
    assert renewal_of(certificate, is_local=True) is None
    assert renewal_of(replace(certificate, cert_id=None), is_local=False) is None


async def test_retirement_is_planned_by_the_decision_alone(
    issued: tuple[OrderRecord, CertificateRecord],
) -> None:
    """And only for what outlives the date."""
    order, certificate = issued
    assert retirement_of(order, certificate) is None
    retiring = replace(order, decision=RETIRING, cap_seconds=47 * 86400)
    record = retirement_of(retiring, certificate)
    assert record is not None
    assert record.retire_at == certificate.received_at + 47 * DAY
    assert (record.grace, record.revokes_unreplaced) == (timedelta(hours=1), True)
    job = retirement_job(record)
    assert (job.kind, job.subject, job.due_at) == (
        JobKind.RETIRE,
        certificate.certificate_id,
        record.retire_at,
    )
    short = replace(certificate, not_after=certificate.received_at + 47 * DAY)
    assert retirement_of(retiring, short) is None
