"""Revocation: who may, and the way up (RFC 8555 §7.6).

Three ways to prove the right: the account that ordered the certificate, an account that has
proved control of every name in it by a challenge, or the certificate's own key.  A name that
policy granted without a challenge proves nothing about another account's certificate.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.closing import told_to_client
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Conflict, Refused
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.former_revocations import FormerRevocations
from broker.issuance.locks import NamedLocks
from broker.issuance.ports import CertificateStore, Clock, EventLog, Upstream, Upstreams
from broker.issuance.records import AccountRecord, CertificateRecord, Job, JobKind
from broker.protocol.identifiers import Identifier
from broker.protocol.jws import Jwk
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import Revocation

__all__ = ["Revocations"]

REASONS: Final = frozenset({0, 1, 3, 4, 5, 9})
"""Reason codes a requester may give (RFC 5280 §5.3.1): not those that speak of a CA (2, 10), of
a hold that ACME cannot lift (6) or of delta CRLs (8)."""

REVOCATION_WAIT: Final = timedelta(seconds=10)
"""How long the answer waits for the upstream before it says that the revocation is on its way."""


class Revocations:
    """The revocation workflow."""

    def __init__(
        self,
        certificates: CertificateStore,
        log: EventLog,
        upstreams: Upstreams,
        dispatcher: Dispatcher,
        clock: Clock,
        *,
        former: FormerRevocations | None = None,
    ) -> None:
        self._former = former
        self._certificates = certificates
        self._log = log
        self._upstreams = upstreams
        self._dispatcher = dispatcher
        self._clock = clock
        self._refusals: dict[str, Problem | None] = {}
        """What an upstream answered while somebody waits for it, by certificate."""
        self._asking = NamedLocks()

    async def revoke(
        self,
        community: str,
        request: Revocation,
        *,
        account: AccountRecord | None,
        key: Jwk | None,
    ) -> None:
        """Revoke a certificate that came through this community.

        Raises:
            Problem: badRevocationReason, unauthorized, alreadyRevoked; or serverInternal with
                status 503 when the upstream could not be reached: the request is kept then, and
                passed up without being asked again.
        """
        if request.reason not in REASONS:
            allowed = ", ".join(str(one) for one in sorted(REASONS))
            raise Problem(
                ProblemType.BAD_REVOCATION_REASON,
                f"reason {request.reason} is not offered; one of {allowed}",
            )
        fingerprint = hashlib.sha256(request.certificate_der).hexdigest()
        found = await self._certificates.find_certificate_by_fingerprint(fingerprint)
        if found is None or not found.is_released or found.community != community:
            raise _unauthorized()
        actor = await self._entitled(found, account, key)
        await self._pass_up(found, request.reason, actor)

    async def revoke_by_operator(self, certificate_id: str, reason: int, actor: Actor) -> None:
        """Revoke on an operator's word."""
        found = await self._certificates.find_certificate(certificate_id)
        if found is None:
            raise Problem(ProblemType.MALFORMED, "no such certificate", status=404)
        await self._pass_up(found, reason, actor)

    async def carry_out(self, job: Job) -> None:
        """Pass one revocation up: the handler of REVOKE jobs."""
        found = await self._certificates.find_certificate(job.subject)
        if found is None or found.revoked_at is not None or found.revocation_reason is None:
            return
        reason = found.revocation_reason
        upstream = self._upstreams.get(found.upstream, found.community)
        try:
            await upstream.revoke(found.leaf_der, reason)
        except Refused as refusal:
            problem = await self._tried_otherwise(upstream, found, refusal.problem, job)
            if problem is not None:
                if found.certificate_id in self._refusals:
                    self._refusals[found.certificate_id] = problem
                await self._record_refusal(found, reason, problem)
                return
        await self._certificates.mark_revoked(
            found.certificate_id,
            reason=reason,
            at=self._clock.now(),
            event=self._event(EventKind.CERTIFICATE_REVOKED, found, SYSTEM, reason),
        )

    async def _tried_otherwise(
        self, upstream: Upstream, found: CertificateRecord, problem: Problem, job: Job
    ) -> Problem | None:
        """Return why it is not revoked, None where it is after all.

        What another account of ours ordered is revoked by the one that we have now once that has
        proved its names, where the CA takes it at its word.
        """
        if self._former is None or problem.type is not ProblemType.UNAUTHORIZED:
            return problem
        return await self._former.revoke(upstream, found, problem, attempts=job.attempts)

    async def _pass_up(self, found: CertificateRecord, reason: int, actor: Actor) -> None:
        # One at a time for a certificate, so that each hears the answer to its own request.
        async with self._asking.hold(found.certificate_id):
            refusal = await self._request(found, reason, actor)
        if refusal is not None:
            raise told_to_client(found.upstream, refusal)
        after = await self._certificates.find_certificate(found.certificate_id)
        if after is None or after.revoked_at is None:
            raise Problem(
                ProblemType.SERVER_INTERNAL,
                f"upstream {found.upstream!r} cannot be reached; the revocation is kept and will "
                "be passed up as soon as it can",
                status=503,
                retry_after=timedelta(seconds=30),
            )

    async def _request(self, found: CertificateRecord, reason: int, actor: Actor) -> Problem | None:
        """Keep the request and wait a while for the upstream; returns its refusal, if any."""
        now = self._clock.now()
        job = Job(kind=JobKind.REVOKE, subject=found.certificate_id, due_at=now)
        try:
            await self._certificates.request_revocation(
                found.certificate_id,
                reason=reason,
                at=now,
                event=self._event(EventKind.CERTIFICATE_REVOCATION_REQUESTED, found, actor, reason),
                job=job,
            )
        except Conflict as lost:
            raise Problem(
                ProblemType.ALREADY_REVOKED, "this certificate is revoked already"
            ) from lost
        self._refusals[found.certificate_id] = None
        try:
            self._dispatcher.kick(job)
            await self._dispatcher.settled(JobKind.REVOKE, found.certificate_id, REVOCATION_WAIT)
            return self._refusals[found.certificate_id]
        finally:
            del self._refusals[found.certificate_id]

    async def _record_refusal(
        self, found: CertificateRecord, reason: int, problem: Problem
    ) -> None:
        """Keep that the upstream said no: nobody may be waiting to hear it."""
        event = self._event(EventKind.CERTIFICATE_REVOCATION_REFUSED, found, SYSTEM, reason)
        told = {"type": problem.token, "detail": problem.detail}
        await self._log.append(replace(event, data={**event.data, **told}), durable=False)

    async def _entitled(
        self, found: CertificateRecord, account: AccountRecord | None, key: Jwk | None
    ) -> Actor:
        if account is None:
            if key is not None and _spki_sha256(key) == found.spki_sha256:
                return Actor("certificate-key")
            raise _unauthorized()
        if found.account_id == account.account_id:
            return Actor(f"account:{account.account_id}")
        if account.community == found.community:
            proved = await self._certificates.proved_identifiers(
                account.account_id, self._clock.now()
            )
            if all(_proved_as(one) in proved for one in found.identifiers):
                return Actor(f"account:{account.account_id}", "control of every name is proved")
        raise _unauthorized()

    def _event(self, kind: EventKind, found: CertificateRecord, actor: Actor, reason: int) -> Event:
        return Event(
            kind=kind,
            at=self._clock.now(),
            actor=actor,
            community=found.community,
            account_id=found.account_id,
            order_id=found.order_id,
            upstream=found.upstream,
            data={"fingerprint": found.fingerprint, "serial": found.serial, "reason": reason},
        )


def _proved_as(identifier: Identifier) -> tuple[Identifier, bool]:
    return identifier.base, identifier.is_wildcard


def _spki_sha256(key: Jwk) -> str:
    spki = key.public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def _unauthorized() -> Problem:
    return Problem(
        ProblemType.UNAUTHORIZED,
        "revoking wants the account that ordered the certificate, an account that has proved "
        "control of every name in it, or the certificate's own key",
    )
