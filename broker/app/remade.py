"""Adapters that are made of secrets, made anew when a secret has changed in Vault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

from broker.app.secrets import Secrets
from broker.config import SecretRef
from broker.issuance.errors import Broken
from broker.upstreams.placement import PlacedRecord
from broker.upstreams.solvers import TxtZone

__all__ = ["Remade", "RemadeZone", "zone_of_secrets"]

STAND_IN: Final = b"c3RhbmQtaW4="
"""What stands for a secret that is not read yet, in a trial: text, and base64 as well."""

T = TypeVar("T")

Values = Mapping[str, bytes]
"""Secrets by the names that their maker gives them."""


class Remade(Generic[T]):
    """What is made of secrets, as they are now."""

    def __init__(
        self, secrets: Secrets, refs: Mapping[str, SecretRef], make: Callable[[Values], T]
    ) -> None:
        """Find out what can be found out: secrets that do not lie in Vault are read now.

        Raises:
            Broken: One of them cannot be read, or whatever *make* says.
        """
        self._secrets = secrets
        self._lazy = {name: ref for name, ref in refs.items() if ref.scheme == "vault"}
        self._known = {name: ref.resolve() for name, ref in refs.items() if name not in self._lazy}
        self._make = make
        # Once for faults that are not the secrets': a person wants to hear of them at the start.
        self._made = make({**dict.fromkeys(self._lazy, STAND_IN), **self._known})
        self._of: Values | None = None if self._lazy else self._known

    @property
    def fixed(self) -> T | None:
        """Return what was made where no secret lies in Vault: it never changes."""
        return None if self._lazy else self._made

    async def current(self) -> T:
        """Return what is made of the secrets as they are now.

        Raises:
            Unreachable: Vault cannot answer now, and one of them was not read before.
            Broken: One of them cannot be read or used.
        """
        if self._lazy:
            read = {name: await self._secrets.read(ref) for name, ref in self._lazy.items()}
            values = {**read, **self._known}
            if values != self._of:
                self._made = self._make(values)
                self._of = values
        return self._made

    def doubt(self) -> None:
        """Have the secrets read again at the next use."""
        self._secrets.doubt(tuple(self._lazy.values()))


class RemadeZone:
    """Implements ``upstreams.solvers.TxtZone`` over one whose secrets lie in Vault."""

    def __init__(self, remade: Remade[TxtZone]) -> None:
        self._remade = remade

    async def publish(self, name: str, value: str) -> PlacedRecord:
        """Add *value* at *name*, or where its aliases lead, and return where that is."""
        zone = await self._remade.current()
        try:
            return await zone.publish(name, value)
        except Broken:
            # Perhaps it was refused for a secret that was changed a moment ago.
            self._remade.doubt()
            raise

    async def remove(self, placed: PlacedRecord) -> None:
        """Remove exactly that value."""
        zone = await self._remade.current()
        try:
            await zone.remove(placed)
        except Broken:
            self._remade.doubt()
            raise


def zone_of_secrets(
    secrets: Secrets, refs: Mapping[str, SecretRef], make: Callable[[Values], TxtZone]
) -> TxtZone:
    """Return the zone that *make* makes of these secrets.

    Raises:
        Broken: A secret that does not lie in Vault cannot be read, or whatever *make* says.
    """
    remade = Remade(secrets, refs, make)
    return remade.fixed or RemadeZone(remade)
