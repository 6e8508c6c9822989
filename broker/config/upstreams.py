"""Upstreams: the CAs that the broker asks, and how it proves control to them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from broker.config.section import ConfigName, PatternText, ProfileName, Section
from broker.config.values import (
    AbsolutePath,
    EndpointText,
    HttpsUrl,
    HttpUrl,
    ResolverText,
    Secret,
)
from broker.policy.units import Duration

__all__ = [
    "AccountKey",
    "AcmeUpstream",
    "BuiltinUpstream",
    "CaProfileSection",
    "ClientCertificate",
    "ExternalBinding",
    "FactOverrides",
    "HttpSolver",
    "Rfc2136",
    "Rfc2136Solver",
    "SelfCheck",
    "Solver",
    "Tsig",
    "UpstreamSection",
]

_OID: Final = re.compile(r"[0-2](\.(0|[1-9][0-9]*)){1,20}", re.ASCII)

EXTENDED_KEY_USAGES: Final = {
    "server-auth": "serverAuth",
    "client-auth": "clientAuth",
    "email-protection": "emailProtection",
}
"""From the words of the configuration to those of RFC 5280 §4.2.1.12."""


def _check_usage(value: str) -> str:
    if value not in EXTENDED_KEY_USAGES and _OID.fullmatch(value) is None:
        words = ", ".join(EXTENDED_KEY_USAGES)
        raise ValueError(f"expected one of {words}, or a dotted OID")
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


def _check_plain_base(value: str) -> str:
    if not value.startswith("http://") or value.endswith("/"):
        raise ValueError(
            "expected 'http://…' without '/' at its end: a verifier cannot use TLS yet"
        )
    return value


Usage = Annotated[str, AfterValidator(_check_usage)]
Oid = Annotated[str, AfterValidator(_check_oid)]
KeyKind = Literal["ec-p256", "ec-p384", "rsa-2048", "rsa-3072", "rsa-4096"]


class CaProfileSection(Section):
    """A class of certificates of the built-in CA."""

    usages: tuple[Usage, ...] = Field(default=("server-auth",), min_length=1)
    """Extended key usages: server-auth, client-auth, email-protection, or dotted OIDs."""

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

    crl_lifetime: Duration = timedelta(days=7)
    """How long a CRL is good; it is renewed long before."""

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


class Tsig(Section):
    """The key that signs DNS updates (RFC 8945)."""

    name: str = Field(min_length=1, max_length=255, examples=["penstock-update"])
    """The key's name, as the name server knows it."""

    algorithm: Literal["hmac-sha256", "hmac-sha384", "hmac-sha512"] = "hmac-sha256"
    """MAC algorithm."""

    secret: Secret = Field(examples=["file:/etc/penstock/tsig.key"])
    """Where the secret lies, in base64 as `tsig-keygen` writes it."""


class Rfc2136(Section):
    """A name server that takes DNS updates."""

    server: EndpointText = Field(examples=["10.0.0.53:53"])
    """The primary of the zone."""

    zone: str | None = Field(default=None, examples=["acme.corp.example"])
    """The zone to update. Without it the zone is asked for."""

    resolvers: tuple[ResolverText, ...] = Field(default=(), examples=[["10.0.0.53:53"]])
    """Name servers to ask for CNAMEs and for the zone's own servers. An empty list means the
    system's."""

    tsig: Tsig
    """The key that signs the updates."""


class SelfCheck(Section):
    """Looking whether the authoritative servers show a record, before the CA is told to look."""

    enabled: bool = True
    """Whether to look at all. It is advice and never a gate."""

    timeout: Duration = timedelta(seconds=60)
    """How long to look before the CA is told all the same."""

    servers: tuple[ResolverText, ...] = Field(default=(), examples=[["10.0.0.53:53"]])
    """Name servers to look at. An empty list means those that the zone itself names."""


class Rfc2136Solver(Section):
    """Answers dns-01 by DNS updates, following `_acme-challenge` CNAMEs."""

    challenge: Literal["dns-01"]
    """What it answers: TXT records."""

    names: tuple[PatternText, ...] = Field(default=("**",), min_length=1)
    """Name patterns that it answers for; the first solver that fits is taken."""

    rfc2136: Rfc2136
    """Where the records are written."""

    self_check: SelfCheck = Field(default_factory=SelfCheck)
    """The look before the CA's."""


class HttpSolver(Section):
    """Answers http-01 from the plain listener, to which the names have to lead."""

    challenge: Literal["http-01"]
    """What it answers: a file at a well-known path."""

    names: tuple[PatternText, ...] = Field(default=("**",), min_length=1)
    """Name patterns that it answers for; the first solver that fits is taken."""


Solver = Annotated[
    Annotated[Rfc2136Solver, Tag("dns-01")] | Annotated[HttpSolver, Tag("http-01")],
    Discriminator(
        _word_at("challenge"),
        custom_error_type="solver_challenge",
        custom_error_message="expected challenge 'dns-01' or 'http-01'",
    ),
]


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

    allowed_origins: tuple[HttpsUrl, ...] = Field(
        default=(), examples=[["https://files.ca.example"]]
    )
    """Further origins that its URLs may lead to. Without them only that of the directory."""

    poll_interval: Duration = timedelta(seconds=1)
    """How often it is asked how far it is, where it does not say itself."""

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
