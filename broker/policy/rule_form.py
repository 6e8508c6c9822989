"""The form of a rule, and of the files of rules that communities share.

A rule says about whom and what it speaks, and what it demands of that.  What no condition leaves
out it speaks of; every demand narrows, and none can be written that widens.  ``rules`` makes of it
what decides.
"""

from __future__ import annotations

import re
from datetime import date, timedelta
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from broker.policy.addresses import AddressPattern, parse_address_pattern
from broker.policy.decisions import OnWithdrawal, QuotaPer
from broker.policy.expressions import Expression
from broker.policy.names import NamePattern
from broker.policy.node_names import parse_node_pattern
from broker.policy.units import Duration, Rate, format_rate, parse_rate
from broker.policy.words import (
    Attestation,
    CommunityName,
    KeyKind,
    Pattern,
    ProfileName,
    Text,
    Usage,
)
from broker.policy.yamlfile import FileModel
from broker.protocol.challenges import ChallengeType

__all__ = [
    "CONDITIONS",
    "DEMANDS",
    "ApprovalForm",
    "QuotaForm",
    "RequesterForm",
    "RuleForm",
    "SharedRulesForm",
    "WhoForm",
]

MAX_EXPRESSION_CHARS: Final = 2_000
"""Longest expression that is read: what a reviewer still reads in one piece."""

_FINGERPRINT: Final = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_URI: Final = re.compile(r"[a-z][a-z0-9+.-]*://[!-~]{1,500}", re.ASCII)
_SERVICE_ACCOUNT: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/[a-z0-9][a-z0-9.-]{0,252}$"

CONDITIONS: Final = ("who", "not_who", "names", "profiles", "from", "until", "when")
"""Keys of a rule that say what it speaks of."""

DEMANDS: Final = (
    "refuse", "only", "cap", "keys", "usages", "challenges", "upstreams", "renew_at", "approval",
    "quotas", "owner", "attestation",
)  # fmt: skip
"""Keys of a rule that narrow."""


def _read_network(value: object) -> AddressPattern:
    found = parse_address_pattern(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected an address or a network such as '10.20.0.0/16', in quotes")
    return found


def _read_node(value: object) -> NamePattern:
    if not isinstance(value, str):
        raise ValueError("expected the name of a node or a pattern such as '*.web.corp.example'")
    return parse_node_pattern(value)


def _check_certificate(value: str) -> str:
    """Refuse what is neither a fingerprint nor a URI; names are patterns of their own."""
    if _FINGERPRINT.fullmatch(value) is None and _URI.fullmatch(value) is None:
        raise ValueError(
            f"'{value[:80]}' is neither a fingerprint such as 'sha256:9f86…' nor a URI such as "
            "'spiffe://corp.example/web'"
        )
    return value


def _read_quota_rate(value: object) -> Rate:
    if isinstance(value, Rate):
        return value
    found = parse_rate(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected a number of orders in a time, such as '50/7d'")
    return found


def _check_expression(value: str) -> str:
    Expression.parse(value)
    return value


ExpressionText = Annotated[
    str,
    Field(min_length=1, max_length=MAX_EXPRESSION_CHARS),
    AfterValidator(_check_expression),
]
Network = Annotated[
    AddressPattern,
    PlainValidator(_read_network),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["10.20.0.0/16", "2001:db8::/32"]}),
]
NodePattern = Annotated[
    NamePattern,
    PlainValidator(_read_node),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["web-01", "*.web.corp.example", "**"]}),
]
QuotaRate = Annotated[
    Rate,
    PlainValidator(_read_quota_rate),
    PlainSerializer(format_rate, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["50/7d"]}),
]
ClusterName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
ServiceAccount = Annotated[str, Field(pattern=_SERVICE_ACCOUNT)]
Thumbprint = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{43}$")]
CertificateMark = Annotated[str, AfterValidator(_check_certificate)]
ApproverName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}(/[!-~]{1,255})?$", examples=["anna"])
]
EvidenceKind = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
RuleName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{0,62}$")]


class RequesterForm(FileModel):
    """Requesters: of each key that is there one entry has to fit, so more keys mean fewer."""

    accounts: tuple[Thumbprint, ...] | None = Field(
        default=None, min_length=1, description="Thumbprints of account keys (RFC 7638)."
    )
    eab: tuple[Text, ...] | None = Field(
        default=None, min_length=1, description="Ids of external account binding keys."
    )
    nodes: tuple[NodePattern, ...] | None = Field(
        default=None, min_length=1, description="Patterns of names of nodes with agents."
    )
    clusters: tuple[ClusterName, ...] | None = Field(
        default=None,
        min_length=1,
        description="Kubernetes clusters of nodes, as the configuration calls them.",
    )
    namespaces: tuple[Namespace, ...] | None = Field(
        default=None, min_length=1, description="Kubernetes namespaces of nodes."
    )
    service_accounts: tuple[ServiceAccount, ...] | None = Field(
        default=None,
        min_length=1,
        description="Kubernetes service accounts of nodes, as 'namespace/name'.",
    )
    networks: tuple[Network, ...] | None = Field(
        default=None, min_length=1, description="Networks that the request came from."
    )
    client_certificates: tuple[CertificateMark, ...] | None = Field(
        default=None,
        min_length=1,
        description="Client certificates at the ACME listener: 'sha256:' and the fingerprint, or "
        "a URI among their names.",
    )
    client_names: tuple[Pattern, ...] | None = Field(
        default=None,
        min_length=1,
        description="Patterns of DNS names in client certificates at the ACME listener.",
    )


class WhoForm(RequesterForm):
    """Requesters, or a choice of several such descriptions."""

    any: tuple[RequesterForm, ...] | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        description="Descriptions of which one is enough, beside what stands next to them.",
    )

    @model_validator(mode="after")
    def _name_somebody(self) -> WhoForm:
        if not self.model_fields_set:
            raise ValueError("names nobody, expected at least one kind of requester")
        return self


