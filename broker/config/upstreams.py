"""Upstreams: the CAs that the broker asks, and how it proves control to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from broker.config.section import ConfigName, ProfileName, Section
from broker.config.solvers import Solver
from broker.config.values import (
    AbsolutePath,
    CaaIdentity,
    ChainWish,
    HttpsUrl,
    HttpUrl,
    KeyStoreText,
    Secret,
)
from broker.policy.units import Duration, RateText

__all__ = [
    "AccountKey",
    "AcmeUpstream",
    "BuiltinUpstream",
    "CaProfileSection",
    "CertificateLimit",
    "CertificateLimits",
    "ClientCertificate",
    "ExternalBinding",
    "FactOverrides",
    "OrderLimit",
    "UpstreamSection",
]

_OID: Final = re.compile(r"[0-2](\.(0|[1-9][0-9]*)){1,20}", re.ASCII)

EXTENDED_KEY_USAGES: Final = {
    "server-auth": "serverAuth",
    "client-auth": "clientAuth",
    "email-protection": "emailProtection",
}
"""From the words of the configuration to those of RFC 5280 §4.2.1.12."""


KEY_USAGES: Final = {
    "digital-signature": "digitalSignature",
    "non-repudiation": "nonRepudiation",
    "key-encipherment": "keyEncipherment",
    "data-encipherment": "dataEncipherment",
    "key-agreement": "keyAgreement",
}
"""From the words of the configuration to those of RFC 5280 §4.2.1.3, for end entities."""

SHORTEST_CRL: Final = timedelta(hours=1)
"""Shortest lifetime of a CRL; the schedule that renews them looks every few minutes."""


def _check_usage(value: str) -> str:
    if value not in EXTENDED_KEY_USAGES and _OID.fullmatch(value) is None:
        words = ", ".join(EXTENDED_KEY_USAGES)
        raise ValueError(f"expected one of {words}, or a dotted OID")
    return value


def _check_key_usage(value: str) -> str:
    if value not in KEY_USAGES:
        raise ValueError(f"expected one of {', '.join(KEY_USAGES)}")
    return value


def _check_oid(value: str) -> str:
    if _OID.fullmatch(value) is None:
        raise ValueError("expected a dotted OID such as '2.23.140.1.2.1'")
    return value


def _word_at(key: str) -> Callable[[object], str | None]:
    """Return what tells the members of a union apart: the text at *key*."""

    def read(value: object) -> str | None:
        word = value.get(key) if isinstance(value, Mapping) else getattr(value, key, None)
        return word if isinstance(word, str) else None

    return read


def _check_crl_lifetime(value: timedelta) -> timedelta:
    if value < SHORTEST_CRL:
        raise ValueError("is shorter than 1h: verifiers would fetch it all the time")
    return value


def _check_plain_base(value: str) -> str:
    if not value.startswith("http://") or value.endswith("/"):
        raise ValueError(
            "expected 'http://…' without '/' at its end: a verifier cannot use TLS yet"
        )
    return value


Usage = Annotated[str, AfterValidator(_check_usage)]
KeyUsage = Annotated[str, AfterValidator(_check_key_usage)]
Oid = Annotated[str, AfterValidator(_check_oid)]
KeyKind = Literal["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096"]


class CaProfileSection(Section):
    """A class of certificates of the built-in CA."""

    usages: tuple[Usage, ...] = Field(
        default=("server-auth",), min_length=1, examples=[["server-auth", "client-auth"]]
    )
    """Extended key usages: server-auth, client-auth, email-protection, or dotted OIDs."""

    key_usages: tuple[KeyUsage, ...] = Field(
        default=("digital-signature", "key-encipherment"), min_length=1
    )
    """Key usages: digital-signature, non-repudiation, key-encipherment, data-encipherment,
    key-agreement. Those that a key of its kind cannot serve are left out of its certificate."""

    common_name: bool = False
    """Whether the first DNS name is repeated as common name, for old software. Without it the
    subject is empty and the names are critical."""

    lifetime: Duration = timedelta(days=47)
    """Lifetime where nothing is asked for."""

    max_lifetime: Duration = timedelta(days=90)
    """Longest lifetime that may be asked for."""

    policy_oids: tuple[Oid, ...] = Field(default=(), examples=[["2.23.140.1.2.1"]])
    """Certificate policies (RFC 5280 §4.2.1.4)."""

    @property
    def extended_key_usages(self) -> tuple[str, ...]:
        """Return the usages in the words of RFC 5280."""
        return tuple(EXTENDED_KEY_USAGES.get(usage, usage) for usage in self.usages)

    @property
    def rfc_key_usages(self) -> tuple[str, ...]:
        """Return the key usages in the words of RFC 5280."""
        return tuple(KEY_USAGES[usage] for usage in self.key_usages)

    @model_validator(mode="after")
    def _check_lifetimes(self) -> CaProfileSection:
        if self.lifetime > self.max_lifetime:
            raise ValueError("lifetime is longer than max_lifetime")
        return self


class BuiltinUpstream(Section):
    """The CA that the broker itself is; `penstock ca init` makes its keys."""

    kind: Literal["built-in"]
    """What it is: the CA within the broker."""

    base_url: Annotated[HttpUrl, AfterValidator(_check_plain_base)] = Field(
        examples=["http://pki.corp.example:8080"]
    )
    """Plain HTTP URL under which clients reach the plain listener, for issuers and CRLs."""

    communities: tuple[ConfigName, ...] = Field(default=("default",), min_length=1)
    """Communities that it serves."""

    profiles: dict[ProfileName, CaProfileSection] = Field(
        default_factory=lambda: {"server": CaProfileSection()}
    )
    """Its profiles; the first is the one for orders that name none."""

    backdate: Duration = timedelta(seconds=60)
    """How far before its signing a certificate begins, for verifiers whose clock is behind."""

    crl_lifetime: Annotated[Duration, AfterValidator(_check_crl_lifetime)] = timedelta(days=7)
    """How long a CRL is good, at least 1h. It is renewed at half of that, and at a revocation."""

    crl_cache: Duration = timedelta(minutes=10)
    """Longest time for which caches may answer with a CRL: what a revocation is late by for those
    behind one."""

    caa_identities: tuple[CaaIdentity, ...] = Field(default=(), examples=[["pki.corp.example"]])
    """Names by which CAA records mean it. Without any: those of the community that asks."""

    key_store: KeyStoreText = Field(default="file", examples=["vault:transit-ca"])
    """Where issuing keys are made and kept: `file`, or `vault:MOUNT`, a transit engine that no
    account key is in."""

    root_key_store: KeyStoreText = "file"
    """Where the root's key is made and kept, unless the root is offline; never the issuing keys'
    mount."""

    @property
    def server_profile(self) -> str | None:
        """Return the first profile for TLS servers, None where there is none."""
        fitting = (name for name, made in self.profiles.items() if "server-auth" in made.usages)
        return next(fitting, None)

    @model_validator(mode="after")
    def _check_profiles(self) -> BuiltinUpstream:
        if not self.profiles:
            raise ValueError("profiles is empty, expected at least one")
        return self


class AccountKey(Section):
    """The key of our account at the CA."""

    kind: KeyKind = "ec-p256"
    """Kind of the key, used when it is made."""

    store: KeyStoreText = "file"
    """Where the key is kept: `file`, encrypted in the state directory, or `vault:MOUNT`, the
    transit engine there, which the key never leaves. A community's `key_store` comes first."""

    rotate_every: Duration | None = Field(default=None, examples=["90d"])
    """How old the key may grow before it is rotated by itself. Without it: only by command."""


