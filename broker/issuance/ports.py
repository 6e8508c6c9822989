"""What the workflows ask of the world: small Protocols, at most seven methods each.

Adapters implement these and raise only what ``errors.py`` names.  Every method of a store port
is one transaction: all of it happens, or nothing does.  ``durable=False`` marks a write that
survives the end of the process but may be lost with the machine's power (docs/adr/0003).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from broker.issuance.account_ports import FormerAccounts
from broker.issuance.adoption_ports import AdoptionStore
from broker.issuance.approval_ports import ApprovalLists, ApprovalStore, WithdrawalStore
from broker.issuance.events import Event
from broker.issuance.freeze_ports import FreezeStore
from broker.issuance.incident_ports import IncidentStore
from broker.issuance.joining_ports import NodeWatch
from broker.issuance.node_ports import EnrolmentStore, NodeStore, Outbox
from broker.issuance.owner_ports import OwnerStore
from broker.issuance.quota_ports import (
    BreakerStore,
    BucketStore,
    HoldStore,
    OrderMoves,
    StandingStore,
    Taking,
    YoungStore,
)
from broker.issuance.records import (
    AccountRecord,
    AuthorizationRecord,
    CaCertificateRecord,
    CaMember,
    CaRevocation,
    CertificateRecord,
    ChallengeRecord,
    EabKeyRecord,
    Job,
    JobKind,
    OrderRecord,
    Proof,
    Suspension,
    UpstreamAccountRecord,
    WorkRecord,
    WorkStatus,
)
from broker.issuance.renewal_ports import (
    ChainStore,
    RenewalRecord,
    RenewalStore,
    RenewalThere,
    RetirementRecord,
    RetirementStore,
)
from broker.issuance.replay_ports import ReplayStore
from broker.issuance.upstream_key_ports import KeyAgeStore, KeyUses, UpstreamKeyStore
from broker.policy.decisions import UpstreamFacts
from broker.policy.document import PolicyDocument
from broker.protocol.challenges import ChallengeType, Observation
from broker.protocol.csr import ParsedCsr
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem
from broker.protocol.resources import (
    AccountStatus,
    AuthorizationStatus,
    ChallengeStatus,
    OrderStatus,
)

# --------------------------------------------------------------------------------- time and keys


class Clock(Protocol):
    """The only source of the current time."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        ...


class Nonces(Protocol):
    """Anti-replay nonces (RFC 8555 §6.5).  Replicas can share a ledger behind this port."""

    def issue(self) -> str:
        """Return a fresh nonce."""
        ...

    async def redeem(self, nonce: str) -> None:
        """Spend *nonce*; raises Problem badNonce when it is unknown, spent or another boot's."""
        ...


class Signer(Protocol):
    """Holds private keys that never leave it."""

    async def create_key(self, key_id: str, kind: str) -> bytes:
        """Make a key ('ec-p256', 'ec-p384', 'rsa-2048'…) and return its SPKI DER.

        Raises:
            Conflict: There is a key of that name already; it is left alone.
        """
        ...

    async def public_key(self, key_id: str) -> bytes:
        """Return the SPKI DER; raises Broken when there is no such key."""
        ...

    async def sign(self, key_id: str, data: bytes) -> bytes:
        """Return the JWS signature octets over *data* (EC: r‖s; RSA: PKCS#1 v1.5, SHA-256).

        The hash follows from the key: SHA-256 for P-256 and RSA, SHA-384 for P-384.
        """
        ...


class KeyRing(Signer, Protocol):
    """A signer whose keys can come to their end."""

    async def has_key(self, key_id: str) -> bool:
        """Return whether there is a key of that name, whatever state it is in."""
        ...

    async def destroy_key(self, key_id: str) -> None:
        """Destroy the key for good; nothing is done when there is none."""
        ...


class AccountKeyInspector(Protocol):
    """Knows which public keys are too weak, or too well known, to speak for an account."""

    async def inspect_key(self, spki_der: bytes) -> Sequence[str]:
        """Return a sentence for each weakness found; empty means none is known."""
        ...


