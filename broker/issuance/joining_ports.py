"""What the workflow that lets nodes in asks and keeps: beside ``node_ports``, under its rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from broker.issuance.node_ports import EnrolmentMethod, EnrolmentRequest, NodeStatus

__all__ = ["Asking", "Grant", "IdentityRecord", "NodeWatch", "Voucher"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """A node that asks to be let in, as it came over the channel."""

    method: EnrolmentMethod
    node: str
    """What it calls itself: lower case DNS labels, nothing more is proven."""
    csr_der: bytes
    """Signed by the identity's key; its names say nothing."""
    credential: str | None = field(default=None, repr=False)
    agent_version: str | None = None
    wire_version: str | None = None
    request_id: str | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    peer: str | None = None
    """Address that the request came from."""
    former: str | None = None
    """Fingerprint of the identity whose key has signed the request."""
    client_chain: tuple[bytes, ...] = ()
    """DER of the TLS client certificate that was verified against the configured anchors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What a credential lets a node be."""

    community: str
    names: tuple[str, ...] = ()
    """Patterns of names that it may have; empty: what policy says."""
    profiles: tuple[str, ...] = ()
    owner: str = ""
    contact: str = ""
    token_id: str | None = None
    """The join token that is spent by it."""
    node: str | None = None
    """The name that the credential gives the node; None: the one that it calls itself."""
    namespace: str | None = None
    """Kubernetes namespace that the credential proves."""
    service_account: str | None = None
    """Kubernetes service account that it proves."""
    cluster: str | None = None
    """What the configuration calls the cluster whose credential it is."""
    pod: str | None = None
    """The pod that the credential is bound to."""
    pod_uid: str | None = None
    upstreams: tuple[str, ...] | None = None
    """The only upstreams that issue for it; None: those that policy has."""
    is_for_node: bool = False
    """Whether whoever gave it meant this very node, not any one whose name fits a pattern."""
    takes_over: bool = False
    """Whether a node of this name that came by the same method is revoked for it: a pod that
    starts anew comes with another key."""


class Voucher(Protocol):
    """Says what a credential lets a node be: one for each method."""

    async def vouch(self, asking: Asking) -> Grant:
        """Return what the node may be.

        Raises:
            Problem: unauthorized, with the same words whatever is wrong with the credential.
            Unreachable: Who has to be asked cannot answer now.
            Broken: The method is configured in a way that cannot work.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityRecord:
    """An identity certificate that a node was given, whatever became of it."""

    fingerprint: str
    node_id: str
    certificate_der: bytes
    not_after: datetime
    issued_at: datetime
    revoked_at: datetime | None = None


class NodeWatch(Protocol):
    """What is seen of nodes, and looked up beside their records."""

    async def find_identity(self, fingerprint: str) -> IdentityRecord | None: ...

    async def note_seen(
        self, node_id: str, at: datetime, *, agent_version: str | None, wire_version: str | None
    ) -> None:
        """Keep when a node was seen last and what it speaks, without fsync."""
        ...

    async def count_nodes(self) -> Mapping[NodeStatus, int]:
        """Return how many nodes there are in each status; what does not occur counts 0."""
        ...

    async def count_messages(self) -> int:
        """Return how many messages wait for nodes."""
        ...

    async def forget_ended(self, before: datetime, limit: int) -> int:
        """Forget what ended before that: identities but the newest of each node, tokens and
        requests; return how many identities were forgotten."""
        ...

    async def list_requests(self) -> Sequence[EnrolmentRequest]:
        """Return the newest requests for enrolment, newest first, decided ones too."""
        ...
