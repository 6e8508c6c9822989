"""CAA look-ups: climb from a name towards the root until records are found (RFC 8659 §3).

Each community asks its own resolvers.  What was found is handed on as it is; whether it forbids
anything is ``protocol.caa``'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Final

from broker.issuance.errors import Broken
from broker.protocol.caa import CaaRecord, CaaSeen
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.validation.resolver import NameNotFound, ResolutionFailed, Resolver
from broker.validation.targets import ValidationSettings
from broker.validation.validators import dns_resolver

__all__ = ["CaaLookups"]

MAX_AT_ONCE: Final = 16
"""Most names of one order that are looked up side by side: an order may have a hundred, and a
resolver limits its clients."""

_Answer = Sequence[CaaRecord] | ResolutionFailed


class CaaLookups:
    """Implements ``issuance.caa.CaaLooker`` for the communities it is given."""

    def __init__(
        self,
        settings: Mapping[str, ValidationSettings],
        *,
        make_resolver: Callable[[ValidationSettings], Resolver] = dns_resolver,
    ) -> None:
        self._communities = {
            community: (make_resolver(chosen), chosen.timeout)
            for community, chosen in settings.items()
        }

    async def look(self, community: str, identifiers: Sequence[Identifier]) -> Sequence[CaaSeen]:
        """Return what stands for each name among *identifiers*, for those of e-mail at their
        domain; IP addresses have no CAA.

        Names that share a zone share its look-ups.

        Raises:
            Broken: The community is not configured.
        """
        found = self._communities.get(community)
        if found is None:
            raise Broken(f"community '{community}' has no validation settings")
        climb = _Climb(*found)
        names = [one for one in identifiers if one.type is not IdentifierType.IP]
        return await asyncio.gather(*(climb.of(name) for name in names))


class _Climb:
    """The look-ups for one order, each name of the tree asked for once."""

    def __init__(self, resolver: Resolver, limit: timedelta) -> None:
        self._resolver = resolver
        self._limit = limit
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._asked: dict[str, asyncio.Future[_Answer]] = {}

    async def of(self, identifier: Identifier) -> CaaSeen:
        labels = identifier.domain.split(".")
        seconds = self._limit.total_seconds()
        try:
            # Waiting for a slot counts: the limit is that of the whole order.
            async with asyncio.timeout(seconds), self._slots:
                for depth in range(len(labels)):
                    name = ".".join(labels[depth:])
                    records = await self._at(name)
                    if records:
                        return CaaSeen(identifier=identifier, found_at=name, records=tuple(records))
        except ResolutionFailed as error:
            return CaaSeen(identifier=identifier, failure=str(error))
        except TimeoutError:
            return CaaSeen(identifier=identifier, failure=f"no answer within {seconds:g} s")
        return CaaSeen(identifier=identifier)

    async def _at(self, name: str) -> Sequence[CaaRecord]:
        asked = self._asked.get(name)
        if asked is None:
            asked = self._asked[name] = asyncio.ensure_future(self._ask(name))
        # Shielded: the next name, which waits for the same answer, may have time left.
        answer = await asyncio.shield(asked)
        if isinstance(answer, ResolutionFailed):
            raise answer
        return answer

    async def _ask(self, name: str) -> _Answer:
        try:
            return await self._resolver.caa(name)
        except NameNotFound:
            return ()
        except ResolutionFailed as error:
            return error