class KeyInspector(Protocol):
    """Knows weak, leaked and blocked public keys."""

    async def inspect(self, csr: ParsedCsr) -> Sequence[str]:
        """Return a sentence for each weakness found; empty means none is known."""
        ...


class PublicSuffixes(Protocol):
    """The public suffix list."""

    def is_public_suffix(self, name: str) -> bool:
        """Return whether *name* (A-labels) is itself a public suffix."""
        ...


class Policies(Protocol):
    """The policy in force."""

    def current(self, community: str) -> PolicyDocument:
        """Return the community's document; raises KeyError for an unknown community."""
        ...


# ------------------------------------------------------------------------------------ validation


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a validator is asked to look at."""

    community: str
    type: ChallengeType
    identifier: Identifier
    token: str
    thumbprint: str
    account_url: str | None = None
    """The account's URL as its client knows it; dns-account-01 needs it."""


AccountUrl = Callable[[AccountRecord], str]
"""Tells the URL that an account's client knows it by."""


class Validator(Protocol):
    """Goes and looks; never judges."""

    async def observe(self, question: Question) -> Observation:
        """Return what was seen.  Never raises for the peer's sake: a failure is an observation."""
        ...


# -------------------------------------------------------------------------------------- upstream


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamRequest:
    """A newOrder for an upstream.

    ``not_after`` is None unless it is to be asked for.  ``reference`` is our work id: the
    built-in CA derives its order from it; an ACME CA never sees it.
    """

    reference: str
    identifiers: tuple[Identifier, ...]
    profile: str | None
    not_after: datetime | None
    replaces: str | None = None
    """CertID of the certificate that this one replaces, which the same account ordered there; a
    CA without renewal information is not told (RFC 9773 §5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamOrder:
    """An order as the CA shows it now."""

    url: str
    status: OrderStatus
    identifiers: tuple[Identifier, ...]
    profile: str | None = None
    not_after: datetime | None = None
    certificate_url: str | None = None
    error: Problem | None = None
    retry_at: datetime | None = None
    """Earliest time the CA wants to be asked again; None: as we please."""
    account_url: str | None = None
    """Our account that opened it, told when it is opened or found again."""


class IssuedThere(Protocol):
    """What a CA does with certificates that it has issued."""

    async def download(self, order: UpstreamOrder) -> bytes:
        """Return the PEM chain of a VALID order, exactly as sent, at most 100 kB."""
        ...

    async def download_alternates(self, order: UpstreamOrder) -> Sequence[bytes]:
        """Return the other chains that the CA offers for a VALID order, each exactly as sent; a
        bounded number, in the CA's order, without those that it names and does not give."""
        ...

    async def revoke(self, certificate_der: bytes, reason: int) -> None:
        """Revoke; a certificate that is revoked already is no error."""
        ...


class Upstream(IssuedThere, RenewalThere, Protocol):
    """A CA the broker asks for certificates, through one account for one community.

    ``csr_der`` MUST reach the CA byte for byte: the key holder signed it, and the tunnel
    promises not to touch it.  An implementation MUST NOT judge the certificate that comes back;
    the workflow does.

    Every method raises Refused (the CA said no), Unreachable (no answer, 5xx, 429; state unknown)
    or Broken (nonsense, or not registered).
    """

    @property
    def is_local(self) -> bool:
        """Whether orders cost nothing here and cannot be lost, so that none is opened ahead of
        finalize and their URLs need no fsync (the built-in CA)."""
        ...

    async def open_order(self, request: UpstreamRequest) -> UpstreamOrder:
        """Send newOrder.  After Unreachable an order may exist: seek it before asking again."""
        ...

    async def seek_order(
        self, request: UpstreamRequest, known: Collection[str]
    ) -> UpstreamOrder | None:
        """Look through the account's orders for one that answers *request*.

        Orders whose URL is in *known* are ours already and are passed over.  None when the CA
        offers no list, or holds no such order.
        """
        ...

    async def authorize(self, order: UpstreamOrder) -> UpstreamOrder:
        """Answer the challenges until the order leaves PENDING; authorizations that are valid
        already need none.  Published answers are withdrawn again, whatever happens."""
        ...

    async def finalize(self, order: UpstreamOrder, csr_der: bytes) -> UpstreamOrder:
        """Send finalize once and return the order as answered (no polling)."""
        ...

    async def read_order(self, url: str) -> UpstreamOrder:
        """Read the order at *url*; raises Refused when the CA knows no such order."""
        ...

    async def withdraw(self, order: UpstreamOrder) -> None:
        """Give up an order that was never finalized, so that the CA makes another one for the
        same names when it is asked again."""
        ...


