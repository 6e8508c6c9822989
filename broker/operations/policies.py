"""The part of the desk about policies: which are in force, and having changed ones taken."""

from __future__ import annotations

import base64
from typing import Any, Final

from broker.issuance.events import Actor
from broker.issuance.policy_ports import PolicyChange
from broker.operations.parties import PolicyReloads
from broker.operations.rooms import Desk
from broker.operations.views import View, time_view
from broker.web.operator import OperationError

__all__ = ["PolicyDesk"]

SHORTEST_PREFIX: Final = 8
"""Fewest characters of a digest that name a set: fewer are a guess."""


class PolicyDesk(Desk):
    """Commands about the policies that are in force."""

    async def policy_status(self) -> Any:
        """Return what is in force since when, and why what lies there is not."""
        keeper = self._reloads.keeper
        loaded, refusal, seal = keeper.loaded, keeper.refusal, keeper.loaded.seal
        return {
            "in_force": {
                "sha256": loaded.texts.sha256,
                "since": time_view(keeper.since),
                "version": None if seal is None else seal.version,
                "signers": None if seal is None else list(seal.signers),
                "files": len(loaded.texts.files),
                "cases": loaded.cases,
                "is_kept_set": keeper.is_last_good,
            },
            "policies": {
                name: {"file": made.source, "sha256": made.sha256}
                for name, made in loaded.documents.items()
            },
            "refused": None
            if refusal is None
            else {
                "sha256": refusal.sha256,
                "since": time_view(refusal.since),
                "is_tried_again": not refusal.is_final,
                "faults": list(refusal.faults),
            },
        }

    async def policy_reload(self, *, actor: Actor) -> Any:
        """Read the files now, and tell what came of it."""
        before = self._reloads.keeper.loaded.texts.set_id
        await self._reloads.reload(actor)
        is_changed = self._reloads.keeper.loaded.texts.set_id != before
        return {"changed": is_changed, **await self.policy_status()}

    async def policy_history(self, *, limit: int = 20) -> Any:
        """Return which sets were in force or refused, the latest first."""
        changes = await self._reloads.history.policy_changes(limit=max(1, min(limit, 1000)))
        return [_change_view(change) for change in changes]

    async def policy_set(self, *, sha256: str) -> Any:
        """Return the files of a set that was in force, by the beginning of its SHA-256."""
        if len(sha256) < SHORTEST_PREFIX:
            raise OperationError(f"a digest is named by {SHORTEST_PREFIX} characters or more")
        found = await self._reloads.history.find_policy_set(sha256.lower())
        if found is None:
            raise OperationError(
                f"no set of policies begins with {sha256[:64]}, or its files are kept no more",
                "see penstock policy history; what earlier versions recorded with an order"
                " is the digest of one community's file",
            )
        bundle = {n: base64.b64encode(octets).decode() for n, octets in found.texts.bundle.items()}
        return {
            **_change_view(found.change),
            "texts": {n: octets.decode() for n, octets in found.texts.files.items()},
            "bundle": bundle,
        }

    @property
    def _reloads(self) -> PolicyReloads:
        found = self._rooms.policy_reloads
        if found is None:
            raise OperationError("policies are not watched here")
        return found


def _change_view(change: PolicyChange) -> View:
    return {
        "outcome": change.outcome.value,
        "sha256": change.sha256 or None,
        "at": time_view(change.at),
        "by": change.actor,
        "reason": change.reason,
        "version": change.version,
        "signers": list(change.signers),
        "faults": list(change.faults),
    }
