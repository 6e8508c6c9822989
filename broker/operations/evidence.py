"""One certificate as an auditor asks about it: who, by what, decided how, signed where, seen where.

Everything comes from the chain and from the records beside it, and each event says at which place
of the chain it stands, so that it can be held against the copy off the host.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from broker.issuance.approval_resting import approvals_of_order
from broker.issuance.audit_chain import ChainedRecord
from broker.issuance.records import AccountRecord, CertificateRecord, OrderRecord
from broker.operations import views
from broker.operations.audit import (
    MAX_TRACED,
    AuditDesk,
    checkpoint_view,
    in_order,
    record_view,
    serial_of,
)
from broker.operations.views import View
from broker.web.operator import OperationError

__all__ = ["EvidenceDesk"]

_DELIVERED = ("delivery-", "rollout-")
_REVOKED = ("certificate-revo", "certificate-retired", "certificate-replaced")
_APPROVED = ("approval-",)
_PROVEN = ("challenge-", "authorization-", "caa-")


class EvidenceDesk(AuditDesk):
    """Commands that put together what is known about one thing."""

    async def cert_evidence(self, *, certificate: str) -> Any:
        """Return what is known about a certificate as one document."""
        found = await self._certificate_by(certificate)
        order = await self._store.load_order(found.order_id)
        account = await self._store.find_account(found.account_id)
        records = await self._records_of(found, order, account)
        work = await self._store.work_of_order(found.order_id)
        proofs = [
            await self._store.load_authorization(one)
            for one in (order.authorization_ids if order is not None else ())
        ]
        return {
            "certificate": views.certificate_view(found),
            "requester": _requester(order, account),
            "request": _request(order),
            "decision": dict(order.decision) if order is not None else None,
            "decided_at_order": _first(records, "order-created", "decision"),
            "decided_at_finalize": _first(records, "order-finalized", "decision"),
            "proofs": [views.authorization_view(one) for one in proofs if one is not None],
            "approvals": _of(records, _APPROVED),
            "upstream": {"name": found.upstream, "order": views.work_view(work)},
            "signatures": _signatures(records),
            "deliveries": _of(records, _DELIVERED),
            "revocation": _of(records, _REVOKED),
            "looked_at": _of(records, _PROVEN),
            "records": [record_view(one) for one in records],
            "chain": await self._chain(records),
        }

    async def _certificate_by(self, reference: str) -> CertificateRecord:
        """Return the certificate of that serial number, id or fingerprint."""
        serial = serial_of(reference)
        ids = list(await self._audit.trail.certificates_with_serial(serial)) if serial else []
        if len(ids) > 1:
            raise OperationError(
                f"{len(ids)} certificates have the serial number {serial}: {', '.join(ids)}",
                "name the one that is meant by its id",
            )
        found = await self._store.find_certificate(ids[0] if ids else reference)
        if found is None:
            fingerprint = reference.replace(":", "").lower()
            found = await self._store.find_certificate_by_fingerprint(fingerprint)
        if found is None:
            raise OperationError(
                f"there is no certificate '{reference}'",
                "give its serial number in hexadecimal, its id, or its SHA-256 fingerprint",
            )
        return found

    async def _records_of(
        self,
        certificate: CertificateRecord,
        order: OrderRecord | None,
        account: AccountRecord | None,
    ) -> Sequence[ChainedRecord]:
        trail = self._audit.trail
        words = [certificate.certificate_id, certificate.fingerprint]
        words += _ids_of(order)
        if account is not None and account.eab_key_id is not None:
            words.append(account.eab_key_id)
        about = [
            *await trail.records_of_order(certificate.order_id),
            *await trail.records_mentioning(words, MAX_TRACED),
        ]
        if account is not None:
            about += await trail.records_of_account(account.account_id, MAX_TRACED)
        # Other orders of the account are not this certificate's evidence.
        others = {None, certificate.order_id}
        return in_order(
            one
            for one in about
            if one.columns[6] in others or certificate.certificate_id in one.columns[8]
        )

    async def _chain(self, records: Sequence[ChainedRecord]) -> View:
        """Return where the records stand, and the checkpoint that covers the last of them."""
        audit = self._audit
        last = records[-1].seq if records else 0
        covering = await audit.trail.first_checkpoint_from(last)
        return {
            "records": [one.seq for one in records],
            "covered_by": None
            if covering is None
            else {**checkpoint_view(covering), "jws": covering.jws},
        }


def _ids_of(order: OrderRecord | None) -> Sequence[str]:
    """Return what an order rests on: its authorizations, and the approvals of people."""
    if order is None:
        return ()
    return [*order.authorization_ids, *approvals_of_order(order).all]


def _requester(order: OrderRecord | None, account: AccountRecord | None) -> View:
    told = order.decision.get("requester") if order is not None else None
    return {
        "account": None if account is None else views.account_view(account),
        "as_decided": dict(told) if isinstance(told, Mapping) else None,
    }


def _request(order: OrderRecord | None) -> View | None:
    return None if order is None else views.order_view(order)


def _first(records: Sequence[ChainedRecord], kind: str, member: str) -> Any:
    """Return what the chain says that was decided, which cannot be changed in the order's row."""
    return next((one.data.get(member) for one in records if one.kind == kind), None)


def _of(records: Sequence[ChainedRecord], beginnings: Sequence[str]) -> list[View]:
    return [record_view(one) for one in records if one.kind.startswith(tuple(beginnings))]


def _signatures(records: Sequence[ChainedRecord]) -> list[View]:
    """Return every signature that Vault was asked for, with its own name of the request."""
    return [
        {"record": one.seq, "for": one.data.get("for"), **made}
        for one in records
        if one.kind == "signatures-made"
        for made in one.data.get("signatures", ())
        if isinstance(made, dict)
    ]