class Upstreams(Protocol):
    """The upstreams that configuration names."""

    def get(self, upstream: str, community: str) -> Upstream:
        """Return the upstream; raises Broken when it is not configured."""
        ...

    def facts(self, community: str) -> Sequence[UpstreamFacts]:
        """Return the dated facts of each upstream that is ready to serve *community*."""
        ...

    def waiting(self, upstream: str, community: str) -> UpstreamFacts | None:
        """Return the facts of an upstream whose account is lost and can be recovered, so that what
        was ordered for it may wait; None for any other."""
        ...


# ----------------------------------------------------------------------------------------- store


class AccountStore(Protocol):
    """Downstream accounts."""

    async def create_account(
        self, account: AccountRecord, event: Event, *, eab_key_id: str | None
    ) -> AccountRecord:
        """Keep a new account, or return the one that has this key in this community already
        (then nothing changes).  Binds *eab_key_id* in the same transaction.

        Raises:
            Conflict: The EAB key is revoked, expired at ``account.created_at``, or single-use and
                bound to another account.
        """
        ...

    async def find_account(self, account_id: str) -> AccountRecord | None: ...

    async def find_account_by_key(
        self, community: str, thumbprint: str
    ) -> AccountRecord | None: ...

    async def update_account(
        self,
        account_id: str,
        *,
        expected: AccountStatus,
        status: AccountStatus,
        contacts: tuple[str, ...] | None,
        event: Event,
    ) -> AccountRecord:
        """Change contacts or status; raises Conflict when the status is not *expected*."""
        ...

    async def list_accounts(
        self, *, community: str | None, after: str | None, limit: int
    ) -> Sequence[AccountRecord]: ...

    async def is_account_key(self, thumbprint: str) -> bool:
        """Return whether any account, downstream in any community or upstream, has this key."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountClosing:
    """The end of an account, with all of its work that nobody can go on with.

    Its orders in ``order_expected`` become ``order_status``; of these orders, and of no order at
    all, its authorizations in ``authorization_expected`` become ``authorization_status``.
    ``order_event`` is kept once for each order, with its id.
    """

    account_id: str
    expected: AccountStatus
    status: AccountStatus
    order_expected: tuple[OrderStatus, ...]
    order_status: OrderStatus
    order_error: dict[str, object]
    authorization_expected: tuple[AuthorizationStatus, ...]
    authorization_status: AuthorizationStatus
    event: Event
    order_event: Event


class AccountChangeStore(Protocol):
    """What becomes of an account after it was made."""

    async def change_account_key(
        self, account_id: str, *, expected: str, jwk_json: str, thumbprint: str, event: Event
    ) -> AccountRecord:
        """Give the account another key, or return the account of its community that has the key
        already (then nothing changes): compare ``account_id``.

        Raises:
            Conflict: The account is not valid, or its key has another thumbprint than *expected*.
        """
        ...

    async def is_reserved_key(self, *, thumbprint: str, spki_sha256: str) -> bool:
        """Return whether an upstream account or a certificate has this key."""
        ...

    async def agree_to_terms(self, account_id: str, version: str, event: Event) -> AccountRecord:
        """Note which terms the account agreed to; raises Conflict when there is no such
        account."""
        ...

    async def close_account(self, closing: AccountClosing) -> AccountRecord:
        """End the account; raises Conflict when it is not ``closing.expected``."""
        ...


class EabStore(Protocol):
    """External account binding keys."""

    async def add_eab_key(self, key: EabKeyRecord, event: Event) -> None:
        """Raises Conflict when the key id is taken."""
        ...

    async def find_eab_key(self, community: str, key_id: str) -> EabKeyRecord | None: ...

    async def list_eab_keys(self, community: str | None) -> Sequence[EabKeyRecord]: ...

    async def revoke_eab_key(
        self, community: str, key_id: str, at: datetime, event: Event
    ) -> EabKeyRecord:
        """Raises Conflict when there is no such key or it is revoked already."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """What rides in the transaction of an order's change."""

    events: tuple[Event, ...] = ()
    jobs: tuple[Job, ...] = ()
    work: WorkRecord | None = None
    done: tuple[tuple[str, str], ...] = ()
    """(job kind, subject) rows to delete."""
    taking: Taking | None = None
    """Tokens that the change takes; where there are too few, it is not made (OverLimit)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeChange:
    """A challenge's new state, and what it does to its authorization and order.

    The store writes it only if the challenge still is ``expected``; ``when_all_valid`` is written
    to an order that is ``order_expected`` once no authorization of it is other than valid, and
    only then does ``attached_when_ready`` ride along.
    """

    authorization_id: str
    challenge: ChallengeRecord
    expected: ChallengeStatus
    authorization_status: AuthorizationStatus
    authorization_expected: AuthorizationStatus
    authorization_proof: Proof | None = None
    """How it became valid, when it does; None leaves what is kept."""
    order_expected: OrderStatus = OrderStatus.PENDING
    when_all_valid: OrderStatus | None = None
    when_failed: OrderStatus | None = None
    order_error: dict[str, object] | None = None
    attached: Attached = Attached()
    attached_when_ready: Attached = Attached()


@dataclass(frozen=True, slots=True, kw_only=True)
class FinalizeClaim:
    """A finalize that wants to win: READY to PROCESSING by compare-and-set.

    The store gives the order the work record that has ``work_key`` in this community and is
    not taken (OPENED first, then INTENDED; never any other), or keeps ``new_work`` as taken.
    """

    order_id: str
    expected: OrderStatus
    status: OrderStatus
    csr_der: bytes
    csr_sha256: str
    at: datetime
    decision: dict[str, object]
    upstream: str
    upstream_profile: str | None
    cap_seconds: int
    ask_not_after: bool
    work_key: str
    work_since: datetime | None
    """Untaken work created before this is too old to take: its ``not_after`` would cost the
    requester lifetime.  None: any age will do."""
    new_work: WorkRecord
    attached: Attached
    spki_sha256: str = ""
    """Of the CSR's key: an upstream order that was finalized after a backup is taken only by
    the order whose key its certificate is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderClosing:
    """The end of an order, with all that belongs to it."""

    order_id: str
    expected: OrderStatus
    status: OrderStatus
    error: dict[str, object] | None = None
    certificate: CertificateRecord | None = None
    again: str | None = None
    """Id of a certificate that is kept already and that the order is answered with."""
    alternates: tuple[bytes, ...] = ()
    """Other chains of the certificate, in PEM."""
    renewal: RenewalRecord | None = None
    retirement: RetirementRecord | None = None
    suspension: Suspension | None = None
    work_id: str | None = None
    work_status: WorkStatus | None = None
    attached: Attached = Attached()


