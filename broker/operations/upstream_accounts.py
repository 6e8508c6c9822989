"""The part of the desk about our accounts at upstreams: their keys, and who may issue for us."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from broker.issuance.caa_guard import CaaGuard
from broker.issuance.errors import Broken, Unreachable
from broker.operations.parties import UpstreamEntry
from broker.operations.rooms import Desk
from broker.protocol.caa_records import zone_line
from broker.protocol.identifiers import canonical_dns_name
from broker.web.operator import OperationError

__all__ = ["UpstreamAccountDesk"]


class UpstreamAccountDesk(Desk):
    """Commands about our accounts."""

    async def upstream_caa(
        self,
        *,
        upstream: str,
        community: str | None = None,
        names: list[str] | None = None,
        iodef: str | None = None,
    ) -> Any:
        """Return the CAA records that keep everybody out but our account there."""
        entry = self._acme_entry(upstream)
        wanted = [canonical_dns_name(name) for name in names or ()]
        found = []
        for each in await self._communities(entry, community):
            guarded = await self._caa().records(upstream, each, names=wanted, iodef=iodef)
            found += [
                {
                    "community": each,
                    "name": one.name,
                    "flags": record.flags,
                    "tag": record.tag,
                    "value": record.value,
                    "line": zone_line(f"{one.name}.", record),
                }
                for one in guarded
                for record in one.records
            ]
        return found

    async def caa_check(self) -> Any:
        """Return where CAA records for our accounts are missing, or let others in."""
        records = await self._store.list_upstream_accounts()
        served = {each.name: each for each in self._rooms.upstreams.entries()}
        found = []
        for record in records:
            entry = served.get(record.upstream)
            if entry is None or record.community not in entry.communities:
                continue
            where = {"upstream": record.upstream, "community": record.community}
            try:
                gaps = await self._caa().gaps(record.upstream, record.community)
            except (Unreachable, Broken) as error:
                found.append({**where, "name": None, "finding": error.reason})
                continue
            found += [{**where, "name": gap.name, "finding": gap.sentence} for gap in gaps]
        return found

    def _caa(self) -> CaaGuard:
        if self._rooms.caa is None:
            raise OperationError("this desk knows nothing of CAA")
        return self._rooms.caa

    def _acme_entry(self, upstream: str) -> UpstreamEntry:
        entries = [each for each in self._rooms.upstreams.entries() if each.kind == "acme"]
        for entry in entries:
            if entry.name == upstream:
                return entry
        known = ", ".join(each.name for each in entries) or "none"
        raise OperationError(f"no CA with accounts is called '{upstream}'", f"there is {known}")

    async def _communities(self, entry: UpstreamEntry, community: str | None) -> Sequence[str]:
        """Return the communities that have an account there, or the one that is meant."""
        records = await self._store.list_upstream_accounts()
        found = [one.community for one in records if one.upstream == entry.name]
        if community is not None:
            found = [one for one in found if one == community]
        if not found:
            which = f" for community '{community}'" if community is not None else ""
            raise OperationError(
                f"upstream '{entry.name}' has no account{which}",
                f"see penstock upstream register {entry.name}",
            )
        return found
