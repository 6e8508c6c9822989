"""Revocation lists of the built-in CA: built from the ledger, kept until they are stale.

A list is built anew as soon as something is revoked, and otherwise at half its lifetime, so that
a verifier always finds one that has that much left.  Whoever serves the bytes asks here each
time; nothing is signed on a request unless it is due.  The last list lies in the store as well: a
broker that starts while its keys are away publishes that one.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import CaLedger, CaStore, Clock, Signer
from broker.upstreams.authority import Authority, IssuerSet
from broker.upstreams.crl_encoding import REASONS, EntryCache
from broker.upstreams.sealing import seal_crl

__all__ = ["DEFAULT_LIFETIME", "REASONS", "Crl", "CrlPublisher", "sign_last_crl"]

DEFAULT_LIFETIME: Final = timedelta(days=7)
"""How long a revocation list runs: one that is fetched at its half survives a long weekend."""

BACKDATE: Final = timedelta(seconds=60)
"""How far before its signing a list begins, for verifiers whose clock is behind."""

REQUEST_PAUSE: Final = timedelta(seconds=5)
"""How long after a failed signing no request for a list tries another: each would wait for as long
as whoever keeps the key takes not to answer, one after the other."""


@dataclass(frozen=True, slots=True)
class Crl:
    """A revocation list as published."""

    der: bytes
    number: int
    this_update: datetime
    next_update: datetime
    renew_at: datetime
    """When the next one is planned, unless something is revoked before."""

    @property
    def signed_at(self) -> datetime:
        """Return when it was signed."""
        return self.this_update + BACKDATE


@dataclass(frozen=True, slots=True)
class _Kept:
    crl: Crl
    generation: int | None
    """How many revocations there had been; None where it was signed before the start."""


@dataclass(frozen=True, slots=True)
class _Failure:
    at: datetime
    reason: Unreachable | Broken


class CrlPublisher:
    """Keeps the current revocation list of each issuer of one CA."""

    def __init__(
        self,
        ca: str,
        issuers: IssuerSet,
        *,
        signer: Signer,
        store: CaLedger,
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
        self._failures: dict[str, _Failure] = {}
        # Counts revocations; a list that began before the last of them is stale.
        self._generation: defaultdict[str, int] = defaultdict(int)
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._entries: defaultdict[str, EntryCache] = defaultdict(EntryCache)

    def adopt(self, issuers: IssuerSet) -> None:
        """Publish for *issuers* from now on; the lists that are kept stay good."""
        self._issuers = issuers

    async def current(self, issuer_key_id: str) -> Crl | None:
        """Return the issuer's list, or None when it is no issuer of this CA.

        When a due one cannot be signed, the last is returned for as long as it runs: an old list
        that verifies still names all that was revoked before it.

        Raises:
            Unreachable: No list can be signed now, and none that runs is left.
            Broken: The same, and trying again is useless.
        """
        retired = self._issuers.find_retired(issuer_key_id)
        if retired is not None:
            return _parse(retired.last_crl_der)
        issuer = self._issuers.find(issuer_key_id)
        if issuer is None:
            return None
        kept = self._kept.get(issuer_key_id)
        if kept is not None and not self._is_due(issuer_key_id, kept):
            return kept.crl
        try:
            return await self._renew(issuer, is_patient=False)
        except (Unreachable, Broken):
            kept = kept or await self._read_kept(issuer_key_id)
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

    async def renew_all_due(self) -> None:
        """Build every list that is due, so that no request has to wait for one.

        Raises:
            Unreachable: Not all could be signed now; the others were.
            Broken: The same, and trying again is useless.
        """
        fault: Unreachable | Broken | None = None
        for issuer in self._issuers:
            try:
                await self.renew_if_due(issuer.key_id)
            except (Unreachable, Broken) as error:
                fault = error
        if fault is not None:
            raise fault

    def _is_due(self, issuer_key_id: str, kept: _Kept) -> bool:
        is_stale = kept.generation != self._generation[issuer_key_id]
        return is_stale or self._clock.now() >= kept.crl.renew_at

    async def _renew(self, issuer: Authority, *, is_patient: bool = True) -> Crl:
        """Return a list that is not due; who is not *is_patient* takes a recent failure for one."""
        async with self._locks[issuer.key_id]:
            kept = self._kept.get(issuer.key_id)
            if kept is not None and not self._is_due(issuer.key_id, kept):
                return kept.crl
            failure = self._failures.get(issuer.key_id)
            is_recent = failure is not None and self._clock.now() < failure.at + REQUEST_PAUSE
            if failure is not None and is_recent and not is_patient:
                raise failure.reason.with_traceback(None)
            generation = self._generation[issuer.key_id]
            try:
                crl = await self._build(issuer)
                await self._store.keep_crl(self._ca, issuer.key_id, crl.der)
            except (Unreachable, Broken) as error:
                self._failures[issuer.key_id] = _Failure(self._clock.now(), error)
                raise
            self._failures.pop(issuer.key_id, None)
            self._kept[issuer.key_id] = _Kept(crl, generation)
            return crl

    async def _read_kept(self, issuer_key_id: str) -> _Kept | None:
        """Return what a broker before this one signed last; a new one stays due."""
        der = await self._store.kept_crl(self._ca, issuer_key_id)
        if der is None:
            return None
        return self._kept.setdefault(issuer_key_id, _Kept(_parse(der), None))

    async def _build(self, issuer: Authority) -> Crl:
        now = self._clock.now().replace(microsecond=0)
        # A certificate that was revoked stays listed until a list signed after its end
        # (RFC 5280 §3.3); one more lifetime makes sure of that.
        since = now - self._lifetime
        revoked = await self._store.revoked_ca_certificates(self._ca, issuer.key_id, since)
        # In a thread: what is new since the last list may be much, as at the start.
        entries = await asyncio.to_thread(self._entries[issuer.key_id].encode, revoked)
        return await _sign(
            issuer,
            entries,
            number=await self._store.next_crl_number(self._ca, issuer.key_id, now),
            signer=self._signer,
            now=now,
            next_update=now + self._lifetime,
            renew_at=now + self._lifetime / 2,
        )


async def sign_last_crl(
    ca: str,
    issuer: Authority,
    *,
    signer: Signer,
    store: CaStore,
    clock: Clock,
    last_end: datetime | None,
    lifetime: timedelta,
) -> bytes:
    """Return the last list of an issuer on which nothing depends any more.

    It names all that was revoked and ended no longer than a lifetime ago, and runs for a lifetime
    past *last_end*, when the last certificate ends: a verifier that holds one finds a list that is
    good until then.

    Raises:
        Unreachable: It cannot be signed now.
        Broken: The same, and trying again is useless.
    """
    now = clock.now().replace(microsecond=0)
    end = max(now, last_end.replace(microsecond=0) if last_end is not None else now) + lifetime
    revoked = await store.revoked_ca_certificates(ca, issuer.key_id, now - lifetime)
    entries = await asyncio.to_thread(EntryCache().encode, revoked)
    number = await store.next_crl_number(ca, issuer.key_id, now)
    crl = await _sign(
        issuer, entries, number=number, signer=signer, now=now, next_update=end, renew_at=end
    )
    return crl.der


async def _sign(
    issuer: Authority,
    entries: Sequence[bytes],
    *,
    number: int,
    signer: Signer,
    now: datetime,
    next_update: datetime,
    renew_at: datetime,
) -> Crl:
    this_update = now - BACKDATE
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(this_update)
        .next_update(next_update)
        .add_extension(issuer.authority_key_identifier, critical=False)
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    der = await seal_crl(builder, signer, issuer.key, entries)
    return Crl(der, number, this_update, next_update, renew_at)


def _parse(der: bytes) -> Crl:
    """Return a list that lay in the store, as one that is never planned anew."""
    crl = x509.load_der_x509_crl(der)
    number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    end = crl.next_update_utc or crl.last_update_utc
    return Crl(der, number, crl.last_update_utc, end, end)
