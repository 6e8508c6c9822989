"""Revocation lists of the built-in CA: built from the ledger, kept until they are stale.

A list is built anew as soon as something is revoked, and otherwise at half its lifetime, so that
a verifier always finds one that has that much left.  Whoever serves the bytes asks here each
time; nothing is signed on a request unless it is due.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import CaStore, Clock, Signer
from broker.issuance.records import CaCertificateRecord
from broker.upstreams.authority import Authority, IssuerSet
from broker.upstreams.sealing import seal_crl

__all__ = ["REASONS", "Crl", "CrlPublisher"]

REASONS: Final[dict[int, x509.ReasonFlags | None]] = {
    0: None,
    1: x509.ReasonFlags.key_compromise,
    3: x509.ReasonFlags.affiliation_changed,
    4: x509.ReasonFlags.superseded,
    5: x509.ReasonFlags.cessation_of_operation,
    9: x509.ReasonFlags.privilege_withdrawn,
}
"""The reasons (RFC 5280 §5.3.1) an end entity can be revoked for.

2 and 10 speak of authorities, 6 and 8 of a hold that could be lifted, 7 is not used.  0 is
written as no reason at all, which RFC 5280 §5.3.1 asks for.
"""

BACKDATE: Final = timedelta(seconds=60)
"""How far before its signing a list begins, for verifiers whose clock is behind."""


@dataclass(frozen=True, slots=True)
class Crl:
    """A revocation list as published."""

    der: bytes
    number: int
    this_update: datetime
    next_update: datetime


@dataclass(frozen=True, slots=True)
class _Kept:
    crl: Crl
    generation: int
    renew_at: datetime


class CrlPublisher:
    """Keeps the current revocation list of each issuer of one CA."""

    def __init__(
        self,
        ca: str,
        issuers: IssuerSet,
        *,
        signer: Signer,
        store: CaStore,
        clock: Clock,
        lifetime: timedelta,
    ) -> None:
        self._ca = ca
        self._issuers = issuers
        self._signer = signer
        self._store = store
        self._clock = clock
        self._lifetime = lifetime
        self._kept: dict[str, _Kept] = {}
        # Counts revocations; a list that began before the last of them is stale.
        self._generation: defaultdict[str, int] = defaultdict(int)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def current(self, issuer_key_id: str) -> Crl | None:
        """Return the issuer's list, or None when it is no issuer of this CA.

        When a due one cannot be signed, the last is returned for as long as it runs: an old list
        that verifies still names all that was revoked before it.

        Raises:
            Unreachable: No list can be signed now, and none that runs is left.
            Broken: The same, and trying again is useless.
        """
        issuer = self._issuers.find(issuer_key_id)
        if issuer is None:
            return None
        kept = self._kept.get(issuer_key_id)
        if kept is not None and not self._is_due(issuer_key_id, kept):
            return kept.crl
        try:
            return await self._renew(issuer)
        except (Unreachable, Broken):
            if kept is None or self._clock.now() >= kept.crl.next_update:
                raise
            return kept.crl

    def mark_revoked(self, issuer_key_id: str) -> None:
        """Note that something was revoked, so that the kept list is stale from now on."""
        self._generation[issuer_key_id] += 1

    async def renew_if_due(self, issuer_key_id: str) -> None:
        """Build the list that is due; waiting revocations share one.

        Raises:
            Unreachable: No list can be signed now.
            Broken: The same, and trying again is useless.
        """
        issuer = self._issuers.find(issuer_key_id)
        kept = self._kept.get(issuer_key_id)
        if issuer is not None and (kept is None or self._is_due(issuer_key_id, kept)):
            await self._renew(issuer)

    def _is_due(self, issuer_key_id: str, kept: _Kept) -> bool:
        is_stale = kept.generation != self._generation[issuer_key_id]
        return is_stale or self._clock.now() >= kept.renew_at

    async def _renew(self, issuer: Authority) -> Crl:
        async with self._locks[issuer.key_id]:
            kept = self._kept.get(issuer.key_id)
            if kept is not None and not self._is_due(issuer.key_id, kept):
                return kept.crl
            generation = self._generation[issuer.key_id]
            crl = await self._build(issuer)
            renew_at = crl.this_update + BACKDATE + self._lifetime / 2
            self._kept[issuer.key_id] = _Kept(crl, generation, renew_at)
            return crl

    async def _build(self, issuer: Authority) -> Crl:
        now = self._clock.now().replace(microsecond=0)
        number = await self._store.next_crl_number(self._ca, issuer.key_id)
        # A certificate that was revoked stays listed until a list signed after its end
        # (RFC 5280 §3.3); one more lifetime makes sure of that.
        since = now - self._lifetime
        revoked = await self._store.revoked_ca_certificates(self._ca, issuer.key_id, since)
        this_update, next_update = now - BACKDATE, now + self._lifetime
        # All entries at once: the builder's own way of adding one copies all before it.
        builder = x509.CertificateRevocationListBuilder(
            issuer.certificate.subject, this_update, next_update, [], _entries(revoked)
        )
        builder = builder.add_extension(issuer.authority_key_identifier, critical=False)
        builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        sealed = await seal_crl(builder, self._signer, issuer.key)
        return Crl(sealed.public_bytes(Encoding.DER), number, this_update, next_update)


def _entries(revoked: Sequence[CaCertificateRecord]) -> list[x509.RevokedCertificate]:
    return [_entry(record) for record in revoked]


def _entry(record: CaCertificateRecord) -> x509.RevokedCertificate:
    at = record.revoked_at
    if at is None:
        raise Broken(f"ledger lists certificate {record.serial} as revoked without a time")
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(int(record.serial, 16))
        .revocation_date(at.replace(microsecond=0))
    )
    reason = REASONS.get(record.revocation_reason or 0)
    if reason is not None:
        builder = builder.add_extension(x509.CRLReason(reason), critical=False)
    return builder.build()
