"""The keys that are in use, looked at again and again: what must not be so of a key is found before
a CA finds it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from broker.config import Config
from broker.config.upstreams import AcmeUpstream, BuiltinUpstream
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.key_ports import KeyFault, KeyFaultKind, KeyStores
from broker.issuance.ports import Store
from broker.issuance.records import CaRole
from broker.keys.vault_ids import is_vault_id

__all__ = ["KeyFaultMetrics", "KeyInUse", "KeyWatch"]

log = structlog.get_logger("penstock")

_SIGNING: Final = frozenset(CaRole) - {CaRole.PLANNED, CaRole.RETIRED}
"""Roles of the keys of a built-in CA that are made and have not ended."""


@dataclass(frozen=True, slots=True)
class KeyInUse:
    """One key, and whose it is."""

    key_id: str
    use: str
    is_often_away: bool = False
    """Whether nobody is meant to reach it but in a ceremony: the root of a CA."""


class KeyWatch:
    """Looks at every key in use, and tells when what is wrong with them changes."""

    def __init__(
        self,
        config: Config,
        *,
        ring: KeyStores,
        store: Store,
        of_the_place: Callable[[], Awaitable[Sequence[dict[str, Any]]]] | None = None,
    ) -> None:
        """Look at the keys that *store* names; nothing is asked before the first call.

        *of_the_place* returns rows about whoever keeps them, whether or not one is in use.
        """
        self._of_the_place = of_the_place
        self._config = config
        self._ring = ring
        self._store = store
        self._faults: dict[str, Sequence[KeyFault]] = {}

    async def in_use(self) -> AsyncIterator[KeyInUse]:
        """Yield the keys that are in use, those of accounts first."""
        for account in await self._store.list_upstream_accounts():
            if isinstance(self._config.upstreams.get(account.upstream), AcmeUpstream):
                use = f"account of community '{account.community}' at '{account.upstream}'"
                yield KeyInUse(account.key_id, use)
        for name, upstream in self._config.upstreams.items():
            if isinstance(upstream, BuiltinUpstream):
                for member in await self._store.ca_members(name):
                    if member.key_id is not None and member.role in _SIGNING:
                        is_root = member.role is CaRole.ROOT
                        use = f"built-in CA '{name}', {member.role}"
                        yield KeyInUse(member.key_id, use, is_often_away=is_root)

    async def findings(self) -> Sequence[dict[str, Any]]:
        """Return a row for each thing that must not be so, or that could not be looked at."""
        rows = [] if self._of_the_place is None else [*await self._of_the_place()]
        async for one, faults in self._looked_at():
            named = {"key": one.key_id, "use": one.use}
            if isinstance(faults, Unreachable):
                rows.append({**named, "kind": "unseen", "finding": faults.reason})
            else:
                rows += [{**named, "kind": str(it.kind), "finding": it.reason} for it in faults]
        return rows

    async def look(self) -> None:
        """Look at every key in use; a Vault that is away is told of elsewhere."""
        seen: dict[str, Sequence[KeyFault]] = {}
        async for one, faults in self._looked_at():
            if isinstance(faults, Unreachable):
                seen[one.key_id] = self._faults.get(one.key_id, ())
            else:
                seen[one.key_id] = faults
                self._tell(one, faults)
        self._faults = seen

    async def _looked_at(self) -> AsyncIterator[tuple[KeyInUse, Sequence[KeyFault] | Unreachable]]:
        """Yield each key in use with what is wrong with it; of a mount that does not answer only
        the first key is asked about."""
        away: dict[str, Unreachable] = {}
        async for one in self.in_use():
            mount = one.key_id.rpartition("/")[0]
            if mount in away:
                yield one, away[mount]
                continue
            try:
                faults = await self._ring.inspect(one.key_id)
            except Unreachable as error:
                away[mount] = error
                yield one, error
            except Broken as error:
                if one.is_often_away:
                    yield one, Unreachable(error.reason)
                else:
                    yield one, (KeyFault(key_id=one.key_id, reason=error.reason),)
            else:
                yield one, faults

    def warning(self) -> str | None:
        """Return what is wrong with a key in use, None where nothing is."""
        for faults in self._faults.values():
            for fault in faults:
                if fault.kind is not KeyFaultKind.ORIGIN:
                    return fault.reason
        return None

    def count_faults(self) -> Mapping[KeyFaultKind, int]:
        """Return how many keys in use have a fault of each kind, as of the last look."""
        kinds = [{fault.kind for fault in faults} for faults in self._faults.values()]
        return {kind: sum(kind in found for found in kinds) for kind in KeyFaultKind}

    async def warn_of_files(self) -> None:
        """Tell the log that keys lie in files, where some do."""
        lying = [one.use async for one in self.in_use() if not is_vault_id(one.key_id)]
        if lying:
            log.warning(
                "keys lie in encrypted files, which is the lesser choice",
                uses=lying,
                reason="who has the state directory and the passphrase has the keys as well",
                hint="keep them in Vault, see docs/vault.md",
            )

    def _tell(self, one: KeyInUse, faults: Sequence[KeyFault]) -> None:
        """Tell the log what is new since the last look."""
        before = {fault.reason for fault in self._faults.get(one.key_id, ())}
        for fault in faults:
            if fault.reason not in before:
                tell = log.warning if fault.kind is KeyFaultKind.ORIGIN else log.error
                tell("key must not be so", key_id=one.key_id, use=one.use, reason=fault.reason)
        if before and not faults:
            log.info("key is as it has to be again", key_id=one.key_id, use=one.use)


class KeyFaultMetrics:
    """What is told about the keys in use on the metrics page."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._faults = Gauge(
            "penstock_key_faults",
            "Keys in use that are what they must not be: barring means that nothing is signed with "
            "them, exposed that they may have left, origin that they have lived elsewhere.",
            ("kind",),
            registry=registry,
        )
        self.show(dict.fromkeys(KeyFaultKind, 0))

    def show(self, counts: Mapping[KeyFaultKind, int]) -> None:
        """Show these numbers."""
        for kind, number in counts.items():
            self._faults.labels(str(kind)).set(number)
