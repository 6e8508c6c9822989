"""Whether this broker may change anything: not before a restored store has been reconciled.

Upstream orders may have been finalized after the backup was made.  A broker that took orders
before it knew of them would order again what was issued, or revoke what is in use.
"""

from __future__ import annotations

from broker.issuance.records import RestorationRecord
from broker.policy.decisions import RETRY_WHEN_UNSERVED, UNSERVED_STATUS
from broker.protocol.problems import Problem, ProblemType

__all__ = ["Standstill"]


class Standstill:
    """Holds while a restored store is not reconciled, and is lifted once."""

    def __init__(self, restoration: RestorationRecord | None) -> None:
        """Hold if *restoration* is there."""
        self._restoration = restoration

    @property
    def restoration(self) -> RestorationRecord | None:
        """Return what has to be reconciled, None when nothing has."""
        return self._restoration

    def lift(self) -> None:
        """Let everything go on."""
        self._restoration = None

    def reason(self) -> str | None:
        """Return why nothing may be changed, or None."""
        if self._restoration is None:
            return None
        since = self._restoration.backup_at
        return f"restored from the backup of {since:%Y-%m-%dT%H:%M:%SZ}, not reconciled"

    def problem(self) -> Problem:
        """Return what a client is told that asks for a change.

        The answer of a broker that no upstream can be ordered from: clients show our sentence at
        once, and come again at their next turn.
        """
        return Problem(
            ProblemType.SERVER_INTERNAL,
            "this server was restored from a backup and changes nothing until its operator has "
            "compared it with its CAs; what is there already can be read, try again later",
            status=UNSERVED_STATUS,
            retry_after=RETRY_WHEN_UNSERVED,
        )
