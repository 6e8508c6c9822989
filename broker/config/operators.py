"""The people who operate the broker: how each is known, and what each may do in which community."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from broker.config.section import Section
from broker.config.values import (
    AbsolutePath,
    Endpoint,
    EndpointText,
    HttpsUrl,
    Secret,
    SecretRef,
)
from broker.policy.roles import Role
from broker.policy.units import Duration

__all__ = ["Operators", "OperatorsListener", "PersonSection", "TokenIssuerSection"]

_PERSON: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)
_SHA256: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_COMMUNITY: Final = re.compile(r"\*|[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_FACES: Final = ("email", "dns", "uri", "subject", "sha256")


def _check_person(value: str) -> str:
    if _PERSON.fullmatch(value) is None:
        raise ValueError("a person's name is 1 to 64 letters, digits, '.', '_', '@' and '-'")
    return value


def _check_community(value: str) -> str:
    if _COMMUNITY.fullmatch(value) is None:
        raise ValueError("expected the name of a community, or '*' for all")
    return value


def _check_fingerprint(value: str) -> str:
    plain = value.replace(":", "").lower()
    if _SHA256.fullmatch(plain) is None:
        raise ValueError("expected a certificate's SHA-256 in hex, 64 digits")
    return plain


def _check_face(value: str) -> str:
    face, colon, what = value.partition(":")
    if not colon or face not in _FACES or not what:
        shown = ", ".join(f"'{one}:…'" for one in _FACES)
        raise ValueError(f"expected one of {shown}")
    if face == "sha256":
        return f"sha256:{_check_fingerprint(what)}"
    if face == "email":
        local, _, host = what.rpartition("@")
        if not local or not host:
            raise ValueError("expected an address such as 'email:jane@corp.example'")
        return f"email:{local}@{host.lower()}"
    return f"dns:{what.lower()}" if face == "dns" else value


def _check_subject(value: str) -> str:
    issuer, colon, subject = value.partition(":")
    if not colon or not issuer or not subject:
        raise ValueError("expected name of the issuer and subject such as 'corp:00u1ab2c3d'")
    return value


RolesByCommunity = dict[Annotated[str, AfterValidator(_check_community)], tuple[Role, ...]]
FaceText = Annotated[str, AfterValidator(_check_face)]
SubjectText = Annotated[str, AfterValidator(_check_subject)]
FingerprintText = Annotated[str, AfterValidator(_check_fingerprint)]
PersonName = Annotated[str, AfterValidator(_check_person)]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]


class OperatorsListener(Section):
    """The HTTPS listener of the operator API, TLS 1.3; its certificate is the ACME listener's."""

    address: EndpointText = Endpoint("127.0.0.1", 8446)
    """Where to listen."""


class PersonSection(Section):
    """One person: how they are known, and what they may do."""

    users: tuple[str, ...] = Field(default=(), examples=[["jane"]])
    """Users of this host who are them, at the operator socket."""

    certificates: tuple[FaceText, ...] = Field(default=(), examples=[["email:jane@corp.example"]])
    """What a client certificate of theirs has: `email:`, `dns:` or `uri:` of its alternative names,
    `subject:` for the whole of it as RFC 4514 writes it, or `sha256:` for that certificate."""

    tokens: tuple[SubjectText, ...] = Field(default=(), examples=[["corp:00u1ab2c3d"]])
    """Whose tokens are theirs: the issuer's name here, and the subject."""

    roles: RolesByCommunity = Field(examples=[{"*": ["viewer"], "default": ["approver"]}])
    """Roles by community; under `*` they hold in all, and for what belongs to none."""


