"""Secrets of the store that lie in the clear or under another key, and their sealing.

An earlier version kept MAC keys as they are.  Once they are sealed nothing of them may be left in
the file, and SQLite leaves what it no longer needs where it was: in the free part of a page, and
in the log until that is written over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from broker.issuance.errors import Broken
from broker.issuance.events import Event
from broker.issuance.key_ports import Resealed
from broker.issuance.records import EabKeyRecord
from broker.storage.part import Part
from broker.storage.rows import EAB_KEYS
from broker.storage.transaction import Snapshot, Transaction

__all__ = ["SealedSecrets"]

_UNSEALED: Final = (
    EAB_KEYS.select + " WHERE sealed_by IS NULL AND length(mac_key) > 0 ORDER BY community, key_id"
)
_UNDER_ANOTHER: Final = (
    EAB_KEYS.select + " WHERE sealed_by IS NOT NULL AND sealed_by <> ?"
    " ORDER BY community, key_id LIMIT ?"
)
_CREATE: Final = re.compile(r'CREATE TABLE ("eab_keys"|eab_keys)(?=\s*\()')
_ANEW: Final = "eab_keys_anew"
"""What the table is called while it is written anew, within one transaction."""


class SealedSecrets(Part):
    """The port SealingStore."""

    async def unsealed_eab_keys(self) -> Sequence[EabKeyRecord]:
        """Return every binding key whose MAC key lies in the clear."""

        def work(snapshot: Snapshot) -> Sequence[EabKeyRecord]:
            return EAB_KEYS.read_all(snapshot.all(_UNSEALED))

        return await self._database.scan(work)

    async def eab_keys_not_under(self, sealing_key: str, limit: int) -> Sequence[EabKeyRecord]:
        """Return binding keys that are sealed under another key."""

        def work(snapshot: Snapshot) -> Sequence[EabKeyRecord]:
            return EAB_KEYS.read_all(snapshot.all(_UNDER_ANOTHER, sealing_key, limit))

        return await self._database.scan(work)

    async def reseal_eab_keys(self, resealed: Sequence[Resealed], event: Event) -> None:
        """Keep sealed MAC keys in place of what was there; see the port."""

        def work(transaction: Transaction) -> None:
            transaction.change_each(
                "UPDATE eab_keys SET mac_key = ?, sealed_by = ?"
                " WHERE community = ? AND key_id = ? AND mac_key = ?",
                [
                    (
                        one.sealed.octets,
                        one.sealed.by,
                        one.before.community,
                        one.before.key_id,
                        one.before.mac_key,
                    )
                    for one in resealed
                ],
            )
            if any(one.before.sealed_by is None for one in resealed):
                _write_anew(transaction)
            transaction.record((event,))

        await self._database.write(work)

    async def fold_log(self) -> None:
        """Move the log into the database file and cut it to nothing; see the port."""
        await self._database.fold_log()


def _write_anew(transaction: Transaction) -> None:
    """Move the table to new pages, and overwrite its old ones with zeros.

    An UPDATE, even with secure_delete, clears the row's own place alone.  What a page held before
    its rows were last moved about lies in its free part until the whole page goes.
    """
    found = transaction.first("SELECT sql FROM sqlite_schema WHERE name = 'eab_keys'")
    create, replaced = _CREATE.subn(f"CREATE TABLE {_ANEW}", found[0] if found else "", count=1)
    if replaced != 1:
        raise Broken("store has no table eab_keys that can be written anew")
    columns = ", ".join(EAB_KEYS.columns)
    move = " ".join(("INSERT INTO", _ANEW, f"({columns})", "SELECT", columns, "FROM eab_keys"))
    was_secure = transaction.first("PRAGMA secure_delete")
    transaction.first("PRAGMA secure_delete = ON")
    transaction.change(create)
    transaction.change(move)
    transaction.change("DROP TABLE eab_keys")
    transaction.change(f"ALTER TABLE {_ANEW} RENAME TO eab_keys")
    # Some build SQLite with it; where it was off, it costs what other tables need not pay.
    transaction.first(f"PRAGMA secure_delete = {was_secure[0] if was_secure else 0}")
