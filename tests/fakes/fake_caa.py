"""What the CAA watch asks: records that a test writes down, and CAs that have a name or none."""

from __future__ import annotations

from collections.abc import Sequence

from broker.issuance.errors import Unreachable
from broker.protocol.caa import CaaIssuer, CaaRecord, CaaSeen
from broker.protocol.identifiers import Identifier, IdentifierType
from tests.fakes.stall import Stall

OURS = "ca.example.net"
"""The identity of the CA of the tests, once it has one."""


class FakeCaa:
    """``issuance.caa.CaaLooker`` and ``CaaIssuers`` at once."""

    def __init__(self) -> None:
        self.records: dict[str, Sequence[str] | str] = {}
        """By name the values of its issue properties, or why the look-up fails."""
        self.identities: dict[str, str] = {}
        """By upstream."""
        self.account_uri = "https://ca.example.net/acct/1"
        self.methods: frozenset[str] = frozenset({"dns-01"})
        self.is_away = False
        """Whether the CA's directory cannot be read."""
        self.looked: list[tuple[str, list[str]]] = []
        """(community, names) of each look."""
        self.stall: Stall | None = None

    async def look(self, community: str, identifiers: Sequence[Identifier]) -> Sequence[CaaSeen]:
        """See the port."""
        self.looked.append((community, [str(one) for one in identifiers]))
        if self.stall is not None:
            await self.stall.wait()
        names = [one for one in identifiers if one.type is IdentifierType.DNS]
        return [self._seen(name) for name in names]

    def _seen(self, name: Identifier) -> CaaSeen:
        found = self.records.get(name.value)
        if found is None:
            return CaaSeen(identifier=name)
        if isinstance(found, str):
            return CaaSeen(identifier=name, failure=found)
        records = tuple(CaaRecord(0, "issue", value) for value in found)
        return CaaSeen(identifier=name, found_at=name.value, records=records)

    def is_identified(self, upstream: str, community: str) -> bool:
        """See the port."""
        del community
        return upstream in self.identities

    async def caa_issuer(
        self, upstream: str, community: str, identifiers: Sequence[Identifier]
    ) -> CaaIssuer:
        """See the port."""
        del community
        if self.is_away:
            raise Unreachable("the CA is away")
        identity = self.identities.get(upstream)
        return CaaIssuer(
            identities=frozenset() if identity is None else frozenset({identity}),
            account_uri=self.account_uri,
            methods=dict.fromkeys(identifiers, self.methods),
        )
