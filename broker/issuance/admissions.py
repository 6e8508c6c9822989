"""Accounts that people let in: a key without a binding asks, and an approval mints its binding.

The approved key may register as it is, and is bound to the minted key by that; clients that make
a new key for each attempt are given the binding by whoever approved them.  Anybody can ask, so
requests are counted by the address that they come from.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from broker.issuance.accounts import new_id
from broker.issuance.approval_gate import ApprovalGate, is_recent, subject_of
from broker.issuance.approval_ports import (
    ApprovalKind,
    ApprovalRecord,
    ApprovalStatus,
    ApprovalStore,
)
from broker.issuance.approval_terms import Terms
from broker.issuance.events import Actor
from broker.issuance.origins import Origin
from broker.issuance.ports import Clock, Policies
from broker.protocol.jws import Jwk
from broker.protocol.requests import NewAccount

__all__ = ["Admissions"]

IPV6_BITS: Final = 64
"""Length of the prefix that counts as one asker, in bits."""

UNSEEN: Final = "address unknown"
"""What requests are counted by whose address nobody saw: all together."""


class Admissions:
    """Lets keys register that people have approved."""

    def __init__(
        self, store: ApprovalStore, gate: ApprovalGate, policies: Policies, clock: Clock
    ) -> None:
        self._store = store
        self._gate = gate
        self._policies = policies
        self._clock = clock

    async def admit(
        self, community: str, key: Jwk, request: NewAccount, origin: Origin
    ) -> str | None:
        """Return the binding key that the account of *key* is bound to; None: to none.

        Raises:
            Problem: A person has to say yes first, or said no.
        """
        document = self._policies.current(community)
        wanted = document.account_approval
        if wanted is None:
            return None
        terms = Terms.of_accounts(wanted)
        subject = subject_of(key.thumbprint, (), "")
        kept = await self._store.approvals_of(community, key.thumbprint, "")
        records = [await self._gate.current(one) for one in kept]
        for record in records:
            if record.eab_key_id is not None and await self._gate.standing([record], terms):
                return record.eab_key_id
            if self._speaks(record):
                raise self._gate.told(record)
        joined = await self._gate.join(subject, records)
        if joined is None:
            record = self._request(community, key, request, origin, terms)
            earlier = records[0].approval_id if records else None
            joined = await self._gate.file(
                replace(record, earlier=earlier),
                Actor(f"key:{key.thumbprint}"),
                document.policy_sha256,
            )
        raise self._gate.told(joined)

    def _speaks(self, record: ApprovalRecord) -> bool:
        if record.status is ApprovalStatus.DENIED:
            return is_recent(record, self._clock.now())
        return record.status in (ApprovalStatus.DUE, ApprovalStatus.SUSPENDED)

    def _request(
        self, community: str, key: Jwk, request: NewAccount, origin: Origin, terms: Terms
    ) -> ApprovalRecord:
        now = self._clock.now()
        answer_by = now + terms.answer_within
        return ApprovalRecord(
            approval_id=new_id(),
            kind=ApprovalKind.ACCOUNT,
            community=community,
            status=ApprovalStatus.WAITING,
            holder=key.thumbprint,
            asker=f"address:{_network(origin.address)}" if origin.address else UNSEEN,
            identifiers=(),
            profile="",
            subject_sha256=subject_of(key.thumbprint, (), ""),
            terms=terms.facts(),
            asked_by=_asked_by(key, request.contacts, origin),
            asked_at=now,
            last_asked_at=now,
            times_asked=1,
            answer_by=answer_by,
            look_at=answer_by,
        )


def _network(address: str) -> str:
    """Return what counts as one asker: an IPv4 address, or the /64 of an IPv6 one, which a single
    host has to itself (RFC 7421 §1)."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if found.version == 4:
        return str(found)
    return str(ipaddress.ip_network((found, IPV6_BITS), strict=False))


def _asked_by(key: Jwk, contacts: Sequence[str], origin: Origin) -> Mapping[str, object]:
    certificate = origin.client_certificate
    known: dict[str, object] = {
        "contacts": list(contacts),
        "thumbprint": key.thumbprint,
        "address": origin.address,
        "client_certificate": None if certificate is None else certificate.fingerprint,
    }
    return {**{name: value for name, value in known.items() if value}, "people": list(contacts)}
