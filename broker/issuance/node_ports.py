"""What the workflows keep and ask about nodes and the certificates that are renewed for them.

Beside ``ports`` and ``records`` and under their rules: every method of a store port is one
transaction, times are aware UTC, adapters raise only what ``errors`` names.  The words that travel
to agents are the channel's (``agents.wire``); here they are values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from broker.issuance.events import Event
from broker.issuance.records import AccountRecord, Job
from broker.protocol.identifiers import Identifier

__all__ = [
    "ChallengeReports",
    "Connections",
    "DeliveryRecord",
    "DeliveryStage",
    "DeliveryStore",
    "DeliveryView",
    "EnrolmentMethod",
    "EnrolmentRequest",
    "EnrolmentStore",
    "IdentityIssuer",
    "IssuedIdentity",
    "JoinToken",
    "ManagedRecord",
    "ManagedStore",
    "NodeMessage",
    "NodeRecord",
    "NodeReports",
    "NodeStatus",
    "NodeStore",
    "Outbox",
    "QueuedMessage",
    "Receipt",
    "ReplacementStarter",
    "RequestStatus",
    "RolloutGate",
    "Statement",
    "Unmanaged",
    "Verdict",
]


# ------------------------------------------------------------------------------------- nodes


class NodeStatus(StrEnum):
    """ACTIVE nodes are served.  DRAINED ones keep their channel and are sent nothing new.  REVOKED
    ones are strangers, for good."""

    ACTIVE = "active"
    DRAINED = "drained"
    REVOKED = "revoked"


class EnrolmentMethod(StrEnum):
    """How a node showed who it is when it came."""

    TOKEN = "token"
    KUBERNETES = "kubernetes"
    CERTIFICATE = "certificate"
    APPROVAL = "approval"
    FORMER = "former"
    """By the key of an identity that has ended: it was away for longer than that lives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """A host or a pod with an agent on it.  ``name`` is unique among nodes that are not REVOKED."""

    node_id: str
    name: str
    """Lower case DNS labels; what people and rules call it."""
    community: str
    status: NodeStatus
    account_id: str
    """The downstream account that its certificates are ordered under; its key is the identity's."""
    method: EnrolmentMethod
    names: tuple[str, ...]
    """Patterns of names that it may have; empty: what policy says."""
    profiles: tuple[str, ...]
    owner: str
    contact: str
    spki_sha256: str
    """Of the identity's key."""
    fingerprint: str
    """Of its identity certificate; an earlier one is good until it ends or is revoked."""
    identity_not_after: datetime
    enrolled_at: datetime
    seen_at: datetime | None = None
    agent_version: str | None = None
    wire_version: str | None = None
    acknowledged: int = 0
    """Highest sequence number that the agent has taken in."""
    namespace: str | None = None
    """Kubernetes namespace that the credential proved when it enrolled."""
    service_account: str | None = None
    """Kubernetes service account, likewise."""
    cluster: str | None = None
    """What the configuration calls its Kubernetes cluster."""
    pod: str | None = None
    """The pod that the credential was bound to; such a node ends with its identity."""
    pod_uid: str | None = None
    upstreams: tuple[str, ...] | None = None
    """The only upstreams that issue for it; None: those that policy has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """Lets one node enrol once.  The token itself is shown when it is minted and not kept."""

    token_id: str
    token_sha256: str
    node: str | None
    """Name of the node that it is for; None: any name that ``node_pattern`` covers."""
    node_pattern: str | None
    community: str
    names: tuple[str, ...]
    profiles: tuple[str, ...]
    owner: str
    contact: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None
    used_by: str | None = None
    """Id of the node."""
    revoked_at: datetime | None = None


class RequestStatus(StrEnum):
    """Where a request for enrolment stands."""

    WAITING = "waiting"
    APPROVED = "approved"
    DENIED = "denied"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """A node that asks to be let in by a person; the same key asking again joins its request."""

    request_id: str
    spki_sha256: str
    csr_der: bytes
    node: str
    facts: Mapping[str, object]
    """What the agent says of its host, and the address that it came from; unproven."""
    created_at: datetime
    expires_at: datetime
    status: RequestStatus = RequestStatus.WAITING
    community: str | None = None
    names: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()
    owner: str = ""
    contact: str = ""
    decided_by: str | None = None
    decided_at: datetime | None = None
    node_id: str | None = None


@dataclass(frozen=True, slots=True)
class IssuedIdentity:
    """An identity certificate of a node."""

    chain_pem: bytes
    certificate_der: bytes
    fingerprint: str
    not_after: datetime


class IdentityIssuer(Protocol):
    """The broker's node CA."""

    async def issue(self, node_id: str, spki_der: bytes, reference: str) -> IssuedIdentity:
        """Certify a node's key; the same *reference* has the same certificate.

        Raises:
            Refused: The key is not fit, or the reference was used for another.
            Unreachable: The CA's key cannot be used now.
            Broken: The node CA is not set up.
        """
        ...

    async def revoke(self, certificate_der: bytes) -> None:
        """Put it on the node CA's list; one that is there already is no error."""
        ...


