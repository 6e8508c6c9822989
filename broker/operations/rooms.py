"""What the desk works with."""

from __future__ import annotations

from dataclasses import dataclass

from broker.issuance.account_health import AccountHealth
from broker.issuance.account_recovery import AccountRecoveries
from broker.issuance.accounts import Accounts
from broker.issuance.adoption import Adoption
from broker.issuance.caa_guard import CaaGuard
from broker.issuance.deliveries import Deliveries
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.enrollment import Enrollment
from broker.issuance.freezes import Freezes
from broker.issuance.incidents import Incidents
from broker.issuance.key_moves import KeyMoves
from broker.issuance.key_rotation import KeyRotation
from broker.issuance.managed_ports import DeliveryRooms
from broker.issuance.nodes import Nodes
from broker.issuance.ownership import Ownership
from broker.issuance.planning import Planner
from broker.issuance.ports import Clock, Policies, Store
from broker.issuance.reconciliation import Reconciliation
from broker.issuance.records import AccountRecord
from broker.issuance.registration import RegistrationAuthority
from broker.issuance.renewal_budget import RenewalBudget
from broker.issuance.renewing import Renewing
from broker.issuance.revocations import Revocations
from broker.issuance.rollouts import Rollouts
from broker.issuance.standstill import Standstill
from broker.issuance.upstream_keys import UpstreamKeys
from broker.issuance.workload_review import WorkloadReviews
from broker.operations.parties import (
    AuditParty,
    AuthorityKeeper,
    ConfigurationInForce,
    KeysInUse,
    PolicyReloads,
    SecretsInUse,
    UpstreamKeeper,
)
from broker.operations.views import View
from broker.web.operator import OperationError

__all__ = ["Desk", "Recovery", "Rooms"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """What the desk works with after a restore, and for orders that wait."""

    standstill: Standstill
    reconciliation: Reconciliation
    dispatcher: Dispatcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """What the desk works with."""

    store: Store
    accounts: Accounts
    enrollment: Enrollment
    revocations: Revocations
    planner: Planner
    policies: Policies
    upstreams: UpstreamKeeper
    authorities: AuthorityKeeper
    clock: Clock
    communities: tuple[str, ...]
    version: str
    renewing: Renewing | None = None
    """What knows about windows; None where a desk is tried without."""
    upstream_keys: UpstreamKeys | None = None
    """Changes our account keys; None where a desk is tried without."""
    key_rotation: KeyRotation | None = None
    """Rotates our account keys; None where a desk is tried without."""
    adoption: Adoption | None = None
    """Takes over accounts of other clients; None where a desk is tried without."""
    key_moves: KeyMoves | None = None
    """Takes keys from files into Vault and back; None where a desk is tried without."""
    keys_in_use: KeysInUse | None = None
    """Knows what is wrong with keys; None where a desk is tried without."""
    secrets_in_use: SecretsInUse | None = None
    """Knows what is wrong with secrets in Vault; None where a desk is tried without."""
    caa: CaaGuard | None = None
    """Says which CAA records to publish; None where a desk is tried without."""
    account_health: AccountHealth | None = None
    """Knows which of our accounts are lost; None where a desk is tried without."""
    account_recoveries: AccountRecoveries | None = None
    """Recovers them; None where a desk is tried without."""
    nodes: Nodes | None = None
    """Lets nodes in and revokes them; None where the configuration has none."""
    deliveries: Deliveries | None = None
    """Renews certificates at nodes; None where the configuration has none."""
    delivery_rooms: DeliveryRooms | None = None
    """What is kept of renewals; None where a desk is tried without."""
    rollouts: Rollouts | None = None
    """Says which nodes may be reloaded; None where the configuration has none."""
    incidents: Incidents | None = None
    """Replaces many certificates; None where a desk is tried without."""
    approvals: RegistrationAuthority | None = None
    """Takes what people say to requests; None where a desk is tried without."""
    freezes: Freezes | None = None
    """Knows what is frozen; None where a desk is tried without."""
    ownership: Ownership | None = None
    """Knows who answers for what; None where a desk is tried without."""
    budget: RenewalBudget | None = None
    """Knows what CAs let us order; None where a desk is tried without."""
    policy_reloads: PolicyReloads | None = None
    """Knows which policies are in force; None where a desk is tried without."""
    configuration: ConfigurationInForce | None = None
    """Knows which configuration is in force; None where none can change, as without a broker."""
    workloads: WorkloadReviews | None = None
    """Knows what pods would get; None where the configuration has no nodes."""
    audit: AuditParty | None = None
    """Knows the audit trail; None where a desk is tried without."""
    recovery: Recovery | None = None
    """What a restored store needs; None where a desk is tried without."""


class Desk:
    """What every part of the desk has."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self._store = rooms.store

    async def _account(self, account_id: str) -> AccountRecord:
        account = await self._store.find_account(account_id)
        if account is None:
            raise OperationError(f"there is no account '{account_id}'", "see penstock account list")
        return account

    def _answered_for(self, row: View) -> View:
        """Return *row* of an account, key or node with whom to call, and by what they are.

        A contact of its own stands, also where no owner is named.
        """
        ownership = self._rooms.ownership
        if row["owner"] or row["contact"] or ownership is None:
            return row
        owner, contact = ownership.of_community(str(row["community"]))
        return {**row, "owner": owner, "contact": contact, "owner_by": "community" if owner else ""}

    def _check_community(self, community: str) -> None:
        if community not in self._rooms.communities:
            raise OperationError(
                f"no community is called '{community}'",
                f"there is {', '.join(self._rooms.communities)}",
            )
