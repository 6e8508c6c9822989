"""Policies, facts and requests for the tests of policy: acceptable by default, one change each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.policy.decisions import (
    EabGrant,
    FinalizeFacts,
    IssuedFacts,
    NewOrderFacts,
    ProfileLifetime,
    UpstreamFacts,
)
from broker.policy.document import PolicyDocument, parse_policy
from broker.protocol.certificates import parse_chain
from broker.protocol.csr import ParsedCsr, parse_csr
from broker.protocol.identifiers import Identifier, IdentifierType
from tests.unit.protocol.builders import Authority, key_usage, make_csr, pem, private_key

AT = datetime(2026, 11, 22, 12, tzinfo=UTC)
SOURCE = "policy.yaml"
CSR_KEY = private_key("ES256", 1)
CA = Authority.root("Policy Test CA")

PROFILE: dict[str, Any] = {
    "description": "servers",
    "usages": ["server-auth"],
    "upstreams": [{"upstream": "ca"}],
}

POLICY: dict[str, Any] = {
    "apiVersion": "penstock.dev/v1",
    "kind": "Policy",
    "community": "default",
    "names": {"allow": ["**.a.example"], "wildcards": True},
    "challenges": ["http-01", "dns-01"],
    "keys": {"allow": ["ec-p256", "rsa-2048"]},
    "cap": "90d",
    "profiles": {"server": PROFILE},
    "default_profile": "server",
}


def policy_text(**changes: Any) -> str:
    """Return the text of a policy; a change of None leaves the key out."""
    values = {key: value for key, value in {**POLICY, **changes}.items() if value is not None}
    # JSON is YAML; its lines are those of the keys.
    return json.dumps(values, indent=2)


def policy(**changes: Any) -> PolicyDocument:
    """Return a policy document."""
    return parse_policy(policy_text(**changes), source=SOURCE)


def profile_policy(*, top: Mapping[str, Any] | None = None, **changes: Any) -> PolicyDocument:
    """Return a policy whose one profile is changed."""
    values = {key: value for key, value in {**PROFILE, **changes}.items() if value is not None}
    return policy(profiles={"server": values}, **(top or {}))


def names(*texts: str) -> tuple[Identifier, ...]:
    """Return DNS identifiers."""
    return tuple(Identifier(IdentifierType.DNS, text) for text in texts)


def always(lifetime: timedelta) -> tuple[ProfileLifetime, ...]:
    """Return a lifetime that always held."""
    return (ProfileLifetime(valid_from=date.min, lifetime=lifetime),)


def upstream(name: str = "ca", **changes: Any) -> UpstreamFacts:
    """Return an upstream that honours notAfter and logs nothing."""
    facts = UpstreamFacts(
        name=name,
        description="test",
        honours_not_after=True,
        min_lifetime=timedelta(),
        max_lifetime=None,
        default_lifetimes=(),
        profiles={},
        backdate_tolerance=timedelta(seconds=60),
        is_ct_logged=False,
    )
    return replace(facts, **changes)


def new_order(*texts: str, **changes: Any) -> NewOrderFacts:
    """Return the facts of a newOrder for these names."""
    facts = NewOrderFacts(
        community="default",
        identifiers=names(*(texts or ("www.a.example",))),
        profile=None,
        not_before=None,
        not_after=None,
        at=AT,
        account_thumbprint="thumbprint",
        eab=None,
        public_suffixes=frozenset(),
        upstreams=(upstream(),),
    )
    return replace(facts, **changes)


def eab(
    key_id: str = "key", *, names: Sequence[str] = (), profiles: Sequence[str] = ()
) -> EabGrant:
    """Return an external account binding."""
    return EabGrant(key_id=key_id, names=tuple(names), profiles=tuple(profiles))


def csr(*texts: str, **kwargs: Any) -> ParsedCsr:
    """Return a CSR for these names."""
    return parse_csr(make_csr(texts or ("www.a.example",), **{"key": CSR_KEY, **kwargs}))


def finalize(**changes: Any) -> FinalizeFacts:
    """Return the facts of a finalize."""
    facts = FinalizeFacts(
        identifiers=names("www.a.example"),
        profile="server",
        csr=csr(),
        is_account_key=False,
        weaknesses=(),
        eab=None,
        at=AT,
    )
    return replace(facts, **changes)


Extensions = Sequence[tuple[x509.ExtensionType, bool]]
SERVER_AUTH: Extensions = ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),)


def issued(*texts: str, leaf: Mapping[str, Any] | None = None, **changes: Any) -> IssuedFacts:
    """Return the facts of a certificate that came back; *leaf* changes the certificate."""
    made = {
        "key": CSR_KEY,
        "not_before": AT - timedelta(hours=1),
        "not_after": AT + timedelta(days=90),
        "key_usage": key_usage("digital_signature"),
        "extensions": SERVER_AUTH,
        **(leaf or {}),
    }
    certificate = CA.leaf(*(texts or ("www.a.example",)), **made)
    facts = IssuedFacts(
        identifiers=names("www.a.example"),
        profile="server",
        csr=csr(),
        chain=parse_chain(pem(certificate, CA)),
        is_chain_anchored=True,
        anchor_fault=None,
        is_known=False,
        received_at=AT,
        cap=timedelta(days=90),
        tolerance=timedelta(seconds=60),
        not_before=None,
        not_after=None,
    )
    return replace(facts, **changes)
