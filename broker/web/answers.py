"""What commands answer, as types: what the description of the operator API is written from.

Times are RFC 3339 in UTC, lengths are written as in policies (``47d``), and names and fingerprints
are the only thing that is told of keys.  A test holds the answers of a real broker against these.
"""

# No deferred annotations: whether a member may be left out would not be seen through them.
from typing import Any, NotRequired, TypedDict

__all__ = [
    "Account",
    "Approval",
    "ApprovalDetail",
    "ApprovalGiven",
    "Certificate",
    "CertificateDetail",
    "EabKey",
    "EabKeyMade",
    "EventRow",
    "Freeze",
    "JoinToken",
    "JoinTokenMade",
    "Node",
    "Order",
    "OrderAuthorization",
    "OrderDetail",
    "Owned",
    "OwnedCertificate",
    "OwnedThings",
    "Owner",
    "Status",
]

Json = Any
"""What JSON can hold."""

Time = str | None


class Status(TypedDict):
    """How the broker is."""

    version: str
    configuration: dict[str, Json] | None
    policies: dict[str, str]
    restored: Json
    counts: dict[str, Json]
    suspensions: list[dict[str, Json]]


class Order(TypedDict):
    """An order as lists have it."""

    order: str
    account: str
    community: str
    status: str
    names: list[str]
    profile: str | None
    upstream: str | None
    upstream_profile: str | None
    cap: str | None
    retires_after: NotRequired[str]
    not_before: Time
    not_after: Time
    created: Time
    expires: Time
    finalized: Time
    csr_sha256: str | None
    certificate: str | None
    error: dict[str, Json] | None


class EventRow(TypedDict):
    """One thing that happened."""

    number: int
    at: Time
    kind: str
    actor: str
    reason: str | None
    data: dict[str, Json]


class OrderChallenge(TypedDict):
    """A challenge of an order, without its token."""

    type: str
    status: str
    validated: Time
    error: dict[str, Json] | None


class OrderAuthorization(TypedDict):
    """An authorization of an order."""

    authorization: str
    name: str
    status: str
    proof: str | None
    expires: Time
    challenges: list[OrderChallenge]


class OrderDetail(Order):
    """An order with its authorizations, its upstream half and its events."""

    lever: str | None
    decision: dict[str, Json]
    authorizations: list[OrderAuthorization]
    upstream_order: dict[str, Json] | None
    waiting: dict[str, Json] | None
    events: list[EventRow]


class Certificate(TypedDict):
    """A certificate as lists have it."""

    certificate: str
    order: str
    account: str
    community: str
    upstream: str
    names: list[str]
    serial: str
    fingerprint: str
    not_before: Time
    not_after: Time
    retires: Time
    received: Time
    released: bool
    upstream_account: str | None
    revoked: Time
    revocation_reason: int | None


class CertificateDetail(Certificate):
    """A certificate with its chain."""

    chain_pem: str


class Account(TypedDict):
    """An account of an ACME client."""

    account: str
    community: str
    status: str
    contacts: list[str]
    thumbprint: str
    eab_key: str | None
    owner: str
    contact: str
    owner_by: str
    created: Time


class EabKey(TypedDict):
    """A key that binds new accounts to a requester, without its secret."""

    key_id: str
    community: str
    label: str
    names: list[str]
    profiles: list[str]
    reusable: bool
    created: Time
    expires: Time
    revoked: Time
    account: str | None
    sealed_by: str | None
    owner: str
    contact: str
    owner_by: str


class EabKeyMade(EabKey):
    """The same with its secret, which is in this answer and in no other."""

    mac_key: str


class Freeze(TypedDict):
    """What is frozen; an upstream is of no community."""

    what: str
    name: str
    id: str
    community: str | None
    since: Time
    until: Time
    by: str
    reason: str
    told: str | None
    ask: str | None


class Owner(TypedDict):
    """Somebody, with how much they answer for; an empty name is nobody."""

    owner: str
    contacts: str
    accounts: int
    eab_keys: int
    nodes: int


class Owned(TypedDict):
    """An account, key or node, with who answers for it; ``by`` is the key or node of an account
    that names nobody itself, or the community of what nobody is named for."""

    what: str
    name: str
    id: str
    community: str
    status: str
    owner: str
    contact: str
    by: str


class OwnedCertificate(TypedDict):
    """A valid certificate of such an account."""

    certificate: str
    account: str
    community: str
    names: list[str]
    not_after: Time


class OwnedThings(TypedDict):
    """All that one owner answers for."""

    owner: str
    things: list[Owned]
    certificates: list[OwnedCertificate]


class Node(TypedDict):
    """A node with an agent."""

    node: str
    node_id: str
    community: str
    status: str
    connected: bool
    seen: Time
    owner: str
    contact: str
    owner_by: str
    names: list[str]
    profiles: list[str]
    upstreams: list[str] | None
    method: str
    cluster: str | None
    namespace: str | None
    service_account: str | None
    pod: str | None
    account: str
    enrolled: Time
    identity_ends: Time
    fingerprint: str | None
    agent_version: str | None
    wire_version: int | None
    acknowledged: int


JoinToken = TypedDict(
    "JoinToken",
    {
        "token_id": str,
        "for": str | None,
        "community": str,
        "names": list[str],
        "profiles": list[str],
        "owner": str,
        "contact": str,
        "created": Time,
        "expires": Time,
        "used": Time,
        "used_by": str | None,
        "revoked": Time,
    },
)
"""What lets a node in, without its text."""

JoinToken.__doc__ = "What lets a node in, without its text."


class JoinTokenMade(JoinToken):
    """The same with its text, which is in this answer and in no other."""

    token: str


class Approval(TypedDict):
    """A request that people answer, as lists have it."""

    approval: str
    kind: str
    community: str
    status: str
    names: list[str]
    profile: str | None
    account: str | None
    who: str | None
    people: int
    asked: Time
    ends: Time


class ApprovalAnswer(TypedDict):
    """What a person said."""

    at: Time
    person: str
    said: str
    round: int
    reason: str | None
    evidence: list[str]


class ApprovalDetail(Approval):
    """A request with everything that is known of it."""

    said_yes: int
    evidence_missing: list[str]
    asked_by: dict[str, Json]
    last_asked: Time
    times_asked: int
    terms: dict[str, Json]
    decided: Time
    proofed: Time
    reproof: Time
    reason: str | None
    eab_key: str | None
    earlier: str | None
    orders: list[dict[str, Json]]
    answers: list[ApprovalAnswer]


class ApprovalGiven(ApprovalDetail, total=False):
    """The same after a yes; with the binding key of an account that was opened by it."""

    key_id: str
    mac_key: str
    """In this answer and in no other."""