class OrderStore(Protocol):
    """Orders with their authorizations."""

    async def create_order(
        self,
        order: OrderRecord,
        authorizations: Sequence[AuthorizationRecord],
        attached: Attached,
    ) -> None:
        """Keep a new order.  ``attached.work`` is kept only if no untaken, living work with its
        ``work_key`` exists in its community; its PREPARE job likewise.

        Raises:
            Conflict: What an authorization ``rests_on`` is valid no more, or not for that long.
            AlreadyReplaced: Another order of the account, one that is not invalid, replaces the
                same certificate.
            OverLimit: A bucket that the order takes from has too few tokens.
        """
        ...

    async def load_order(self, order_id: str) -> OrderRecord | None: ...

    async def load_authorization(self, authorization_id: str) -> AuthorizationRecord | None: ...

    async def change_challenge(self, change: ChallengeChange, *, durable: bool) -> bool:
        """Apply *change*; return whether the order became ready by it.

        A change that makes the order ready is durable whatever *durable* says: upstream work
        begins right after it.

        Raises:
            Conflict: The challenge or its authorization is not as expected.
        """
        ...

    async def change_authorization(
        self,
        authorization_id: str,
        *,
        expected: AuthorizationStatus,
        status: AuthorizationStatus,
        order_expected: Sequence[OrderStatus],
        order_status: OrderStatus | None,
        order_error: dict[str, object] | None,
        events: Sequence[Event],
    ) -> None:
        """Deactivate or expire an authorization, and its order where it stands in
        *order_expected*; those that rest on it likewise.  Raises Conflict."""
        ...

    async def claim_finalize(self, claim: FinalizeClaim) -> tuple[OrderRecord, WorkRecord]:
        """Return the order as claimed and the work it took; raises Conflict when the order is
        not in ``claim.expected`` (somebody else won)."""
        ...

    async def close_order(self, closing: OrderClosing) -> OrderRecord:
        """Close the order; raises Conflict when it is not in ``closing.expected``."""
        ...