class TokenIssuerSection(Section):
    """An OpenID provider whose access tokens are believed."""

    issuer: HttpsUrl = Field(examples=["https://login.corp.example/realms/staff"])
    """What its tokens have as `iss`, to the letter."""

    audience: str = Field(min_length=1, max_length=500, examples=["penstock"])
    """What a token has to have in `aud`, so that none that was made for others is taken."""

    algorithms: tuple[Algorithm, ...] = Field(
        default=("RS256", "ES256"), min_length=1, examples=[["ES256"]]
    )
    """What it signs with; no other algorithm is believed."""

    types: tuple[Literal["at+jwt", "jwt", "none"], ...] = Field(default=("at+jwt",), min_length=1)
    """What a token has as `typ` (RFC 9068). Add `jwt` for a provider that marks its access tokens
    no better than its ID tokens, and `none` for the service-account tokens of a Kubernetes cluster,
    which have no type at all; its audience has to be one that nobody else takes."""

    longest: Duration = timedelta(hours=12)
    """Longest lifetime of a token; a longer one is refused."""

    keys_url: HttpsUrl | None = Field(
        default=None,
        examples=["https://login.corp.example/realms/staff/keys"],
        json_schema_extra={"instead": True},
    )
    """Where its keys are. Without it: where it says so itself, below `issuer`."""

    keys_token: Secret | None = Field(
        default=None,
        examples=["file:/var/run/secrets/kubernetes.io/serviceaccount/token"],
        json_schema_extra={"instead": True},
    )
    """What we show for its keys, where it is the API server of a cluster. It is read anew each
    time, so a file may be rotated."""

    keys: AbsolutePath | None = Field(
        default=None,
        examples=["/etc/penstock/clusters/prod.jwks"],
        json_schema_extra={"instead": True},
    )
    """File with its public keys, instead of asking for them."""

    ca_bundle: AbsolutePath | None = Field(default=None, examples=["/etc/penstock/login-ca.pem"])
    """PEM file of the only roots that it is trusted by. Without it: those of the system."""

    @field_validator("keys_token")
    @classmethod
    def _is_readable_here(cls, value: SecretRef | None) -> SecretRef | None:
        if value is not None and value.scheme == "vault":
            raise ValueError("expected a 'file:' or 'env:' reference")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> TokenIssuerSection:
        if self.keys is not None and (self.keys_url is not None or self.keys_token is not None):
            raise ValueError("expected either keys or keys_url, and keys_token beside keys_url")
        if self.keys_token is not None and self.keys_url is None:
            # Where a provider says that its keys are is its own word: our token is not for there.
            raise ValueError("keys_token is for keys_url, which is missing")
        return self

    groups_claim: str = Field(default="groups", min_length=1, max_length=200)
    """Which claim lists a person's groups."""

    groups: dict[str, RolesByCommunity] = Field(
        default_factory=dict, examples=[{"pki-viewers": {"*": ["viewer"]}}]
    )
    """Roles that groups give. A token whose groups combine operator, approver and security in one
    community is refused."""


class Operators(Section):
    """The people who operate the broker. A change here is taken in while it runs."""

    people: dict[PersonName, PersonSection] = Field(default_factory=dict)
    """People by name, which is what events call them, however they come."""

    anchors: AbsolutePath | None = Field(
        default=None, examples=["/etc/penstock/operator-anchors.pem"]
    )
    """PEM file of the roots that client certificates of people are believed by."""

    refused_certificates: tuple[FingerprintText, ...] = ()
    """SHA-256 fingerprints of client certificates that were lost or stolen."""

    issuers: dict[PersonName, TokenIssuerSection] = Field(default_factory=dict)
    """OpenID providers by name."""

    @model_validator(mode="after")
    def _each_is_of_one(self) -> Operators:
        seen: dict[tuple[str, str], str] = {}
        for name, person in self.people.items():
            for what, values in (("user", person.users), ("certificate", person.certificates),
                                 ("token", person.tokens)):  # fmt: skip
                for value in values:
                    other = seen.setdefault((what, value), name)
                    if other != name:
                        raise ValueError(f"{what} '{value}' is of both '{other}' and '{name}'")
        return self