class NodeStore(Protocol):
    """Nodes and their identities."""

    async def add_node(
        self,
        node: NodeRecord,
        identity: IssuedIdentity,
        event: Event,
        *,
        token_id: str | None,
        account: AccountRecord | None = None,
    ) -> NodeRecord:
        """Keep a new node, making its account and spending the token in the same transaction.

        Without *account* it is there already.

        Raises:
            Conflict: The name is another node's, the key is an account's already, or the token is
                spent, expired or revoked.
        """
        ...

    async def find_node(self, reference: str) -> NodeRecord | None:
        """Return the node of that id, or of that name if it is not revoked."""
        ...

    async def find_node_by_identity(self, fingerprint: str) -> NodeRecord | None:
        """Return whose identity certificate that is; None for a revoked identity."""
        ...

    async def find_node_by_account(self, account_id: str) -> NodeRecord | None: ...

    async def change_node(
        self,
        node: NodeRecord,
        *,
        expected: Sequence[NodeStatus],
        events: Sequence[Event],
        identity: IssuedIdentity | None = None,
    ) -> None:
        """Keep *node* in place of what is there, with another identity where one is given.

        Raises:
            Conflict: Its status is not *expected*.
        """
        ...

    async def list_nodes(
        self, *, status: NodeStatus | None, after: str | None, limit: int
    ) -> Sequence[NodeRecord]:
        """Return nodes by name."""
        ...

    async def identities_of(self, node_id: str) -> Sequence[bytes]:
        """Return the DER of its identity certificates that have not been revoked."""
        ...


class EnrolmentStore(Protocol):
    """Join tokens and requests that wait for a person."""

    async def add_join_token(self, token: JoinToken, event: Event) -> None: ...
    async def find_join_token(self, token_sha256: str) -> JoinToken | None: ...
    async def list_join_tokens(self) -> Sequence[JoinToken]: ...
    async def revoke_join_token(self, token_id: str, at: datetime, event: Event) -> JoinToken: ...
    async def file_request(self, request: EnrolmentRequest, event: Event) -> EnrolmentRequest:
        """Keep the request, or return the one that this key has open already."""
        ...

    async def find_request(self, reference: str) -> EnrolmentRequest | None:
        """Return the request of that id, or the newest of that key."""
        ...

    async def change_request(
        self, request: EnrolmentRequest, *, expected: RequestStatus, event: Event
    ) -> None:
        """Keep *request* in place of what is there; raises Conflict when that is not *expected*."""
        ...


# ---------------------------------------------------------------------------- messages to nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeMessage:
    """A message for a node, to be put into its outbox in the transaction of what it tells of.

    Of messages with the same ``subject`` only the newest waits: it supersedes the others.
    """

    node_id: str
    kind: str
    subject: str
    body: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedMessage:
    """A message as it waits in the outbox."""

    node_id: str
    seq: int
    message_id: str
    kind: str
    subject: str
    body: Mapping[str, object]


class Outbox(Protocol):
    """Messages that nodes have not acknowledged."""

    async def queue_messages(self, messages: Sequence[NodeMessage]) -> None:
        """Queue them; those that tell of a change ride in that change's transaction instead."""
        ...

    async def queued_messages(
        self, node_id: str, after: int, limit: int
    ) -> Sequence[QueuedMessage]:
        """Return what waits, oldest first, past the sequence number *after*."""
        ...

    async def acknowledge(self, node_id: str, seq: int) -> None:
        """Drop what was queued up to *seq*; without fsync, for a lost one is sent again."""
        ...


class Connections(Protocol):
    """Who is connected now, in this process."""

    def wake(self, node_id: str) -> None:
        """Tell the node's connection, if there is one, that its outbox has something."""
        ...

    def is_connected(self, node_id: str) -> bool: ...

    def drop(self, node_id: str) -> None:
        """End the node's connections now, for good: it is revoked."""
        ...