class AccountOrders(Protocol):
    """What an account owns: the list of its orders, and what it proved ahead of them."""

    async def orders_of_account(
        self, account_id: str, *, at: datetime, after: str | None, limit: int
    ) -> Sequence[str] | None:
        """Return the ids of orders that are not invalid and whose time has not passed at *at*,
        newest first; None when *after* is no order of this account."""
        ...

    async def create_authorization(self, authorization: AuthorizationRecord, event: Event) -> None:
        """Keep an authorization that belongs to no order."""
        ...

    async def proved_ahead(
        self, account_id: str, identifiers: Sequence[Identifier], *, until: datetime
    ) -> Sequence[AuthorizationRecord]:
        """Return the account's authorizations without an order for these identifiers that are
        valid by a challenge and end after *until*; the one that lives longest first."""
        ...


class WorkStore(Protocol):
    """Upstream orders."""

    async def load_work(self, work_id: str) -> WorkRecord | None: ...

    async def work_of_order(self, order_id: str) -> WorkRecord | None:
        """Return the living work that the order took (not DEAD), or None."""
        ...

    async def mark_sent(self, work_id: str, *, is_sent: bool) -> None:
        """Note, without fsync, that newOrder is about to be sent, or that it left nothing."""
        ...

    async def record_opened(
        self,
        work_id: str,
        order_url: str,
        event: Event,
        *,
        durable: bool,
        account_url: str | None = None,
    ) -> WorkRecord:
        """Keep the upstream's URL (INTENDED to OPENED) and return the record as kept.

        When another record holds *order_url* already, nothing changes and that record is returned
        instead: compare ``work_id``.

        Raises:
            Conflict: *account_url* has been replaced meanwhile: nobody can go on with the order.
        """
        ...

    async def adopt_work(
        self,
        order_id: str,
        *,
        work_id: str,
        instead_of: str,
        event: Event,
        in_exchange: WorkRecord | None = None,
    ) -> WorkRecord:
        """Give the order the untaken *work_id*, marking *instead_of* DEAD; or that of another
        order, which gets *in_exchange* for it.

        Raises:
            Conflict: It has been taken, or is dead; or that order has it no more, or has begun to
                finalize it.
        """
        ...

    async def change_work(
        self,
        work_id: str,
        *,
        expected: Collection[WorkStatus],
        status: WorkStatus,
        replacement: WorkRecord | None = None,
        events: Sequence[Event] = (),
        only_untaken: bool = False,
        only_of: str | None = None,
        durable: bool = True,
    ) -> None:
        """Move a work record on, keeping *replacement* in the same transaction.

        Raises:
            Conflict: It is not in *expected*, is taken though *only_untaken* was asked, or is not
                that of the order *only_of*.
        """
        ...

    async def known_urls(self, upstream: str, community: str) -> frozenset[str]:
        """Return every upstream order URL that any record of this account holds."""
        ...


