"""What follows a certificate that was released: its renewal is watched, its retirement planned."""

from __future__ import annotations

from datetime import timedelta

from broker.issuance.planning import decided_retirement
from broker.issuance.records import CertificateRecord, Job, JobKind, OrderRecord
from broker.issuance.renewal_ports import RenewalRecord, RetirementRecord, RetirementStatus

__all__ = ["renewal_of", "retirement_job", "retirement_of"]


def renewal_of(certificate: CertificateRecord, *, is_local: bool) -> RenewalRecord | None:
    """Return what the CA is asked about, at once (RFC 9773 §4.3), or None where there is nothing
    to ask: of our own CA, and of a certificate that has no CertID."""
    if is_local or certificate.cert_id is None:
        return None
    return RenewalRecord(
        certificate_id=certificate.certificate_id,
        cert_id=certificate.cert_id,
        upstream=certificate.upstream,
        community=certificate.community,
        not_after=certificate.not_after,
        due_at=certificate.received_at,
    )


def retirement_of(order: OrderRecord, certificate: CertificateRecord) -> RetirementRecord | None:
    """Return the retirement that policy planned, or None.

    A certificate that ends by then by itself has none, whatever was planned.
    """
    planned = decided_retirement(order.decision)
    retire_at = certificate.received_at + timedelta(seconds=order.cap_seconds)
    if planned is None or certificate.not_after <= retire_at:
        return None
    return RetirementRecord(
        certificate_id=certificate.certificate_id,
        order_id=order.order_id,
        account_id=order.account_id,
        community=order.community,
        upstream=order.upstream,
        profile=order.profile,
        identifiers=tuple(sorted(order.identifiers)),
        received_at=certificate.received_at,
        retire_at=retire_at,
        grace_seconds=int(planned.grace.total_seconds()),
        revokes_unreplaced=planned.revokes_unreplaced,
        status=RetirementStatus.WAITING,
    )


def retirement_job(retirement: RetirementRecord) -> Job:
    """Return the job of the retirement date."""
    return Job(kind=JobKind.RETIRE, subject=retirement.certificate_id, due_at=retirement.retire_at)