class ExternalBinding(Section):
    """The external account binding that the CA wants (RFC 8555 §7.3.4)."""

    key_id: str = Field(min_length=1, max_length=256, examples=["kid-from-the-ca"])
    """Key id, as the CA gave it."""

    mac_key: Secret = Field(examples=["file:/etc/penstock/ca-mac.key"])
    """Where the MAC key lies, in base64url as CAs give it."""

    algorithm: Literal["HS256", "HS384", "HS512"] = "HS256"
    """MAC algorithm."""


class ClientCertificate(Section):
    """The TLS client certificate that the CA wants to see."""

    certificate: AbsolutePath = Field(examples=["/etc/penstock/client.crt"])
    """PEM chain, leaf first."""

    key: AbsolutePath = Field(examples=["/etc/penstock/client.key"])
    """PEM private key."""


class FactOverrides(Section):
    """What is known better here than in the shipped description of the CA."""

    honours_not_after: bool | None = Field(default=None, examples=[False])
    """Whether it issues with the end that the order asks for."""

    min_lifetime: Duration | None = Field(default=None, examples=["1d"])
    """Shortest lifetime that it grants."""

    max_lifetime: Duration | None = Field(default=None, examples=["90d"])
    """Longest lifetime that it grants."""

    default_lifetime: Duration | None = Field(default=None, examples=["90d"])
    """Lifetime where no profile is named."""

    profiles: dict[ProfileName, Duration] = Field(
        default_factory=dict, examples=[{"shortlived": "160h"}]
    )
    """Lifetime by profile of the CA."""

    backdate_tolerance: Duration | None = Field(default=None, examples=["60s"])
    """How far past the cap an end may lie, for a CA that counts from another moment than ours."""

    is_ct_logged: bool | None = Field(default=None, examples=[True])
    """Whether it writes names to public Certificate Transparency logs."""

    identifier_types: tuple[Literal["dns", "ip", "email"], ...] | None = Field(
        default=None, examples=[["dns", "ip"]]
    )
    """Types of identifiers that it certifies, with any of its profiles."""

    lists_orders: bool | None = Field(default=None, examples=[False])
    """Whether it may be asked for the list of our account's orders, after an answer was lost and
    after a restore."""


