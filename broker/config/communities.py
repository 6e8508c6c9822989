"""Communities: groups of requesters that share a directory, policy, anchors and accounts."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, model_validator

from broker.config.section import ConfigName, PatternText, ProfileName, Section
from broker.config.values import (
    AbsolutePath,
    Address,
    CaaIdentity,
    ChainWish,
    EndpointText,
    HttpUrl,
    KeyStoreText,
    Network,
    ResolverText,
    Secret,
)
from broker.policy.units import Duration

__all__ = ["Community", "DeclaredKey", "Networks", "Validation", "ValidationProxy"]


class Networks(Section):
    """Which addresses validation may contact."""

    allow: tuple[Network, ...] = Field(default=(), examples=[["10.0.0.0/8", "192.168.0.0/16"]])
    """Networks that may be contacted. An empty list allows public addresses only."""

    deny: tuple[Network, ...] = Field(default=(), examples=[["10.0.0.0/24"]])
    """Networks that may never be contacted, even where `allow` has them."""


class ValidationProxy(Section):
    """The HTTP proxy through which challenges are looked at. What may be contacted is judged
    before it is asked."""

    address: EndpointText = Field(examples=["proxy.corp.example:3128"])
    """Host and port of the proxy."""

    credentials: Secret | None = Field(default=None, examples=["file:/etc/penstock/proxy.key"])
    """Where user name and password lie, as `name:password`, for a proxy that asks."""

    forward_http: bool = False
    """Whether http-01 is handed to the proxy as a request instead of through a tunnel, for proxies
    that tunnel to port 443 alone. The proxy then looks the name up for itself."""


class Validation(Section):
    """How the broker looks at its clients' challenges."""

    resolvers: tuple[ResolverText, ...] = Field(default=(), examples=[["10.0.0.53:53"]])
    """Name servers to ask. An empty list means those of the system."""

    hosts: dict[str, tuple[Address, ...]] = Field(
        default_factory=dict, examples=[{"printer.corp.example": ["10.1.2.3"]}]
    )
    """Addresses of names that no name server knows, like a hosts file."""

    http_port: int = Field(default=80, ge=1, le=65_535)
    """Port at which http-01 is looked for. RFC 8555 §8.3 says 80; another is for laboratories."""

    https_port: int = Field(default=443, ge=1, le=65_535)
    """Port to which an http-01 redirect to HTTPS may lead."""

    tls_alpn_port: int = Field(default=443, ge=1, le=65_535)
    """Port at which tls-alpn-01 is looked for. RFC 8737 §3 says 443; another is for
    laboratories."""

    networks: Networks = Field(default_factory=Networks)
    """Which addresses may be contacted."""

    proxy: ValidationProxy | None = None
    """Outbound HTTP proxy. Without it connections go straight to where they lead."""

    timeout: Duration = timedelta(seconds=10)
    """How long one look may take, redirects included."""


class Community(Section):
    """One community; its directory stands at /acme/NAME/directory."""

    website: HttpUrl | None = Field(default=None, examples=["https://pki.corp.example"])
    """Page for people, told in the directory."""

    ask: str | None = Field(
        default=None, min_length=1, max_length=200, examples=["pki@corp.example"]
    )
    """Whom clients are told to ask while issuance is frozen, such as an address."""

    owner: str = Field(default="", max_length=200, examples=["team-pki"])
    """Who answers for those accounts, binding keys and nodes of the community that name nobody. A
    rule that wants an owner is not content with it."""

    contact: str = Field(default="", max_length=200, examples=["pki@corp.example"])
    """How to reach them."""

    terms_of_service: HttpUrl | None = Field(
        default=None, examples=["https://pki.corp.example/terms"]
    )
    """Terms that a new account has to agree to. Without it there is nothing to agree to."""

    terms_version: str | None = Field(
        default=None, min_length=1, max_length=64, examples=["2026-11"]
    )
    """Version of these terms. An account that agreed to another one orders nothing until it agrees
    anew. Without it, agreeing once is enough."""

    terms_instructions: HttpUrl | None = Field(
        default=None, examples=["https://pki.corp.example/how-to-agree"]
    )
    """Page that tells a person how to agree anew. Without it: the terms themselves."""

    caa_identities: tuple[CaaIdentity, ...] = Field(default=(), examples=[["pki.corp.example"]])
    """Names that CAA records may name to allow issuance, told in the directory."""

    external_account_required: bool = False
    """Whether a new account has to bring an external account binding."""

    pre_authorization: Duration | None = Field(default=None, examples=["7d"])
    """How long a name that was proven ahead of any order stays proven. Without it the directory
    offers no newAuthz."""

    anchors: AbsolutePath | None = Field(
        default=None, examples=["/etc/penstock/community-anchors.pem"]
    )
    """PEM file of the roots that certificates of this community have to lead to, whichever CA
    issues them. Without it: those of the upstream, if it names any."""

    preferred_chain: ChainWish | None = Field(default=None, examples=["Community Root"])
    """Which chain this community is served by default, whatever its upstream's says; see there."""

    key_store: KeyStoreText | None = Field(default=None, examples=["vault:transit-clinic"])
    """Where keys of accounts for this community are kept, whatever the upstream says."""

    validation: Validation = Field(default_factory=Validation)
    """How challenges are looked at."""

    @model_validator(mode="after")
    def _check_owner(self) -> Community:
        if self.contact and not self.owner:
            raise ValueError("a contact needs an owner")
        return self

    @model_validator(mode="after")
    def _check_terms(self) -> Community:
        if self.terms_of_service is None and (self.terms_version or self.terms_instructions):
            raise ValueError("terms_version and terms_instructions need terms_of_service")
        return self


class DeclaredKey(Section):
    """An external account binding key that stands here instead of being minted by a command."""

    key_id: str = Field(min_length=1, max_length=256, examples=["build-farm"])
    """The key's id, which the client is given with the MAC key."""

    community: ConfigName = Field(default="default")
    """The community in which it is good."""

    mac_key: Secret = Field(examples=["file:/etc/penstock/build-farm.key"])
    """Where the MAC key lies, in base64url as clients are given it."""

    names: tuple[PatternText, ...] = Field(default=(), examples=[["*.build.corp.example"]])
    """Name patterns that its accounts are limited to. An empty list leaves it to the policy."""

    profiles: tuple[ProfileName, ...] = Field(default=(), examples=[["server"]])
    """Profiles that its accounts are limited to. An empty list leaves it to the policy."""

    is_reusable: bool = True
    """Whether more than one account may bind it."""

    owner: str = Field(default="", max_length=200, examples=["team-build"])
    """Who answers for it and for its accounts. Without it: whoever `penstock owner set` names."""

    contact: str = Field(default="", max_length=200, examples=["build@corp.example"])
    """How to reach them."""
