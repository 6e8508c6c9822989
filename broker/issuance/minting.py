"""The binding key that an approval of an account mints."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Final

from broker.issuance.approval_ports import MINTED_PREFIX, ApprovalRecord
from broker.issuance.enrollment import Enrollment
from broker.issuance.errors import Conflict
from broker.issuance.events import Actor
from broker.issuance.records import EabKeyRecord

__all__ = ["Minting", "end_minted"]

ID_CHARS: Final = 16
"""Characters of the approval's id that the key's id has: 64 random bits."""


class Minting:
    """Mints one key once the approval is about to be kept; of several attempts there is one key."""

    def __init__(
        self,
        enrollment: Enrollment,
        *,
        names: tuple[str, ...],
        profiles: tuple[str, ...],
        owner: str = "",
        contact: str = "",
    ) -> None:
        self._enrollment = enrollment
        self._owner = owner
        self._contact = contact
        self._names = names
        self._profiles = profiles
        self.key: EabKeyRecord | None = None
        """With the MAC key, which is shown once."""

    async def __call__(self, record: ApprovalRecord) -> ApprovalRecord:
        """Return *record* with its key."""
        if self.key is None:
            self.key = await self._enrollment.mint(
                record.community,
                label=f"approval {record.approval_id}",
                names=self._names,
                profiles=self._profiles,
                expires_at=record.holds_until,
                is_reusable=False,
                owner=self._owner,
                contact=self._contact,
                actor=_actor(record),
                key_id=f"{MINTED_PREFIX}{record.approval_id[:ID_CHARS]}-{record.revision}",
            )
        return replace(record, eab_key_id=self.key.key_id)


async def end_minted(enrollment: Enrollment, record: ApprovalRecord) -> None:
    """Revoke the key of an approval that was withdrawn; its accounts order nothing more."""
    if record.eab_key_id is None:
        return
    with contextlib.suppress(Conflict):  # somebody revoked it before
        await enrollment.revoke(record.community, record.eab_key_id, _actor(record))


def _actor(record: ApprovalRecord) -> Actor:
    return Actor(f"approval:{record.approval_id}", record.reason)
