"""The part of the desk about the keys of our accounts: how old they are, and new ones."""

from __future__ import annotations

from typing import Any

from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Actor
from broker.issuance.key_rotation import KeyRotation
from broker.operations import views
from broker.operations.authorities import AuthorityDesk
from broker.operations.upstream_accounts import UpstreamAccountDesk
from broker.web.operator import OperationError, failure_of

__all__ = ["RotationDesk"]


class RotationDesk(AuthorityDesk, UpstreamAccountDesk):
    """Commands about account keys."""

    async def upstream_rotate_key(
        self, *, actor: Actor, upstream: str, community: str | None = None
    ) -> Any:
        """Give our account a new key, for each community that has one there, or for one."""
        entry = self._acme_entry(upstream)
        rotation = self._rotation()
        made: list[dict[str, object]] = []
        for name in await self._communities(entry, community):
            try:
                rotated = await rotation.rotate(upstream, name, actor=actor)
            except (Refused, Unreachable, Broken, Conflict) as error:
                if not made:
                    raise
                raise _stopped(name, [str(one["community"]) for one in made], error) from error
            made.append(
                {
                    **views.upstream_account_view(rotated.record),
                    "key": rotated.record.key_id,
                    "not_retired": rotated.not_retired,
                }
            )
        return made

    async def upstream_show(self, *, upstream: str) -> Any:
        """Return an upstream with our accounts there, and how their keys are."""
        for row in await self.upstream_list():
            if row["upstream"] == upstream:
                return row
        known = ", ".join(each.name for each in self._rooms.upstreams.entries()) or "none"
        raise OperationError(f"no upstream is called '{upstream}'", f"there is {known}")

    def _rotation(self) -> KeyRotation:
        if self._rooms.key_rotation is None:
            raise OperationError("this desk changes no keys")
        return self._rooms.key_rotation


def _stopped(community: str, done: list[str], error: Exception) -> OperationError:
    failure = failure_of(error) or {}
    return OperationError(
        f"the account of community '{community}' keeps its key: {failure.get('error')}",
        f"those of {', '.join(done)} have a new one; ask again with --community {community}",
    )
