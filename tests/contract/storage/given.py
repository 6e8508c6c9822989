"""Records for the tests of the store, each whole and unlike the others."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.ports import (
    AccountClosing,
    Attached,
    ChallengeChange,
    FinalizeClaim,
    OrderClosing,
    Store,
)
from broker.issuance.records import (
    AccountRecord,
    AuthorizationRecord,
    CaCertificateRecord,
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
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.resources import (
    AccountStatus,
    AuthorizationStatus,
    ChallengeStatus,
    OrderStatus,
)

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)
HOUR = timedelta(hours=1)

_numbers = itertools.count(1)


def name(prefix: str) -> str:
    """Return an id that no other record has."""
    return f"{prefix}-{next(_numbers):06}"


def dns(value: str) -> Identifier:
    """Return a DNS identifier."""
    return Identifier(IdentifierType.DNS, value)


def event(kind: EventKind = EventKind.REQUEST_REFUSED, **changes: Any) -> Event:
    """Return an event."""
    made = Event(kind=kind, at=NOW, actor=Actor("account:x", "because"), data={"n": [1, None]})
    return replace(made, **changes)


def account(**changes: Any) -> AccountRecord:
    """Return a valid account with a key of its own."""
    made = AccountRecord(
        account_id=name("account"),
        community="default",
        status=AccountStatus.VALID,
        jwk_json='{"crv":"P-256"}',
        thumbprint=name("thumbprint"),
        contacts=("mailto:a@example.org",),
        terms_agreed=True,
        eab_key_id=None,
        created_at=NOW,
    )
    return replace(made, **changes)


def eab_key(**changes: Any) -> EabKeyRecord:
    """Return a living key for one account."""
    made = EabKeyRecord(
        key_id=name("eab"),
        community="default",
        label="web team",
        mac_key=b"\x00\xff" * 16,
        names=("*.example.org",),
        profiles=(),
        is_reusable=False,
        created_at=NOW - HOUR,
        expires_at=None,
        revoked_at=None,
        bound_account_id=None,
    )
    return replace(made, **changes)


def order(owner: AccountRecord, **changes: Any) -> OrderRecord:
    """Return a pending order of *owner*, without authorizations."""
    made = OrderRecord(
        order_id=name("order"),
        account_id=owner.account_id,
        community=owner.community,
        status=OrderStatus.PENDING,
        identifiers=(dns("a.example.org"),),
        authorization_ids=(),
        profile="tls-server",
        is_profile_asked=False,
        not_before=None,
        not_after=NOW + 24 * HOUR,
        created_at=NOW,
        expires_at=NOW + HOUR,
        decision={"policy_sha256": "00" * 32, "lever": "ask"},
        upstream="ca",
        upstream_profile=None,
        cap_seconds=86_400,
        ask_not_after=True,
    )
    return replace(made, **changes)


def challenge(**changes: Any) -> ChallengeRecord:
    """Return a pending challenge."""
    made = ChallengeRecord(
        challenge_id=name("challenge"),
        type=ChallengeType.HTTP_01,
        token=name("token"),
        status=ChallengeStatus.PENDING,
    )
    return replace(made, **changes)


def authorization(of: OrderRecord, **changes: Any) -> AuthorizationRecord:
    """Return a pending authorization of an order, with two challenges."""
    made = AuthorizationRecord(
        authorization_id=name("authorization"),
        order_id=of.order_id,
        account_id=of.account_id,
        community=of.community,
        identifier=of.identifiers[0].base,
        is_wildcard=False,
        status=AuthorizationStatus.PENDING,
        expires_at=of.expires_at,
        proof=None,
        challenges=(challenge(), challenge(type=ChallengeType.DNS_01)),
    )
    return replace(made, **changes)


def work(**changes: Any) -> WorkRecord:
    """Return an intended, untaken upstream order."""
    made = WorkRecord(
        work_id=name("work"),
        upstream="ca",
        community="default",
        work_key="key",
        identifiers=(dns("a.example.org"),),
        upstream_profile=None,
        not_after=None,
        status=WorkStatus.INTENDED,
        order_url=None,
        taken_by=None,
        is_sent=False,
        created_at=NOW,
    )
    return replace(made, **changes)


def job(kind: JobKind = JobKind.FULFIL, **changes: Any) -> Job:
    """Return a job that is due now."""
    return replace(Job(kind=kind, subject=name("subject"), due_at=NOW), **changes)


def certificate(of: OrderRecord, **changes: Any) -> CertificateRecord:
    """Return the released certificate of an order."""
    number = name("leaf")
    made = CertificateRecord(
        certificate_id=name("certificate"),
        order_id=of.order_id,
        account_id=of.account_id,
        community=of.community,
        upstream=of.upstream,
        fingerprint=number,
        serial="1f",
        cert_id=None,
        chain_pem=b"-----BEGIN\r\n",
        leaf_der=number.encode(),
        identifiers=of.identifiers,
        spki_sha256="ab" * 32,
        not_before=NOW - HOUR,
        not_after=NOW + 24 * HOUR,
        received_at=NOW,
        is_released=True,
    )
    return replace(made, **changes)


def account_closing(account_id: str, **changes: Any) -> AccountClosing:
    """Return the end of a valid account."""
    made = AccountClosing(
        account_id=account_id,
        expected=AccountStatus.VALID,
        status=AccountStatus.DEACTIVATED,
        order_expected=(OrderStatus.PENDING, OrderStatus.READY),
        order_status=OrderStatus.INVALID,
        order_error={"type": "urn:ietf:params:acme:error:unauthorized"},
        authorization_expected=(AuthorizationStatus.PENDING, AuthorizationStatus.VALID),
        authorization_status=AuthorizationStatus.DEACTIVATED,
        event=event(EventKind.ACCOUNT_DEACTIVATED),
        order_event=event(EventKind.ORDER_CANCELLED),
    )
    return replace(made, **changes)


def suspension(of: OrderRecord, **changes: Any) -> Suspension:
    """Return a suspension for a breach that an order met."""
    made = Suspension(
        upstream=of.upstream,
        upstream_profile=of.upstream_profile,
        since=NOW,
        order_id=of.order_id,
        rule="end past the cap",
    )
    return replace(made, **changes)


def upstream_account(**changes: Any) -> UpstreamAccountRecord:
    """Return our account at an upstream."""
    made = UpstreamAccountRecord(
        upstream="ca",
        community="default",
        directory_url="https://ca.example/directory",
        account_url="https://ca.example/account/1",
        key_id="ca-default",
        thumbprint=name("thumbprint"),
        registered_at=NOW,
    )
    return replace(made, **changes)


def ca_certificate(**changes: Any) -> CaCertificateRecord:
    """Return a certificate that the built-in CA signed."""
    made = CaCertificateRecord(
        ca="private",
        order_ref=name("reference"),
        serial=name("serial"),
        certificate_der=b"\x30\x00",
        issuer_key_id="issuing",
        not_after=NOW + HOUR,
        issued_at=NOW,
    )
    return replace(made, **changes)


# ------------------------------------------------------------------------------ steps of an order


async def has_account(store: Store, **changes: Any) -> AccountRecord:
    """Keep an account and return it."""
    return await store.create_account(account(**changes), event(), eab_key_id=None)


async def has_order(
    store: Store, *, attached: Attached | None = None, **changes: Any
) -> OrderRecord:
    """Keep an order of a new account, without authorizations, and return it."""
    made = order(await has_account(store), **changes)
    await store.create_order(made, (), attached or Attached())
    return made


async def has_authorizations(store: Store, count: int) -> Sequence[AuthorizationRecord]:
    """Keep a pending order with *count* pending authorizations and return these."""
    made = order(await has_account(store))
    parts = tuple(authorization(made, identifier=dns(f"n{n}.example.org")) for n in range(count))
    ids = tuple(one.authorization_id for one in parts)
    await store.create_order(replace(made, authorization_ids=ids), parts, Attached())
    return parts


def validated(of: AuthorizationRecord, **changes: Any) -> ChallengeChange:
    """Return the change that makes the first challenge, and so the authorization, valid."""
    first = of.challenges[0]
    made = ChallengeChange(
        authorization_id=of.authorization_id,
        challenge=replace(first, status=ChallengeStatus.VALID, validated_at=NOW),
        expected=first.status,
        authorization_status=AuthorizationStatus.VALID,
        authorization_expected=of.status,
        authorization_proof=Proof.CHALLENGE,
        when_all_valid=OrderStatus.READY,
    )
    return replace(made, **changes)


def claim(of: OrderRecord, **changes: Any) -> FinalizeClaim:
    """Return a claim that takes an order from ready to processing."""
    made = FinalizeClaim(
        order_id=of.order_id,
        expected=OrderStatus.READY,
        status=OrderStatus.PROCESSING,
        csr_der=b"\x30\x80csr",
        csr_sha256="cd" * 32,
        at=NOW + HOUR,
        decision={"lever": "profile"},
        upstream="other-ca",
        upstream_profile="short",
        cap_seconds=3600,
        ask_not_after=False,
        work_key="key",
        work_since=None,
        new_work=work(),
        attached=Attached(),
    )
    return replace(made, **changes)


async def has_claimed(store: Store, **changes: Any) -> tuple[OrderRecord, WorkRecord]:
    """Keep an order that is processing and return it with its work."""
    made = await has_order(store, status=OrderStatus.READY)
    return await store.claim_finalize(claim(made, work_key=name("key"), **changes))


def closing(of: OrderRecord, **changes: Any) -> OrderClosing:
    """Return the closing that makes a processing order valid, with a certificate."""
    made = OrderClosing(
        order_id=of.order_id,
        expected=OrderStatus.PROCESSING,
        status=OrderStatus.VALID,
        certificate=certificate(of),
    )
    return replace(made, **changes)


async def has_certificate(store: Store, **changes: Any) -> CertificateRecord:
    """Keep a certificate, with the order that it belongs to, and return it."""
    processing, _ = await has_claimed(store)
    made = certificate(processing, **changes)
    await store.close_order(closing(processing, certificate=made))
    return made
