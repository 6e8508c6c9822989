"""Which policies were in force when, and the files that they were made of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from broker.issuance.errors import Broken
from broker.issuance.events import Event
from broker.issuance.policy_ports import (
    KeptPolicySet,
    PolicyChange,
    PolicyOutcome,
    PolicyTexts,
)
from broker.policy.manifest import is_bundle_file
from broker.storage.part import Part
from broker.storage.rows import RowCodec
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["PolicySets"]

KEPT_SETS: Final = 50
"""Sets whose files are kept: a change a week for a year.  That older ones were in force is told."""

CHANGES: Final = RowCodec("policy_changes", PolicyChange)

_ACTIVATED: Final = " ".join((CHANGES.select, f"WHERE outcome = '{PolicyOutcome.ACTIVATED}'"))
_LATEST: Final = f"{CHANGES.select} ORDER BY number DESC LIMIT ?"
_IN_FORCE: Final = f"{_ACTIVATED} ORDER BY number DESC LIMIT 1"
_BY_DIGEST: Final = f"{_ACTIVATED} AND substr(sha256, 1, ?) = ? ORDER BY number DESC LIMIT 1"
_NEWEST: Final = f"{_ACTIVATED} AND version IS NOT NULL ORDER BY version DESC, number DESC LIMIT 1"
_FILES: Final = (
    "SELECT name, digest, content FROM policy_set_files JOIN policy_contents USING (digest)"
    " WHERE set_id = ? ORDER BY name"
)
_KEPT_SETS: Final = (
    "SELECT set_id FROM policy_changes WHERE outcome = 'activated' GROUP BY set_id"
    " ORDER BY max(number) DESC LIMIT -1 OFFSET ?"
)
_FORGET: Final = "DELETE FROM policy_set_files WHERE set_id = ?"
_SWEEP: Final = (
    "DELETE FROM policy_contents WHERE NOT EXISTS"
    " (SELECT 1 FROM policy_set_files f WHERE f.digest = policy_contents.digest)"
)
_KEEP_CONTENT: Final = "INSERT OR IGNORE INTO policy_contents (digest, content) VALUES (?, ?)"
_KEEP_FILE: Final = "INSERT OR IGNORE INTO policy_set_files (set_id, name, digest) VALUES (?, ?, ?)"


class PolicySets(Part):
    """The port PolicyHistory."""

    async def keep_policy_change(
        self, change: PolicyChange, texts: PolicyTexts | None, event: Event
    ) -> None:
        """Keep what became of a set, and the files of one that was activated."""
        rows = [] if texts is None else _rows(texts)

        def work(transaction: Transaction) -> None:
            transaction.change(CHANGES.insert, *CHANGES.values(change))
            transaction.change_each(_KEEP_CONTENT, [(digest, octets) for _, digest, octets in rows])
            files = [(change.set_id, name, digest) for name, digest, _ in rows]
            transaction.change_each(_KEEP_FILE, files)
            old = transaction.all(_KEPT_SETS, KEPT_SETS)
            if old:
                transaction.change_each(_FORGET, old)
                transaction.change(_SWEEP)
            transaction.record([event])

        await self._database.write(work)

    async def policy_changes(self, *, limit: int) -> Sequence[PolicyChange]:
        """Return what became of sets, the latest first."""
        return await self._database.scan(
            lambda snapshot: CHANGES.read_all(snapshot.all(_LATEST, limit))
        )

    async def policy_set_in_force(self) -> KeptPolicySet | None:
        """Return the set that was activated last, None where there was none."""
        return await self._database.scan(lambda snapshot: _kept(snapshot, _IN_FORCE))

    async def find_policy_set(self, prefix: str) -> KeptPolicySet | None:
        """Return the latest activated set whose SHA-256 begins with *prefix*."""
        return await self._database.scan(
            lambda snapshot: _kept(snapshot, _BY_DIGEST, len(prefix), prefix)
        )

    async def newest_policy_version(self) -> PolicyChange | None:
        """Return the activation of the highest version of a bundle there ever was."""

        def work(snapshot: Snapshot) -> PolicyChange | None:
            row = snapshot.first(_NEWEST)
            return None if row is None else CHANGES.read(row)

        return await self._database.read(work)


def _rows(texts: PolicyTexts) -> list[tuple[str, str, bytes]]:
    """Return name, digest and content of each file."""
    sealed = ((n, hashlib.sha256(octets).hexdigest(), octets) for n, octets in texts.bundle.items())
    return [*((n, texts.digests[n], octets) for n, octets in texts.files.items()), *sealed]


def _kept(snapshot: Snapshot, statement: str, *parameters: object) -> KeptPolicySet | None:
    row = snapshot.first(statement, *parameters)
    if row is None:
        return None
    change = CHANGES.read(row)
    found = snapshot.all(_FILES, change.set_id)
    if not found:
        return None
    texts = PolicyTexts(
        files={name: octets for name, _, octets in found if not is_bundle_file(name)},
        bundle={name: octets for name, _, octets in found if is_bundle_file(name)},
    )
    if texts.set_id != change.set_id:
        raise Broken(f"store keeps other files of policy set {change.sha256} than were in force")
    return KeptPolicySet(change=change, texts=texts)
