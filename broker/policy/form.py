"""The form of a policy file: which keys there are, and what may stand in them.

``document`` turns a file of this form into the document that decides; ``policies/schema.json``
is made from it.  What a key means for an order is told there and in ``checks``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from broker.policy.rule_form import ApprovalForm, RuleForm
from broker.policy.units import Duration
from broker.policy.words import (
    CommunityName,
    KeyKind,
    KeyUsage,
    Pattern,
    ProfileName,
    Text,
    Usage,
)
from broker.policy.yamlfile import FileModel, KeyPath, values_at
from broker.protocol.challenges import ChallengeType

__all__ = [
    "CaaMode",
    "KeyKind",
    "KeyUsage",
    "Loss",
    "NodeKey",
    "Pattern",
    "PolicyForm",
    "Usage",
    "check_references",
]


class CaaMode(StrEnum):
    """What CAA records (RFC 8659) mean to a community."""

    IGNORE = "ignore"
    REPORT = "report"
    REFUSE = "refuse"


_RULED_OIDS: Final = {
    "2.5.29.15": "key_usages",
    "2.5.29.17": "the order's identifiers",
    "2.5.29.19": "nothing: a CA certificate is never issued",
    "2.5.29.30": "nothing: name constraints belong to CAs",
    "2.5.29.36": "nothing: policy constraints belong to CAs",
    "2.5.29.37": "usages",
    "1.3.6.1.5.5.7.1.24": "must_staple",
}
"""Extensions that a list of extensions cannot allow, and what decides about them instead."""


def _check_oid(value: str) -> str:
    if value in _RULED_OIDS:
        raise ValueError(f"extension {value} is decided by {_RULED_OIDS[value]}")
    return value


Oid = Annotated[
    str, Field(pattern=r"^[0-2](\.(0|[1-9][0-9]{0,18})){1,30}$"), AfterValidator(_check_oid)
]
SubjectAttribute = Annotated[str, Field(pattern=r"^([A-Z]{1,10}|[0-2](\.[0-9]{1,19}){1,30})$")]


class NamesForm(FileModel):
    """Which names and addresses the community may have."""

    allow: tuple[Pattern, ...] = Field(
        default=(), description="Patterns of names and addresses that may be ordered."
    )
    deny: tuple[Pattern, ...] = Field(
        default=(), description="Patterns refused in spite of 'allow'."
    )
    wildcards: bool = Field(default=False, description="Whether wildcard names may be ordered.")


class KeysForm(FileModel):
    """Which certificate keys are accepted."""

    allow: tuple[KeyKind, ...] = Field(default=(), description="Kinds of certificate key accepted.")


class RetireForm(FileModel):
    """Accepting certificates that are longer than the cap, to replace and revoke them."""

    grace: Duration = Field(
        default=timedelta(days=1),
        description="How long a certificate stays good once its successor is in use.",
    )
    unreplaced: Literal["keep", "revoke"] = Field(
        default="keep",
        description="What becomes of one that nothing has replaced by its retirement date.",
    )


class ChoiceForm(FileModel):
    """One upstream to take, with one of its profiles."""

    upstream: Text = Field(description="Name of an upstream in the configuration.")
    profile: Text | None = Field(
        default=None, description="The upstream's profile; none: its default."
    )
    retire: RetireForm | None = Field(
        default=None,
        description="Accept what is longer than the cap: it is replaced and revoked by then, "
        "which is a retirement date and holds no cap. None: refuse.",
    )


class NodeKey(StrEnum):
    """Which key a certificate that a node renews is for."""

    NEW = "new"
    KEPT = "kept"
    CSR = "csr"


class Loss(StrEnum):
    """What a renewed certificate can have less of than the one it replaces."""

    NAMES = "names"
    USAGES = "usages"
    KEY = "key"
    ANCHORS = "anchors"


class OnNodesForm(FileModel):
    """How certificates of a profile are renewed at nodes with an agent."""

    key: NodeKey = Field(
        default=NodeKey.NEW,
        description="At each renewal: a new key, the key that was kept, or the CSR that was kept, "
        "which the node is not even asked for.",
    )
    keep_previous_key: Duration = Field(
        default=timedelta(days=30),
        description="How long a node keeps the key before, at the least.",
    )
    challenges: tuple[ChallengeType, ...] = Field(
        default=(),
        description="Challenges that the node answers itself where its names need proof.",
    )
    hold: tuple[Loss, ...] = Field(
        default=tuple(Loss),
        description="What a renewed certificate must not have less of; else it is held until a "
        "person lets it go.",
    )


class ProfileForm(FileModel):
    """A named class of issuance, offered to clients in the directory."""

    description: Text = Field(description="Shown to clients in the directory.")
    cap: Duration | None = Field(
        default=None, description="Longest validity, counted from receipt."
    )
    usages: tuple[Usage, ...] = Field(default=(), description="Extended key usages it may have.")
    key_usages: tuple[KeyUsage, ...] = Field(
        default=tuple(KeyUsage), description="Key usages it may have."
    )
    upstreams: tuple[ChoiceForm, ...] = Field(
        default=(), description="Upstreams, the preferred first."
    )
    names: tuple[Pattern, ...] | None = Field(
        default=None, description="Narrows the community's names; an empty list refuses every name."
    )
    csr_extensions: tuple[Oid, ...] = Field(
        default=(), description="Further extensions that a CSR may ask for, as dotted OIDs."
    )
    certificate_extensions: tuple[Oid, ...] = Field(
        default=(), description="Further extensions that an upstream may add, as dotted OIDs."
    )
    must_staple: bool = Field(
        default=False, description="Whether a CSR may ask for OCSP must-staple."
    )
    same_csr_within: Duration | None = Field(
        default=None,
        description="How long the same CSR of the same account is answered with the certificate "
        "that it brought, a tenth of its lifetime at the most; none: each brings another.",
    )
    renew_at: Annotated[float, Field(ge=0.1, le=0.9)] | None = Field(
        default=None,
        description="Share of a certificate's lifetime after which clients are told to renew it; "
        "none: as the CA says, or two thirds.",
    )
    subject: tuple[SubjectAttribute, ...] = Field(
        default=(), description="Subject attributes beside CN that a CSR may carry, such as O or C."
    )
    on_nodes: OnNodesForm = Field(
        default=OnNodesForm(), description="How they are renewed at nodes with an agent."
    )


class CapForm(FileModel):
    """A validity cap for some names."""

    names: tuple[Pattern, ...]
    cap: Duration
    because: Text | None = None


class TrustedForm(FileModel):
    """Who may have which names without a challenge: a trusted requester."""

    eab: tuple[Text, ...] = Field(default=(), description="Ids of external account binding keys.")
    nodes: tuple[Pattern, ...] = Field(
        default=(), description="Patterns of the names of nodes with agents."
    )
    names: tuple[Pattern, ...]
    wildcards: bool = False
    profiles: tuple[str, ...]
    because: Text = Field(description="Why no proof of control is asked for.")


class CtForm(FileModel):
    """What may be written into public Certificate Transparency logs."""

    allow_private_names: bool = Field(
        default=False, description="Whether private names may go to an upstream that logs publicly."
    )
    private_names: tuple[Pattern, ...] = Field(
        default=(), description="Names kept private, besides those like .internal and .local."
    )


class AccountsForm(FileModel):
    """Who may have an account."""

    approval: ApprovalForm | None = Field(
        default=None,
        description="People who let an account in that brings no external account binding; none: "
        "the configuration of the community alone decides.",
    )


class PolicyForm(FileModel):
    """A policy file: what one community may be issued."""

    api_version: Literal["penstock.dev/v1"] = Field(alias="apiVersion")
    kind: Literal["Policy"]
    community: CommunityName
    description: Text | None = None
    names: NamesForm = NamesForm()
    challenges: tuple[ChallengeType, ...] = Field(
        default=(), description="Challenges that are offered."
    )
    keys: KeysForm = KeysForm()
    cap: Duration = Field(description="Longest validity of any certificate of this community.")
    caps: tuple[CapForm, ...] = Field(default=(), description="Tighter caps for some names.")
    profiles: dict[ProfileName, ProfileForm] = Field(default={}, description="Classes of issuance.")
    default_profile: str | None = Field(default=None, description="Taken when a client names none.")
    trusted: tuple[TrustedForm, ...] = Field(default=(), description="Trusted requesters.")
    caa: CaaMode = Field(
        default=CaaMode.REPORT,
        description="Whether CAA records that keep the upstream out are passed over, reported, or "
        "refuse the order; what cannot be looked up refuses too.",
    )
    ct: CtForm = CtForm()
    accounts: AccountsForm = AccountsForm()
    rules: tuple[RuleForm, ...] = Field(
        default=(), description="Rules that narrow further what is allowed here."
    )


def check_references(values: object) -> Iterator[tuple[KeyPath, str, str | None]]:
    """Find profiles that are spoken of and not there (a cross-check for ``load_model``)."""
    known = [str(path[-1]) for path, _ in values_at(values, "profiles", "*")]
    for pattern in (
        ("default_profile",),
        ("trusted", "*", "profiles", "*"),
        ("rules", "*", "profiles", "*"),
    ):
        for path, name in values_at(values, *pattern):
            if isinstance(name, str) and name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f"did you mean '{near[0]}'?" if near else None
                yield path, f"there is no profile '{name}'", hint
