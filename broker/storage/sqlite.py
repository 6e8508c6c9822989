"""The store over SQLite: every store port, on one database file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event
from broker.storage.accounts import Accounts, EabKeys
from broker.storage.adoptions import Adoptions
from broker.storage.approvals import Approvals
from broker.storage.audit import Audits
from broker.storage.authority import Authority, AuthorityRegister
from broker.storage.buckets import Buckets
from broker.storage.bundles import Bundles
from broker.storage.certificates import Certificates
from broker.storage.database import BeforeMigrating, StoreStats, open_database
from broker.storage.deliveries import Deliveries
from broker.storage.former_accounts import FormerAccounts
from broker.storage.freezes import FreezesKept
from broker.storage.incidents import Incidents
from broker.storage.journal import Jobs, Journal
from broker.storage.key_uses import KeyUses
from broker.storage.managed import Managed
from broker.storage.node_names import NodeNames
from broker.storage.nodes import Enrolments, Nodes
from broker.storage.order_history import OrderHistories
from broker.storage.order_moves import OrdersMoved
from broker.storage.orders import Orders
from broker.storage.outbox import Outboxes
from broker.storage.owned import Owned
from broker.storage.ownership import Ownership
from broker.storage.pods import Pods
from broker.storage.policy_sets import PolicySets
from broker.storage.pushes import Pushes
from broker.storage.renewal_looks import Looks
from broker.storage.renewals import Chains, Renewals, Retirements
from broker.storage.replays import Replays
from broker.storage.restorations import Restorations
from broker.storage.rollouts import Rollouts
from broker.storage.sealing import SealedSecrets
from broker.storage.standing import Breakers, Holds
from broker.storage.transaction import Transaction
from broker.storage.upstream_keys import UpstreamKeyChanges
from broker.storage.upstreams import Upstreams
from broker.storage.work import Work

if TYPE_CHECKING:
    from broker.issuance.ports import Store

__all__ = ["SqliteStore"]


class SqliteStore(
    Accounts,
    EabKeys,
    Orders,
    Owned,
    Ownership,
    Work,
    Certificates,
    Jobs,
    Upstreams,
    UpstreamKeyChanges,
    FormerAccounts,
    FreezesKept,
    KeyUses,
    Journal,
    Authority,
    Restorations,
    AuthorityRegister,
    Renewals,
    Retirements,
    Chains,
    SealedSecrets,
    Adoptions,
    Approvals,
    Nodes,
    Enrolments,
    Outboxes,
    Rollouts,
    Pushes,
    PolicySets,
    OrderHistories,
    Replays,
    Incidents,
    NodeNames,
    Pods,
    Bundles,
    Managed,
    Deliveries,
    Looks,
    Buckets,
    Holds,
    Breakers,
    OrdersMoved,
    Audits,
):
    """All store ports over one SQLite file.

    Every method that changes something returns when the change is committed, and has changed
    nothing when it raises.  After Unreachable one doubt is left, which no database can take
    away: a process that dies before its next commit may find the change made after all.
    """

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        exclusive: bool = True,
        before_migrating: BeforeMigrating | None = None,
    ) -> SqliteStore:
        """Open the store at *path*, making it and bringing it up to date.

        Without *exclusive* it is for reading only, changes nothing, and may be opened beside a
        running broker.  *before_migrating* is called, lock held, before a store that holds
        something is brought up to date; what it raises leaves the store as it was.

        Raises:
            StoreLocked: Another process works on it.
            Unreachable: The disk is full, read-only or failing: try later.
            Broken: It is damaged, of a newer version, or no store at all.
        """
        made = await open_database(path, exclusive=exclusive, before_migrating=before_migrating)
        return cls(made)

    async def close(self) -> None:
        """Finish what waits and let go of the file; a second call changes nothing."""
        await self._database.close()

    async def check_writable(self) -> str | None:
        """Return why nothing can be written now, or None.

        It costs nothing while writing works.  After a failure it tries a write that changes
        nothing, so that a broker to which no clients are sent finds out that the disk is back.
        """
        if self._database.fault is None:
            return None
        try:
            await self._database.write(_touch)
        except (Unreachable, Broken) as error:
            return error.reason
        return None

    def take_along(self, find_riders: Callable[[], Sequence[Event]]) -> None:
        """Have every commit write what *find_riders* gives out, on the writer's thread."""
        self._database.take_along(find_riders)

    def stats(self) -> StoreStats:
        """Return what the store has done since it was opened."""
        return self._database.stats()

    @property
    def on_committed(self) -> Callable[[Sequence[Event]], None] | None:
        """Called on the loop after each commit with the events it wrote, oldest first."""
        return self._database.on_committed

    @on_committed.setter
    def on_committed(self, hook: Callable[[Sequence[Event]], None] | None) -> None:
        self._database.on_committed = hook


def _touch(transaction: Transaction) -> None:
    """Write one page and change nothing: SQLite leaves a page clean that it finds unchanged."""
    transaction.change("INSERT INTO schema_version (version, name) VALUES (-1, 'touched')")
    transaction.change("DELETE FROM schema_version WHERE version = -1")


if TYPE_CHECKING:

    def _as_port(store: SqliteStore) -> Store:
        return store
