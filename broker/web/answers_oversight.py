"""What commands about the audit trail and the policies answer, as types (see ``web.answers``)."""

# No deferred annotations: whether a member may be left out would not be seen through them.
from typing import TypedDict

from broker.web.answers import Account, Certificate, Json, Order, OrderAuthorization, Time

__all__ = [
    "AuditCheckpoint",
    "AuditCheckpointMade",
    "AuditPage",
    "AuditRecord",
    "AuditStatus",
    "CertificateEvidence",
    "PolicyChange",
    "PolicyReloaded",
    "PolicyStatus",
]


class AuditSink(TypedDict):
    """Where records go off the host, and how far that has come."""

    sink: str
    is_up: bool
    record: int
    waiting: int
    checkpoint: int
    confirmed: Time
    fault: str | None
    since: Time


class AuditCheckpoint(TypedDict):
    """The chain's state at one moment, signed."""

    number: int
    record: int
    at: Time
    key: str
    vault_request: str | None


class AuditCheckpointMade(AuditCheckpoint):
    """The newest one with its signature."""

    made_now: bool
    jws: str


class AuditStatus(TypedDict):
    """How far the chain, its checkpoints and its sinks have come."""

    last_record: int
    digest: str | None
    checkpoint: AuditCheckpoint | None
    not_covered: int
    checkpoint_fault: str | None
    sinks: list[AuditSink]


class AuditRecord(TypedDict):
    """One record with its place in the chain."""

    record: int
    at: str
    kind: str
    actor: str
    reason: str | None
    community: str | None
    account: str | None
    order: str | None
    upstream: str | None
    data: dict[str, Json]
    digest: str | None


class AuditPage(TypedDict):
    """Lines of an export, and where the next page begins."""

    lines: list[str]
    after: int
    checkpoint: int
    is_all: bool


class EvidenceRequester(TypedDict):
    """Who asked for a certificate: the account as it is, and what was decided by."""

    account: Account | None
    as_decided: dict[str, Json] | None


class EvidenceUpstream(TypedDict):
    """The CA that issued a certificate, and our order there."""

    name: str
    order: dict[str, Json] | None


class EvidenceCheckpoint(AuditCheckpoint):
    """The checkpoint that covers the records, with its signature."""

    jws: str


class EvidenceChain(TypedDict):
    """Where the records stand in the chain."""

    records: list[int]
    covered_by: EvidenceCheckpoint | None


class CertificateEvidence(TypedDict):
    """What is known about a certificate, as one document."""

    certificate: Certificate
    requester: EvidenceRequester
    request: Order | None
    decision: dict[str, Json] | None
    decided_at_order: Json
    decided_at_finalize: Json
    proofs: list[OrderAuthorization]
    approvals: list[AuditRecord]
    upstream: EvidenceUpstream
    signatures: list[dict[str, Json]]
    deliveries: list[AuditRecord]
    revocation: list[AuditRecord]
    looked_at: list[AuditRecord]
    records: list[AuditRecord]
    chain: EvidenceChain


class PolicyInForce(TypedDict):
    """The set of policies that is in force."""

    sha256: str
    since: Time
    version: int | None
    signers: list[str] | None
    files: int
    cases: int
    is_kept_set: bool


class PolicyFile(TypedDict):
    """The policy of a community."""

    file: str
    sha256: str


class PolicyRefused(TypedDict):
    """What lies there and is not in force, and why."""

    sha256: str | None
    since: Time
    is_tried_again: bool
    faults: list[str]


class PolicyStatus(TypedDict):
    """Which policies are in force."""

    in_force: PolicyInForce
    policies: dict[str, PolicyFile]
    refused: PolicyRefused | None


class PolicyReloaded(PolicyStatus):
    """The same, after they were read."""

    changed: bool


class PolicyChange(TypedDict):
    """A set that came into force, or was refused."""

    outcome: str
    sha256: str | None
    at: Time
    by: str
    reason: str | None
    version: int | None
    signers: list[str]
    faults: list[str]