class OrderLimit(Section):
    """How many orders the CA lets one account make, as it publishes."""

    rate: RateText = Field(examples=["300/3h"])
    """As many orders at once, and as many again in that time; `off` is no limit."""

    kept_for_renewals: float = Field(default=0.5, ge=0, lt=1)
    """Share of them that new names leave to renewals. An order for new names is told to come again
    later once only this share is left."""


class CertificateLimit(Section):
    """How many certificates the CA issues that are alike, where that differs from what it
    publishes."""

    rate: RateText = Field(examples=["50/7d"])
    """As many at once, and as many again in that time; `off` is no limit."""

    kept_for_renewals: float = Field(default=0.0, ge=0, lt=1)
    """Share of them that new names leave to renewals."""


class CertificateLimits(Section):
    """How many certificates the CA issues that are alike. Without one: what it publishes, as far as
    its description knows."""

    for_same_names: CertificateLimit | None = Field(default=None, examples=[{"rate": "5/7d"}])
    """For exactly the same names."""

    below_domain: CertificateLimit | None = Field(default=None, examples=[{"rate": "50/7d"}])
    """With a name below one registered domain."""


class AcmeUpstream(Section):
    """A CA that speaks ACME; `penstock upstream register NAME` makes our account there."""

    kind: Literal["acme"]
    """What it is: a CA that speaks ACME."""

    directory: HttpsUrl = Field(examples=["https://acme-v02.api.letsencrypt.org/directory"])
    """URL of its directory."""

    description: str = Field(default="generic", examples=["lets-encrypt"])
    """Name of the shipped description of what it can do; of `generic` nothing is known."""

    facts: FactOverrides = Field(default_factory=FactOverrides)
    """What is known better here."""

    communities: tuple[ConfigName, ...] = Field(default=("default",), min_length=1)
    """Communities that it serves, each through an account of its own."""

    contacts: tuple[str, ...] = Field(default=(), examples=[["mailto:pki@corp.example"]])
    """Contact URLs of our account."""

    account_key: AccountKey = Field(default_factory=AccountKey)
    """The key of our account."""

    ca_bundle: AbsolutePath | None = Field(default=None, examples=["/etc/penstock/ca-roots.pem"])
    """The only roots that its TLS certificate may lead to. Without it: the system's."""

    proxy: HttpUrl | None = Field(default=None, examples=["http://proxy.corp.example:3128"])
    """Outbound HTTP proxy."""

    client_certificate: ClientCertificate | None = None
    """TLS client certificate, for a CA that asks who connects."""

    external_account_binding: ExternalBinding | None = None
    """External account binding, for a CA that wants one."""

    anchors: AbsolutePath | None = Field(default=None, examples=["/etc/penstock/anchors.pem"])
    """PEM file of the roots that its certificates have to lead to. Without it that is not looked
    at."""

    preferred_chain: ChainWish | None = Field(default=None, examples=["Corp Root G1"])
    """Which of the chains that it offers is served by default: the common name of the issuer that
    the topmost certificate names, or the SHA-256 fingerprint of that issuer or of the topmost
    certificate. The others stay to be had. Without it: the CA's own default."""

    allowed_origins: tuple[HttpsUrl, ...] = Field(
        default=(), examples=[["https://files.ca.example"]]
    )
    """Further origins that its URLs may lead to. Without them only that of the directory."""

    poll_interval: Duration = timedelta(seconds=1)
    """How often it is asked how far it is, where it does not say itself."""

    caa_identities: tuple[CaaIdentity, ...] = Field(default=(), examples=[["letsencrypt.org"]])
    """Names by which CAA records mean it. Without any: those that its directory tells."""

    orders: OrderLimit | None = None
    """How many orders it lets one account make. Without it: what it publishes, as far as its
    description knows."""

    certificates: CertificateLimits = Field(default_factory=CertificateLimits)
    """How many certificates that are alike it issues."""

    solvers: tuple[Solver, ...] = ()
    """How its challenges are answered. An empty list is for a CA that asks for no proof."""

    @model_validator(mode="after")
    def _check_contacts(self) -> AcmeUpstream:
        for contact in self.contacts:
            if not re.fullmatch(r"mailto:[^@\s?,]+@[^@\s?,]+", contact):
                raise ValueError(f"contact '{contact[:80]}' is not 'mailto:' with one address")
        return self


UpstreamSection = Annotated[
    Annotated[BuiltinUpstream, Tag("built-in")] | Annotated[AcmeUpstream, Tag("acme")],
    Discriminator(
        _word_at("kind"),
        custom_error_type="upstream_kind",
        custom_error_message="expected kind 'built-in' or 'acme'",
    ),
]
"""One upstream of either kind."""
