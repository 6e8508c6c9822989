"""The built-in CA: the CA that Penstock itself is, one kind of upstream.

It trusts the broker and answers at once: an order is ready when it is opened and valid when it is
finalized.  The ledger (``ports.CaStore``) has a certificate before anyone else does, so one order
never has two.  Keys stay behind ``ports.Signer``; which names and keys may be certified is
policy's to say, but nothing is signed outside the CA's own constraints or past its own end.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.issuance.errors import Broken, Conflict, Refused
from broker.issuance.ports import CaLedger, Clock, Signer, UpstreamOrder, UpstreamRequest
from broker.issuance.records import CaCertificateRecord
from broker.issuance.renewal_ports import RenewalAnswer
from broker.policy.decisions import ProfileLifetime, UpstreamFacts
from broker.protocol.certificates import parse_certificate
from broker.protocol.csr import parse_csr, verify_csr_names
from broker.protocol.extensions import canonical_spki
from broker.protocol.problems import Problem, ProblemType, printable
from broker.upstreams.authority import Authority, IssuerSet, new_serial
from broker.upstreams.builtin_leaf import CaProfile, Validity, leaf_draft, parse_leaf_key
from broker.upstreams.builtin_orders import order_url, parse_order_url, ready_order, valid_order
from broker.upstreams.crl import DEFAULT_LIFETIME, REASONS, Crl, CrlPublisher
from broker.upstreams.recent_orders import RecentOrders
from broker.upstreams.sealing import seal_draft

__all__ = ["BuiltinCa", "BuiltinSettings"]

DEFAULT_BACKDATE: Final = timedelta(seconds=60)
"""How far before its signing a certificate begins, for verifiers whose clock is behind.

Not more: the broker allows an upstream 60 s of it unless its description says otherwise.
"""

MIN_LIFETIME: Final = timedelta(minutes=1)
"""Shortest lifetime that is promised; less is gone before it is installed."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinSettings:
    """One built-in CA, as configured.

    Attributes:
        name: The upstream's name.
        base_url: Plain HTTP, without a slash at its end; issuers are published at
            ``/ca/<name>.crt`` below it, revocation lists at ``/crl/<name>.crl``.
        profiles: By name.
        default_profile: The one for orders that name none.
        issuers: The issuing CAs, the current one first in use.

    Raises:
        ValueError: The members contradict each other; the configuration is wrong.
    """

    name: str
    base_url: str
    profiles: Mapping[str, CaProfile]
    default_profile: str
    issuers: IssuerSet
    crl_lifetime: timedelta = DEFAULT_LIFETIME
    backdate: timedelta = DEFAULT_BACKDATE

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.name) is None:
            raise ValueError(f"name '{self.name}' is not made of letters, digits, '.', '_', '-'")
        if not self.base_url.startswith("http://") or self.base_url.endswith("/"):
            # Fetching these over TLS would need the very thing that is being verified.
            raise ValueError(
                f"base URL '{self.base_url}' is not http://… without a slash at its end"
            )
        if self.default_profile not in self.profiles:
            raise ValueError(f"default profile '{self.default_profile}' is not among the profiles")