# ------------------------------------------------------------- certificates that we renew for nodes


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One certificate as its node states it."""

    name: str
    identifiers: tuple[Identifier, ...]
    profile: str | None
    key_kind: str
    fingerprint: str | None = None
    """Of what is installed now."""
    not_after: datetime | None = None
    generation: int = 0
    """Of what is installed now; 0: none that came from us."""
    is_seen: bool = False
    """Whether the server was last seen to serve it."""
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ManagedRecord:
    """A certificate that the broker keeps fresh at a node.  (node_id, name) is unique."""

    managed_id: str
    node_id: str
    name: str
    """What the node's own configuration calls it."""
    community: str
    identifiers: tuple[Identifier, ...]
    profile: str | None
    key_kind: str
    is_wanted: bool
    """Whether the node still states it; one that it does not is not renewed."""
    generation: int
    """Of the newest delivery; they only go up."""
    certificate_id: str | None
    """What was last seen, or else installed, there; None: nothing of ours."""
    not_after: datetime | None
    csr_der: bytes | None
    """The newest CSR, for a policy that keeps it."""
    next_at: datetime | None
    """When it is looked at next; None: not until something happens.  Sweeps read this alone."""
    attempts: int
    """Deliveries in a row that came to nothing."""
    created_at: datetime
    fault: str | None = None
    """Why it is not as it should be, for people."""
    served_pem: bytes | None = None
    """The chain that is served there where it did not come from us: it was adopted."""
    due_since: datetime | None = None
    """Since when it should have been renewed; None: it need not be yet."""
    told_at: datetime | None = None
    """When it was told that its renewal is late; once for each time that it is due."""


class DeliveryStage(StrEnum):
    """How far one delivery has come.

    ASKED for a CSR, ORDERED, ISSUED; HELD when a comparison found something lost; PUSHED into the
    outbox once its rollout lets it; CHECKED, INSTALLED, RELOADED, SEEN as the node tells.  It ends
    as SEEN, REFUSED by the node, FAILED, RESTORED, WITHDRAWN by a person or SUPERSEDED.
    """

    ASKED = "asked"
    ORDERED = "ordered"
    ISSUED = "issued"
    HELD = "held"
    PUSHED = "pushed"
    CHECKED = "checked"
    INSTALLED = "installed"
    RELOADED = "reloaded"
    SEEN = "seen"
    REFUSED = "refused"
    FAILED = "failed"
    RESTORED = "restored"
    WITHDRAWN = "withdrawn"
    SUPERSEDED = "superseded"

    @property
    def is_end(self) -> bool:
        """Whether nothing follows."""
        return self in _ENDS