class CertificateStore(Protocol):
    """Certificates, released and withheld."""

    async def find_certificate(self, certificate_id: str) -> CertificateRecord | None: ...

    async def find_certificate_by_fingerprint(
        self, fingerprint: str
    ) -> CertificateRecord | None: ...

    async def request_revocation(
        self, certificate_id: str, *, reason: int, at: datetime, event: Event, job: Job
    ) -> None:
        """Note durably that this certificate is to be revoked, with its REVOKE job."""
        ...

    async def mark_revoked(
        self, certificate_id: str, *, reason: int, at: datetime, event: Event
    ) -> None:
        """Mark revoked and delete its REVOKE job; a second call changes nothing."""
        ...

    async def proved_identifiers(
        self, account_id: str, at: datetime
    ) -> frozenset[tuple[Identifier, bool]]:
        """Return (identifier, is_wildcard) of the account's valid, unexpired authorizations whose
        proof is a challenge."""
        ...

    async def list_certificates(
        self, *, community: str | None, after: str | None, limit: int
    ) -> Sequence[CertificateRecord]: ...

    async def is_fingerprint_known(self, fingerprint: str) -> bool: ...


class JobStore(Protocol):
    """Durable jobs."""

    async def find_job(self, kind: JobKind, subject: str) -> Job | None:
        """Return the job, with the note of what it waits for, or None when there is none."""
        ...

    async def due_jobs(self, now: datetime, limit: int) -> Sequence[Job]:
        """Return jobs that are due, soonest first."""
        ...

    async def postpone_job(self, job: Job, due_at: datetime, note: str) -> None:
        """Count an attempt and set the next one, without fsync."""
        ...

    async def finish_job(self, job: Job) -> None:
        """Delete the row, without fsync."""
        ...


class UpstreamStore(Protocol):
    """Upstream accounts and suspensions."""

    async def save_upstream_account(self, account: UpstreamAccountRecord, event: Event) -> None:
        """Keep or replace the account of (upstream, community).

        One that replaces another has the rest done as ``FormerAccounts`` tells.
        """
        ...

    async def find_upstream_account(
        self, upstream: str, community: str
    ) -> UpstreamAccountRecord | None: ...

    async def list_upstream_accounts(self) -> Sequence[UpstreamAccountRecord]: ...

    async def suspensions(self) -> Sequence[Suspension]: ...

    async def resume(self, upstream: str, upstream_profile: str | None, event: Event) -> None:
        """Lift a suspension; raises Conflict when there is none."""
        ...


class EventLog(Protocol):
    """The append-only event table."""

    async def append(self, event: Event, *, durable: bool) -> None: ...

    async def read_events(
        self, *, after: int, limit: int, order_id: str | None
    ) -> Sequence[tuple[int, Event]]:
        """Return (sequence number, event), oldest first."""
        ...

    async def list_orders(
        self,
        *,
        community: str | None,
        account_id: str | None,
        status: OrderStatus | None,
        after: str | None,
        limit: int,
    ) -> Sequence[OrderRecord]:
        """Return orders, newest first; *after* is the last order id of the page before."""
        ...

    async def expired_orders(self, now: datetime, limit: int) -> Sequence[OrderRecord]:
        """Return PENDING and READY orders whose ``expires_at`` has passed."""
        ...

    async def outcome_counts(self) -> dict[str, int]:
        """Return counts for gauges: ``orders_<status>``, ``work_<status>``, ``jobs_<kind>``."""
        ...

    async def soonest_expiries(self, now: datetime) -> Sequence[datetime]:
        """Return ``not_after`` of live released certificates, soonest first, at most 10,000."""
        ...


