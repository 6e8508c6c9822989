"""The form of a file of cases: given this request, expect that decision, because.

``cases`` judges them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from broker.policy.decisions import Lever
from broker.policy.units import Duration
from broker.policy.upstream_facts import UpstreamOverrides
from broker.policy.words import Attestation, KeyUsage, Usage
from broker.policy.yamlfile import FileModel

__all__ = [
    "Expected",
    "Given",
    "GivenCertificate",
    "GivenClientCertificate",
    "GivenCsr",
    "GivenEab",
    "GivenRequester",
    "GivenUpstream",
    "PolicyCase",
    "PolicyCases",
    "Stage",
]

_Text = Annotated[str, Field(min_length=1, max_length=1000)]


class Stage(StrEnum):
    """When policy is asked about an order."""

    NEW_ORDER = "new-order"
    FINALIZE = "finalize"
    ISSUED = "issued"


class GivenEab(FileModel):
    """The external account binding of the account that asks."""

    key_id: _Text
    names: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


class GivenUpstream(FileModel):
    """An upstream that is ready."""

    name: _Text
    description: _Text = Field(description="Name of a description in the facts file.")
    overrides: UpstreamOverrides = UpstreamOverrides()
    suspended: tuple[str | None, ...] = Field(
        default=(), description="Its profiles that are suspended; null: its default."
    )


class GivenClientCertificate(FileModel):
    """The certificate that the client showed in TLS."""

    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = "0" * 64
    names: tuple[str, ...] = Field(default=(), description="Its DNS names and URIs.")


class GivenRequester(FileModel):
    """Who asks, beside the binding; what is left out was not proved or not seen."""

    account: str | None = Field(default=None, description="Thumbprint of the account's key.")
    node: str | None = Field(default=None, description="Name of the node whose account it is.")
    cluster: str | None = Field(default=None, description="Kubernetes cluster of the node.")
    namespace: str | None = Field(default=None, description="Kubernetes namespace of the node.")
    service_account: str | None = Field(
        default=None, description="Kubernetes service account of the node."
    )
    attestation: Attestation | None = Field(default=None, description="How the node was let in.")
    address: str | None = Field(default=None, description="Where the request came from.")
    client_certificate: GivenClientCertificate | None = None
    owner: str | None = Field(default=None, description="Who answers for it.")


class GivenCsr(FileModel):
    """The CSR of the finalize; what is left out is as it should be."""

    key: _Text = Field(default="ec-p256", description="Kind of its key, such as 'rsa-2048'.")
    names: tuple[str, ...] | None = Field(default=None, description="None: those of the order.")
    subject: tuple[str, ...] = Field(
        default=(), description="Subject attributes beside CN, such as 'O=Example'."
    )
    usages: tuple[Usage, ...] = ()
    key_usages: tuple[KeyUsage, ...] = ()
    extensions: tuple[str, ...] = Field(default=(), description="Further extensions, as OIDs.")
    must_staple: bool = False
    asks_for_ca: bool = False
    is_account_key: bool = False
    weaknesses: tuple[str, ...] = Field(default=(), description="What is wrong with its key.")


class GivenCertificate(FileModel):
    """The certificate that came back; what is left out is as it should be."""

    lifetime: Duration | None = Field(
        default=None, description="From its receipt to its end; none: the cap, or what was asked."
    )
    names: tuple[str, ...] | None = Field(default=None, description="None: those of the order.")
    usages: tuple[Usage, ...] | None = Field(default=None, description="None: the profile's.")
    key: Literal["same", "another"] = "same"
    extensions: tuple[str, ...] = Field(default=(), description="Unusual extensions, as OIDs.")
    is_ca: bool = False
    anchored: bool = Field(default=True, description="Whether its chain leads to our anchors.")
    seen_before: bool = False


class Given(FileModel):
    """A request, and the world at that moment."""

    names: tuple[str, ...] = Field(
        description="DNS names, IP addresses and e-mail addresses that are ordered."
    )
    profile: str | None = None
    not_after: Duration | None = Field(
        default=None, description="The end that the client asks for, counted from now."
    )
    at: datetime = datetime(2026, 11, 22, 12, tzinfo=UTC)
    eab: GivenEab | None = None
    requester: GivenRequester = GivenRequester()
    renewal: bool = Field(
        default=False, description="Whether it renews a certificate of exactly these names."
    )
    upstreams: tuple[GivenUpstream, ...]
    public_suffixes: tuple[str, ...] = ()
    csr: GivenCsr | None = Field(
        default=None, description="Carries the order on to finalize, with this CSR."
    )
    certificate: GivenCertificate | None = Field(
        default=None, description="Carries it on to the certificate, with this one come back."
    )


class Expected(FileModel):
    """What is expected of the decision; what is left out is not looked at."""

    decision: Literal["allow", "refuse"]
    stage: Stage | None = Field(
        default=None, description="Where it is refused; looked at with 'refuse' alone."
    )
    checks: tuple[str, ...] = Field(default=(), description="The checks that find something.")
    refused: tuple[str, ...] | None = Field(default=None, description="The names refused.")
    upstream: str | None = None
    upstream_profile: str | None = None
    lever: Lever | None = None
    cap: Duration | None = None
    challenges: dict[str, tuple[str, ...]] = Field(
        default={}, description="The challenges that each name needs; an empty list: none."
    )
    rules: tuple[str, ...] | None = Field(
        default=None, description="Names of all rules that apply, those that warn as well."
    )
    warnings: tuple[str, ...] | None = Field(
        default=None, description="Names of the rules that would refuse it and only warn."
    )
    approval: Literal[0, 1, 2] | None = Field(
        default=None, description="How many people have to say yes before the order is made."
    )
    approvers: tuple[str, ...] | None = Field(
        default=None, description="The only people who may say yes to it."
    )
    quotas: tuple[str, ...] | None = Field(
        default=None, description="Quotas that count it, such as 'requester 50/7d'."
    )


class PolicyCase(FileModel):
    """One case."""

    name: _Text
    given: Given
    expect: Expected
    because: _Text


class PolicyCases(FileModel):
    """A file of cases about one policy."""

    api_version: Literal["penstock.dev/v1"] = Field(alias="apiVersion")
    kind: Literal["PolicyCases"]
    policy: _Text = Field(description="The policy's file, as seen from the folder of policies.")
    cases: tuple[PolicyCase, ...] = Field(min_length=1)
