"""Whom the desk asks about upstreams and CA keys; ``app`` puts the adapters behind these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from broker.audit.feeding import SinkState
from broker.issuance.audit_ports import AuditStore, AuditTrail, CheckpointRecord
from broker.issuance.events import Actor
from broker.issuance.policy_keeping import PolicyKeeper
from broker.issuance.policy_ports import PolicyHistory
from broker.issuance.records import UpstreamAccountRecord

__all__ = [
    "AuditKeeper",
    "AuditParty",
    "AuthorityKeeper",
    "ConfigurationInForce",
    "KeysInUse",
    "PolicyReloads",
    "SecretsInUse",
    "UpstreamEntry",
    "UpstreamKeeper",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamEntry:
    """An upstream as configured."""

    name: str
    kind: str
    """``built-in`` or ``acme``."""
    communities: tuple[str, ...]
    where: str
    """Its directory or base URL."""


class UpstreamKeeper(Protocol):
    """Knows the configured upstreams and speaks to them outside any order."""

    def entries(self) -> Sequence[UpstreamEntry]:
        """Return all upstreams, in the order of the configuration."""
        ...

    async def register(
        self, upstream: str, community: str, *, agree_to_terms: bool
    ) -> UpstreamAccountRecord:
        """Find or make our account there, and return its record without keeping it.

        Raises:
            Refused: The CA said no, or its terms have to be agreed to.
            Unreachable: It cannot answer now.
            Broken: It answers nonsense, or is no CA with accounts.
        """
        ...

    async def check(self, upstream: str, community: str) -> Sequence[str]:
        """Return a sentence for each thing that stands between us and the CA."""
        ...

    def account_key_kind(self, upstream: str) -> str:
        """Return which kind of key our account there is to have; raises Broken."""
        ...


class AuthorityKeeper(Protocol):
    """Makes and shows the keys of built-in CAs.

    Each method raises Broken where what is asked for cannot be done.  A change and the event that
    names its actor are kept together.
    """

    async def show(self, upstream: str) -> Mapping[str, object]:
        """Return what there is: root, issuers, a request that waits."""
        ...

    async def initialise(
        self,
        upstream: str,
        *,
        subject: str | None,
        permitted_names: Sequence[str],
        permitted_networks: Sequence[str],
        actor: Actor,
    ) -> Mapping[str, object]:
        """Make a root and an issuing CA, and return them as ``show`` does."""
        ...

    async def request(self, upstream: str, *, subject: str | None, actor: Actor) -> str:
        """Make an issuing key alone and return the PEM request for the offline root."""
        ...

    async def accept(
        self, upstream: str, *, chain_pem: str, anchors_pem: str, actor: Actor
    ) -> Mapping[str, object]:
        """Take what the offline root signed, and return it as ``show`` does."""
        ...

    async def prepare(
        self, upstream: str, *, subject: str | None, is_offline: bool, actor: Actor
    ) -> Mapping[str, object]:
        """Make the next issuing CA, or the request for it under ``csr_pem``."""
        ...

    async def activate(self, upstream: str, *, actor: Actor) -> Mapping[str, object]:
        """Have the next issuing CA sign from now on."""
        ...

    async def retire(
        self, upstream: str, *, issuer: str | None, actor: Actor
    ) -> Mapping[str, object]:
        """Destroy the key of a past issuing CA on which nothing depends any more."""
        ...


class ConfigurationInForce(Protocol):
    """Knows which configuration serves, and why the file is not in force where it is not."""

    def view(self) -> Mapping[str, object]:
        """Return what an operator is told."""
        ...


class KeysInUse(Protocol):
    """Knows which keys are in use, and what is wrong with them."""

    async def findings(self) -> Sequence[dict[str, Any]]:
        """Return a row for each thing that must not be so, or that could not be looked at."""
        ...


class PolicyReloads(Protocol):
    """Knows which policies are in force, and has changed files taken."""

    @property
    def keeper(self) -> PolicyKeeper:
        """Return who knows what is in force."""
        ...

    @property
    def history(self) -> PolicyHistory:
        """Return what was in force when."""
        ...

    async def reload(self, actor: Actor) -> None:
        """Read the files now; what comes of it is known by the keeper."""
        ...


class SecretsInUse(Protocol):
    """Reads the secrets that the configuration refers to."""

    async def findings(self) -> Sequence[dict[str, Any]]:
        """Return a row for each that lies in Vault, with what is wrong with it."""
        ...


class AuditKeeper(Protocol):
    """Signs and sends the trail."""

    @property
    def checkpoint_fault(self) -> str | None:
        """Return why no checkpoint can be made now."""
        ...

    def states(self) -> Sequence[SinkState]:
        """Return how the sinks are."""
        ...

    async def take_checkpoint(self) -> CheckpointRecord | None:
        """Take a checkpoint now; None where the last one covers everything."""
        ...

    async def public_key(self) -> tuple[str, str]:
        """Return the id of the key that signs now, and its public half as PEM."""
        ...


@dataclass(frozen=True, slots=True)
class AuditParty:
    """What the desk asks about the trail."""

    keeper: AuditKeeper
    store: AuditStore
    trail: AuditTrail