class CaStore(Protocol):
    """The built-in CA's own ledger."""

    async def record_ca_certificate(self, record: CaCertificateRecord) -> CaCertificateRecord:
        """Keep what was signed before it leaves the CA; if the order reference has a certificate
        already, nothing changes and that one is returned.

        Raises:
            Conflict: Its issuer has been retired meanwhile, or the serial is another's.
        """
        ...

    async def find_ca_certificate(self, ca: str, order_ref: str) -> CaCertificateRecord | None: ...

    async def find_ca_certificate_by_serial(
        self, ca: str, serial: str
    ) -> CaCertificateRecord | None: ...

    async def revoke_ca_certificate(
        self, ca: str, serial: str, *, at: datetime, reason: int
    ) -> bool:
        """Mark revoked; False when it was revoked already or is not ours."""
        ...

    async def revoked_ca_certificates(
        self, ca: str, issuer_key_id: str, now: datetime
    ) -> Sequence[CaRevocation]:
        """Return revocations by that issuer of what ends after *now*, oldest first."""
        ...

    async def next_crl_number(self, ca: str, issuer_key_id: str, at: datetime) -> int:
        """Return the next CRL number, durably: the seconds since 1970, or the last one and one.

        So it also rises where the ledger was restored from a backup.
        """
        ...


class CaLists(Protocol):
    """The last signed revocation list of each issuer, for when none can be signed."""

    async def keep_crl(self, ca: str, issuer_key_id: str, crl_der: bytes) -> None:
        """Keep the list instead of the one before."""
        ...

    async def kept_crl(self, ca: str, issuer_key_id: str) -> bytes | None:
        """Return the list that was kept last, None where there is none."""
        ...


class CaLedger(CaStore, CaLists, Protocol):
    """All that a built-in CA writes down while it works."""


class CaRegister(Protocol):
    """Which keys and certificates make up each built-in CA, and what each is for.

    A change and its event are one transaction.
    """

    async def ca_members(self, ca: str) -> Sequence[CaMember]:
        """Return root and issuers, in the order in which they came."""
        ...

    async def replace_ca_members(
        self, ca: str, members: Sequence[CaMember], event: Event | None
    ) -> None:
        """Have the CA consist of *members* from now on."""
        ...

    async def retire_ca_issuer(self, ca: str, key_id: str, *, at: datetime, event: Event) -> None:
        """Make a PAST issuer RETIRING: from now on nothing of its signing is recorded.

        Raises:
            Conflict: A certificate of it is in force, or it is no past issuer.
        """
        ...

    async def ca_dependents(
        self, ca: str, issuer_key_id: str, now: datetime, limit: int
    ) -> tuple[int, Sequence[CaCertificateRecord]]:
        """Return how many certificates of that issuer are in force, neither ended nor revoked,
        and those that end last, at most *limit*."""
        ...

    async def last_ca_end(self, ca: str, issuer_key_id: str) -> datetime | None:
        """Return when the last certificate that it ever issued ends, None when it issued none."""
        ...


class Store(
    AccountStore,
    AccountChangeStore,
    EabStore,
    OrderStore,
    AccountOrders,
    WorkStore,
    CertificateStore,
    JobStore,
    UpstreamStore,
    UpstreamKeyStore,
    KeyUses,
    FormerAccounts,
    KeyAgeStore,
    EventLog,
    CaLedger,
    CaRegister,
    RenewalStore,
    RetirementStore,
    ChainStore,
    AdoptionStore,
    ApprovalStore,
    ApprovalLists,
    WithdrawalStore,
    NodeStore,
    NodeWatch,
    EnrolmentStore,
    Outbox,
    IncidentStore,
    ReplayStore,
    BucketStore,
    HoldStore,
    BreakerStore,
    YoungStore,
    OrderMoves,
    StandingStore,
    FreezeStore,
    OwnerStore,
    Protocol,
):
    """All store ports at once: what an adapter implements and ``app`` hands around.

    Workflows take the narrow ports above.
    """