class ApprovalForm(FileModel):
    """People who have to say yes before an order is made."""

    people: Literal[1, 2] = Field(
        default=1, description="How many people, none of whom is the requester."
    )
    answer_within: Duration = Field(
        default=timedelta(days=14), description="When a request that nobody answers ends."
    )
    holds: Duration = Field(
        default=timedelta(days=90), description="How long an approval is good for further orders."
    )
    reproof: Duration | None = Field(
        default=None, description="When its evidence has to be shown anew."
    )
    on_withdrawal: OnWithdrawal = Field(
        default=OnWithdrawal.KEEP, description="What becomes of certificates when it is withdrawn."
    )
    evidence: tuple[EvidenceKind, ...] = Field(
        default=(),
        description="Kinds of evidence that an approver has to refer to, such as 'ticket'.",
    )
    by: tuple[ApproverName, ...] | None = Field(
        default=None,
        min_length=1,
        description="The only people who may approve, by the names that events call them, such as"
        " 'anna', or 'ISSUER/SUBJECT' for who is known by a token's groups alone.",
    )

    @model_validator(mode="after")
    def _have_enough(self) -> ApprovalForm:
        if self.by is not None and len(set(self.by)) < self.people:
            raise ValueError(
                f"takes {self.people} people and names {len(set(self.by))} who may approve,"
                f" expected {self.people} or more in 'by'"
            )
        return self


class QuotaForm(FileModel):
    """How many orders may be made in a time."""

    per: QuotaPer = Field(description="What is counted.")
    limit: QuotaRate = Field(description="How many in which time, such as '50/7d'.")
    kept_for_renewals: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Share that only renewals of unchanged names may use."
    )
    upstreams: tuple[Text, ...] | None = Field(
        default=None,
        min_length=1,
        description="Upstreams of which orders count; none: all. Once it is spent, the next "
        "upstream of the profile is taken.",
    )


class RuleForm(FileModel):
    """One rule: what it speaks of, and what it demands of that."""

    name: RuleName = Field(description="What people call it; unique.")
    because: Text = Field(description="Why it is there; a reviewer reads this first.")
    mode: Literal["enforce", "warn"] = Field(
        default="enforce", description="'warn' tells what the rule would do and lets it pass."
    )
    renewals: Literal["enforce", "warn", "exempt"] | None = Field(
        default=None,
        description="The same for renewals of unchanged names; none: as 'mode' says.",
    )
    who: WhoForm | None = Field(default=None, description="Only requesters like these.")
    not_who: WhoForm | None = Field(default=None, description="Only requesters unlike these.")
    names: tuple[Pattern, ...] | None = Field(
        default=None, min_length=1, description="Only names and addresses like these."
    )
    profiles: tuple[ProfileName, ...] | None = Field(
        default=None, min_length=1, description="Only orders under these profiles."
    )
    starts: date | None = Field(default=None, alias="from", description="First day, in UTC.")
    until: date | None = Field(default=None, description="Last day, in UTC.")
    when: ExpressionText | None = Field(
        default=None, description="An expression in CEL that has to be true."
    )
    refuse: Text | None = Field(default=None, description="Refuses, with this sentence.")
    only: WhoForm | None = Field(default=None, description="Refuses every requester unlike these.")
    cap: Duration | None = Field(default=None, description="Longest validity.")
    keys: tuple[KeyKind, ...] | None = Field(
        default=None, min_length=1, description="Kinds of certificate key that remain."
    )
    usages: tuple[Usage, ...] | None = Field(
        default=None, min_length=1, description="Extended key usages that remain."
    )
    challenges: tuple[ChallengeType, ...] | None = Field(
        default=None, min_length=1, description="Challenges that remain."
    )
    upstreams: tuple[Text, ...] | None = Field(
        default=None, min_length=1, description="Upstreams that remain."
    )
    renew_at: Annotated[float, Field(ge=0.1, le=0.9)] | None = Field(
        default=None, description="Share of the lifetime after which to renew, at the latest."
    )
    approval: ApprovalForm | None = Field(default=None, description="People have to say yes.")
    quotas: tuple[QuotaForm, ...] | None = Field(
        default=None, min_length=1, max_length=20, description="How many orders may be made."
    )
    owner: Literal["required"] | None = Field(
        default=None, description="Somebody has to answer for the account, EAB key or node."
    )
    attestation: tuple[Attestation, ...] | None = Field(
        default=None,
        min_length=1,
        description="The node whose account it is was let in by one of these ways.",
    )

    @model_validator(mode="after")
    def _demand_something(self) -> RuleForm:
        if not any(getattr(self, key) is not None for key in DEMANDS):
            raise ValueError(f"rule '{self.name}' demands nothing, expected {', '.join(DEMANDS)}")
        if self.starts is not None and self.until is not None and self.until < self.starts:
            raise ValueError(
                f"rule '{self.name}' ends on {self.until}, before it starts on {self.starts}"
            )
        if self.mode == "warn" and self.renewals == "enforce":
            raise ValueError(
                f"rule '{self.name}' only warns and would be enforced for renewals, expected "
                "renewals no stricter than the rule"
            )
        return self


class SharedRulesForm(FileModel):
    """A file of rules that several communities share."""

    api_version: Literal["penstock.dev/v1"] = Field(alias="apiVersion")
    kind: Literal["SharedRules"]
    description: Text | None = None
    communities: Literal["all"] | Annotated[tuple[CommunityName, ...], Field(min_length=1)] = Field(
        description="Communities that the rules hold for, or 'all'."
    )
    rules: tuple[RuleForm, ...] = Field(min_length=1)