class BuiltinCa:
    """Implements ``ports.Upstream`` over a ledger and a signer."""

    def __init__(
        self, settings: BuiltinSettings, *, signer: Signer, store: CaLedger, clock: Clock
    ) -> None:
        self._settings = settings
        self._signer = signer
        self._store = store
        self._clock = clock
        self._recent = RecentOrders()
        self._crls = CrlPublisher(
            settings.name,
            settings.issuers,
            signer=signer,
            store=store,
            clock=clock,
            lifetime=settings.crl_lifetime,
        )

    def adopt(self, issuers: IssuerSet) -> None:
        """Sign and publish with *issuers* from now on, in one step.

        What is being signed at this moment keeps the issuer it began with.
        """
        self._settings = replace(self._settings, issuers=issuers)
        self._crls.adopt(issuers)

    # ------------------------------------------------------------------ as an upstream

    @property
    def is_local(self) -> bool:
        """Return True: an order is its own request, so there is none to lose."""
        return True

    async def open_order(self, request: UpstreamRequest) -> UpstreamOrder:
        """Return the order that answers *request*, ready at once and always the same.

        Raises:
            Refused: It could never be finalized: unknown profile, names outside the CA's
                constraints, an end that cannot be met.
        """
        self._check_request(request)
        return await self.read_order(order_url(self._settings.name, request))

    async def seek_order(
        self, request: UpstreamRequest, known: Collection[str]
    ) -> UpstreamOrder | None:
        """Return the order that answers *request*, unless its URL is *known* already."""
        url = order_url(self._settings.name, request)
        return None if url in known else await self.read_order(url)

    async def authorize(self, order: UpstreamOrder) -> UpstreamOrder:
        """Return *order* as it is: the broker has proved the names before it asks."""
        return order

    async def finalize(self, order: UpstreamOrder, csr_der: bytes) -> UpstreamOrder:
        """Sign for the key of the CSR, once; asking again with that key changes nothing.

        Raises:
            Refused: The CSR is not for this order, or its key is another than the first time.
        """
        request = parse_order_url(self._settings.name, order.url)
        try:
            csr = verify_csr_names(parse_csr(csr_der), request.identifiers)
        except Problem as problem:
            raise Refused(problem) from problem
        await self._certify_once(request, csr.spki_der)
        return valid_order(order.url, request)

    async def read_order(self, url: str) -> UpstreamOrder:
        """Return the order at *url*; raises Refused when it is not of this CA."""
        request = parse_order_url(self._settings.name, url)
        record = await self._find(request)
        return ready_order(url, request) if record is None else valid_order(url, request)

    async def withdraw(self, order: UpstreamOrder) -> None:
        """Do nothing: each order here answers one reference, and stands in nobody's way."""

    async def download(self, order: UpstreamOrder) -> bytes:
        """Return leaf and issuing certificate in PEM; the root is not part of it.

        Raises:
            Refused: The order has no certificate.
        """
        request = parse_order_url(self._settings.name, order.url)
        record = await self._find(request)
        if record is None:
            raise Refused(Problem(ProblemType.ORDER_NOT_READY, "the order has no certificate yet"))
        return self._chain_pem(record)

    async def download_alternates(self, order: UpstreamOrder) -> Sequence[bytes]:  # noqa: ARG002
        """Return nothing: there is one chain."""
        return ()

    async def renewal_info(self, cert_id: str) -> RenewalAnswer | None:  # noqa: ARG002
        """Return None: when to renew is worked out by whoever knows the policy."""
        return None

    async def revoke(self, certificate_der: bytes, reason: int) -> None:
        """Revoke, and publish a new list before returning; once revoked, stays revoked.

        Raises:
            Refused: Not a certificate of this CA, or a reason that end entities cannot have.
            Unreachable: Revoked in the ledger, but no list could be signed.  Ask again.
        """
        if reason not in REASONS:
            allowed = ", ".join(str(number) for number in REASONS)
            detail = f"revocation reason {reason} is not one of {allowed}"
            raise Refused(Problem(ProblemType.BAD_REVOCATION_REASON, detail))
        record = await self._find_by_certificate(certificate_der)
        is_new = await self._store.revoke_ca_certificate(
            self._settings.name, record.serial, at=self._clock.now(), reason=reason
        )
        if is_new:
            self._crls.mark_revoked(record.issuer_key_id)
        await self._crls.renew_if_due(record.issuer_key_id)

    # ------------------------------------------------------------------ beside the order

    async def certify(self, request: UpstreamRequest, spki_der: bytes) -> bytes:
        """Return a PEM chain for a key of the broker's own, such as its TLS key, without a CSR.

        The ledger keeps it under ``request.reference``: asking again returns the same certificate.

        Raises:
            Refused: What is asked for cannot be met, or the reference was used for another key.
        """
        self._check_request(request)
        order_url(self._settings.name, request)
        return self._chain_pem(await self._certify_once(request, spki_der))

    async def current_crl(self, published_name: str) -> Crl | None:
        """Return an issuer's revocation list with its dates, None for a stranger's.

        Raises:
            Unreachable: None that still runs can be had.  Answer 503.
            Broken: The same, and trying again is useless.
        """
        found = self.find_issuer(published_name)
        return None if found is None else await self._crls.current(found.key_id)

    async def renew_crls(self) -> None:
        """Sign the revocation lists that are due, so that no verifier has to wait for one.

        Raises:
            Unreachable: Not all could be signed now; the others were.
            Broken: The same, and trying again is useless.
        """
        await self._crls.renew_all_due()

    def find_issuer(self, published_name: str) -> Authority | None:
        """Return an issuing CA, retired ones included; None for a stranger."""
        return self._settings.issuers.find_named(published_name)

    @property
    def issuers(self) -> IssuerSet:
        """Return the issuing CAs as they are now."""
        return self._settings.issuers

    @property
    def longest_lifetime(self) -> timedelta:
        """Return the longest lifetime that any of its profiles grants."""
        return max(profile.max_lifetime for profile in self._settings.profiles.values())

    def anchors(self) -> tuple[bytes, ...]:
        """Return the DER of the roots that certificates of this CA lead to."""
        issuers = self._settings.issuers
        everyone = (*issuers, *(one.authority for one in issuers.retired))
        roots = {(issuer.parent or issuer.certificate) for issuer in everyone}
        return tuple(sorted(root.public_bytes(Encoding.DER) for root in roots))

    def facts(self) -> UpstreamFacts:
        """Return what this CA can do, as of now: its issuer's end is a limit too."""
        settings = self._settings
        remaining = settings.issuers.current.not_after - self._clock.now()
        default = settings.profiles[settings.default_profile]

        def lifetimes(profile: CaProfile) -> tuple[ProfileLifetime, ...]:
            lifetime = min(profile.lifetime, remaining)
            return (ProfileLifetime(valid_from=date.min, lifetime=lifetime),)

        return UpstreamFacts(
            name=settings.name,
            description="builtin",
            honours_not_after=True,
            min_lifetime=MIN_LIFETIME,
            max_lifetime=min(default.max_lifetime, remaining),
            default_lifetimes=lifetimes(default),
            profiles={name: lifetimes(profile) for name, profile in settings.profiles.items()},
            backdate_tolerance=settings.backdate,
            is_ct_logged=False,
            identifier_types=settings.issuers.current.identifier_types,
            is_builtin=True,
        )

    # ------------------------------------------------------------------ signing

    def _check_request(self, request: UpstreamRequest) -> None:
        self._validity(request, self._profile(request), self._clock.now())
        self._check_names(request)

    def _check_names(self, request: UpstreamRequest) -> None:
        fault = self._settings.issuers.current.check_names(request.identifiers)
        if fault is not None:
            raise Refused(Problem(ProblemType.REJECTED_IDENTIFIER, fault))

    def _profile(self, request: UpstreamRequest) -> CaProfile:
        name = self._settings.default_profile if request.profile is None else request.profile
        profile = self._settings.profiles.get(name)
        if profile is None:
            offered = ", ".join(sorted(self._settings.profiles))
            detail = f"profile '{printable(name, 64)}' is not offered, expected one of {offered}"
            raise Refused(Problem(ProblemType.INVALID_PROFILE, detail))
        return profile

    def _validity(self, request: UpstreamRequest, profile: CaProfile, now: datetime) -> Validity:
        now = now.replace(microsecond=0)
        issuer = self._settings.issuers.current
        not_before = max(now - self._settings.backdate, issuer.certificate.not_valid_before_utc)
        if now >= issuer.not_after:
            raise Broken(f"issuing CA '{issuer.key_id}' ended {issuer.not_after:%Y-%m-%d}")
        if request.not_after is None:
            return Validity(not_before, min(now + profile.lifetime, issuer.not_after))
        # What was asked for is met or refused, never changed (RFC 8555 §7.4).
        asked = request.not_after.replace(microsecond=0)
        limits = {
            "this CA ends": issuer.not_after,
            f"the profile's {profile.max_lifetime} end": now + profile.max_lifetime,
        }
        for what, limit in limits.items():
            if asked > limit:
                detail = f"notAfter {asked:%Y-%m-%dT%H:%M:%SZ} is too late, "
                detail += f"{what} {limit:%Y-%m-%dT%H:%M:%SZ}"
                raise Refused(Problem(ProblemType.MALFORMED, detail))
        if asked <= now:
            detail = f"notAfter {asked:%Y-%m-%dT%H:%M:%SZ} has passed"
            raise Refused(Problem(ProblemType.MALFORMED, detail))
        return Validity(not_before, asked)

    async def _certify_once(self, request: UpstreamRequest, spki_der: bytes) -> CaCertificateRecord:
        record = await self._find(request)
        if record is None:
            signed = await self._sign(request, spki_der)
            self._recent.forget(request.reference)
            try:
                # Of two that sign at once, the ledger keeps the first; the other is never seen.
                record = await self._store.record_ca_certificate(signed)
            except Conflict:
                # The issuer was retired while it signed.  That its successor is too cannot be.
                signed = await self._sign(request, spki_der)
                record = await self._store.record_ca_certificate(signed)
            self._recent.keep(request.reference, record)
            if record.serial == signed.serial:
                return record
        kept = parse_certificate(record.certificate_der)
        if kept.identifiers != frozenset(request.identifiers):
            raise Broken(f"reference '{request.reference}' was used for other names")
        if kept.spki_der != canonical_spki(parse_leaf_key(spki_der)):
            detail = "the order was finalized with another key"
            raise Refused(Problem(ProblemType.ORDER_NOT_READY, detail))
        return record

    async def _sign(self, request: UpstreamRequest, spki_der: bytes) -> CaCertificateRecord:
        now = self._clock.now()
        profile = self._profile(request)
        validity = self._validity(request, profile, now)
        self._check_names(request)
        issuer, serial = self._settings.issuers.current, new_serial()
        draft = leaf_draft(
            issuer,
            profile,
            identifiers=request.identifiers,
            key=parse_leaf_key(spki_der),
            validity=validity,
            serial=serial,
            base_url=self._settings.base_url,
        )
        certificate_der = await seal_draft(draft, self._signer, issuer.key)
        return CaCertificateRecord(
            ca=self._settings.name,
            order_ref=request.reference,
            serial=f"{serial:x}",
            certificate_der=certificate_der,
            issuer_key_id=issuer.key_id,
            not_after=validity.not_after,
            issued_at=now,
        )

    # ------------------------------------------------------------------ the ledger

    async def _find(self, request: UpstreamRequest) -> CaCertificateRecord | None:
        if request.reference in self._recent:
            return self._recent.find(request.reference)
        found = await self._store.find_ca_certificate(self._settings.name, request.reference)
        self._recent.keep(request.reference, found)
        return found

    async def _find_by_certificate(self, certificate_der: bytes) -> CaCertificateRecord:
        try:
            serial = x509.load_der_x509_certificate(certificate_der).serial_number
        except ValueError:
            serial = 0
        record = await self._store.find_ca_certificate_by_serial(self._settings.name, f"{serial:x}")
        # The serial is only where to look: anyone can put it into a certificate of his own.
        if record is None or record.certificate_der != certificate_der:
            raise Refused(Problem(ProblemType.UNAUTHORIZED, "certificate is none of this CA's"))
        return record

    def _chain_pem(self, record: CaCertificateRecord) -> bytes:
        issuer = self._settings.issuers.find_published(record.issuer_key_id)
        if issuer is None:
            raise Broken(f"issuer '{record.issuer_key_id}' of a certificate is not configured")
        leaf = x509.load_der_x509_certificate(record.certificate_der)
        return leaf.public_bytes(Encoding.PEM) + issuer.pem