_ENDS = frozenset(
    {
        DeliveryStage.SEEN,
        DeliveryStage.REFUSED,
        DeliveryStage.FAILED,
        DeliveryStage.RESTORED,
        DeliveryStage.WITHDRAWN,
        DeliveryStage.SUPERSEDED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """One certificate on its way to one node, from the wish to the server that serves it."""

    delivery_id: str
    managed_id: str
    node_id: str
    community: str
    rollout_group: str | None
    """Its rollout group, as of when it was judged."""
    generation: int
    stage: DeliveryStage
    reason: str
    """Why it was begun: new, due, window, asked, incident, changed…"""
    incident_id: str | None
    replaces: str | None
    """Id of the certificate that it takes the place of."""
    order_id: str | None
    certificate_id: str | None
    note: str | None
    """Why it waits, was held or failed, for people."""
    begun_at: datetime
    issued_at: datetime | None = None
    pushed_at: datetime | None = None
    checked_at: datetime | None = None
    installed_at: datetime | None = None
    reloaded_at: datetime | None = None
    ended_at: datetime | None = None
    """When it was seen, or ended otherwise."""
    released_at: datetime | None = None
    """When a person let it go on although something was lost."""
    told_at: datetime | None = None
    """When it was told that it has not been seen for too long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryView:
    """A delivery with what its node and certificate are called."""

    delivery: DeliveryRecord
    managed: ManagedRecord
    node: NodeRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What a node tells of a delivery."""

    delivery_id: str
    generation: int
    stage: DeliveryStage
    fingerprint: str
    at: datetime
    """By the node's clock."""
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmanaged:
    """A certificate of an ordinary client that should have been renewed and was not."""

    certificate_id: str
    account_id: str
    community: str
    identifiers: tuple[Identifier, ...]
    not_after: datetime
    should_by: datetime
    """When renewal was due at the latest."""


class ManagedStore(Protocol):
    """Certificates that are kept fresh at nodes."""

    async def find_managed(self, managed_id: str) -> ManagedRecord | None: ...
    async def managed_of(self, node_id: str) -> Sequence[ManagedRecord]: ...
    async def keep_managed(
        self,
        records: Sequence[ManagedRecord],
        events: Sequence[Event],
        *,
        before: Sequence[ManagedRecord] = (),
    ) -> None:
        """Keep them, new or changed, by ``managed_id``.

        Raises:
            Conflict: One of *before* is not as it was read any more; nothing is kept then.
        """
        ...

    async def due_managed(self, now: datetime, limit: int) -> Sequence[ManagedRecord]:
        """Return what is due, longest due first; costs what is due, not what exists."""
        ...

    async def managed_by_certificate(self, certificate_id: str) -> ManagedRecord | None: ...


class DeliveryStore(Protocol):
    """Deliveries."""

    async def begin_delivery(
        self,
        delivery: DeliveryRecord,
        managed: ManagedRecord,
        *,
        events: Sequence[Event],
        jobs: Sequence[Job] = (),
        messages: Sequence[NodeMessage] = (),
    ) -> None:
        """Keep a new delivery; an older one of the same certificate that has not ended becomes
        SUPERSEDED in the same transaction.  Raises Conflict when *managed*'s generation is not one
        past what is kept."""
        ...

    async def change_delivery(
        self,
        delivery: DeliveryRecord,
        *,
        expected: Sequence[DeliveryStage],
        events: Sequence[Event],
        managed: ManagedRecord | None = None,
        jobs: Sequence[Job] = (),
        messages: Sequence[NodeMessage] = (),
    ) -> None:
        """Keep *delivery* in place of what is there; raises Conflict when it is not *expected*."""
        ...

    async def find_delivery(self, delivery_id: str) -> DeliveryView | None: ...
    async def find_delivery_by_order(self, order_id: str) -> DeliveryView | None: ...
    async def deliveries_in(
        self, stages: Sequence[DeliveryStage], *, group: str | None, limit: int
    ) -> Sequence[DeliveryView]:
        """Return the deliveries in these stages, oldest first; None: of every group."""
        ...

    async def deliveries_of(self, managed_id: str, limit: int) -> Sequence[DeliveryRecord]:
        """Return the newest deliveries of one certificate, newest first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a delivery may be pushed now."""

    may_go: bool
    group: str | None = None
    why: str | None = None
    """Why it may not, for people."""
    retry_at: datetime | None = None
    """When it may be at the earliest, where that is known; else it is asked again whenever
    something in its group has ended."""


class RolloutGate(Protocol):
    """Says when an issued certificate may go to its node: groups, canaries, pairs, windows."""

    async def judge(self, view: DeliveryView, now: datetime) -> Verdict: ...

    async def judge_all(self, views: Sequence[DeliveryView], now: datetime) -> Sequence[Verdict]:
        """Judge these in their order, each knowing who of those before it was let go."""
        ...

    async def ended(self, view: DeliveryView, *, is_asked: bool = True) -> Sequence[str]:
        """Note how a delivery ended, halting its wave where too many came back, and return the
        ids of those that should be judged again now; nobody's unless *is_asked*."""
        ...

    async def freed(self) -> Sequence[str]:
        """Return the ids of those that should be judged again now."""
        ...


class NodeReports(Protocol):
    """What agents tell of certificates: the channel calls these, the workflow implements them.

    Each is idempotent, for a message may come twice.  Each raises Problem when the node has no
    right to it or it makes no sense; the agent is told so and does not send it again.  Unreachable
    means that it shall.
    """

    async def stated(self, node: NodeRecord, statements: Sequence[Statement]) -> None: ...
    async def adopted(self, node: NodeRecord, name: str, chain_pem: bytes) -> None: ...
    async def offered(self, node: NodeRecord, delivery_id: str, csr_der: bytes) -> None: ...
    async def receipted(self, node: NodeRecord, receipts: Sequence[Receipt]) -> None:
        """Take receipts of one delivery, in the order in which they were told."""
        ...

    async def unable(
        self, node: NodeRecord, delivery_id: str, reason: str, *, is_final: bool
    ) -> None: ...


class ReplacementStarter(Protocol):
    """Begins the replacement of a certificate at a node, whenever it would be due."""

    async def begin(self, managed_id: str, *, reason: str, incident_id: str | None) -> str:
        """Begin a delivery with a new key and return its id; where one of this incident is on its
        way already, that one's.

        Raises:
            Problem: It cannot be replaced: the node is revoked, or no longer wants it.
            Unreachable: Not now.
        """
        ...


class ChallengeReports(Protocol):
    """What agents tell of challenges that they were to answer."""

    def answered(self, node_id: str, challenge: str) -> None: ...
    def failed(self, node_id: str, challenge: str, reason: str) -> None: ...
