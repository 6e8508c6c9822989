"""Which keys were ever ours: those of accounts, of their changes, and of built-in CAs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from broker.storage.part import Part

__all__ = ["KeyUses"]

_EVER: Final = (
    "SELECT key_id FROM upstream_accounts"
    " UNION SELECT old_key_id FROM upstream_key_changes"
    " UNION SELECT new_key_id FROM upstream_key_changes WHERE status <> 'undone'"
    " UNION SELECT key_id FROM ca_members WHERE key_id IS NOT NULL"
    " UNION SELECT key_id FROM former_upstream_accounts"
    " UNION SELECT new_key_id FROM account_recoveries"
    " ORDER BY 1"
)


class KeyUses(Part):
    """The port KeyUses."""

    async def used_key_ids(self) -> Sequence[str]:
        """Return every id that an account or a built-in CA ever had, or is about to have.

        A key that a change made and undid was nobody's: the next change may take it.
        """
        return await self._database.scan(
            lambda snapshot: [str(row[0]) for row in snapshot.all(_EVER)]
        )
