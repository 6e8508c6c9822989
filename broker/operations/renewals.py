"""The part of the desk about renewal: windows, and certificates that are to be retired."""

from __future__ import annotations

from typing import Any, Final

from broker.issuance.events import Actor
from broker.issuance.records import CertificateRecord
from broker.issuance.renewal_ports import RenewalView, RetirementRecord, RetirementStatus
from broker.operations import views
from broker.operations.rooms import Desk
from broker.policy.units import format_duration
from broker.protocol.encoding import format_timestamp
from broker.web.operator import OperationError

__all__ = ["RenewalDesk"]

MAX_RETIREMENTS: Final = 1000
"""Most retirements of one list: the soonest dates are the ones that matter."""


class RenewalDesk(Desk):
    """Commands about renewal."""

    async def cert_renewal(self, *, certificate: str) -> Any:
        """Return when clients are told to renew a certificate."""
        return await self._renewal(certificate)

    async def cert_renewal_ask(self, *, actor: Actor, certificate: str) -> Any:
        """Ask the CA of a certificate when to renew it, and return when clients are told to."""
        return await self._renewal(certificate, asking=actor)

    async def _renewal(self, certificate: str, asking: Actor | None = None) -> Any:
        renewing = self._rooms.renewing
        found = await self._find_certificate(certificate)
        if renewing is None or found.cert_id is None:
            raise OperationError(
                f"certificate '{certificate}' has no renewal information",
                "it has no authority key identifier, which RFC 9773 names it by",
            )
        if asking is not None:
            await renewing.watch.refresh(found.certificate_id, asking)
        seen = await self._store.renewal_views(found.community, found.cert_id)
        view = next((each for each in seen if each.certificate_id == found.certificate_id), None)
        if view is None:
            raise OperationError(f"certificate '{certificate}' was never released")
        window = renewing.renewals.window(view, self._rooms.clock.now())
        kept = await self._store.find_renewal(found.certificate_id)
        return {
            **_window_view(view),
            "cert_id": found.cert_id,
            "suggested": {
                "start": format_timestamp(window.start),
                "end": format_timestamp(window.end),
            },
            "asked": None if kept is None else views.time_view(kept.asked_at),
            "failures": 0 if kept is None else kept.failures,
            "replaced_by_order": await self._store.successor_of(found.account_id, found.cert_id),
        }

    async def cert_retiring(self, *, status: str | None = None, limit: int = 100) -> Any:
        """Return certificates with a retirement date, the soonest first."""
        if status is not None and status not in set(RetirementStatus):
            words = ", ".join(RetirementStatus)
            raise OperationError(f"'{status}' is no status", f"one of {words}")
        if not 0 < limit <= MAX_RETIREMENTS:
            raise OperationError(f"limit {limit} is not between 1 and {MAX_RETIREMENTS}")
        wanted = RetirementStatus(status) if status is not None else None
        found = await self._store.list_retirements(wanted, limit)
        return [_retirement_view(record) for record in found]

    async def _find_certificate(self, reference: str) -> CertificateRecord:
        """Return the certificate of that id or fingerprint."""
        found = await self._store.find_certificate(reference)
        if found is None:
            fingerprint = reference.replace(":", "").lower()
            found = await self._store.find_certificate_by_fingerprint(fingerprint)
        if found is None:
            raise OperationError(
                f"there is no certificate '{reference}'", "give its id or its SHA-256 fingerprint"
            )
        return found


def _window_view(view: RenewalView) -> views.View:
    has_window = view.window_start is not None and view.window_end is not None
    return {
        "certificate": view.certificate_id,
        "upstream": view.upstream,
        "profile": view.profile,
        "not_after": views.time_view(view.not_after),
        "retires": views.time_view(view.retire_at),
        "from_the_ca": {
            "start": views.time_view(view.window_start),
            "end": views.time_view(view.window_end),
        }
        if has_window
        else None,
        "explanation": view.explanation_url,
        "asked_next": views.time_view(view.due_at),
    }


def _retirement_view(record: RetirementRecord) -> views.View:
    return {
        "certificate": record.certificate_id,
        "order": record.order_id,
        "account": record.account_id,
        "community": record.community,
        "upstream": record.upstream,
        "profile": record.profile,
        "names": [identifier.value for identifier in record.identifiers],
        "retires": views.time_view(record.retire_at),
        "status": str(record.status),
        "grace": format_duration(record.grace),
        "if_unreplaced": "revoke" if record.revokes_unreplaced else "keep",
        "replaced_by": record.replaced_by,
        "replaced": views.time_view(record.replaced_at),
    }
