"""Names key files one after another."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["FilePlaces"]


class FilePlaces:
    """Implements ``key_ports.KeyPlaces`` for keys in files alone."""

    def __init__(self) -> None:
        self.count = 0

    async def next_account_key_id(self, upstream: str, community: str, current: str | None) -> str:
        self.count += 1
        return f"account-{upstream}@{community}.{self.count}"

    async def next_ca_key_id(self, upstream: str, role: str, taken: Sequence[str]) -> str:
        raise NotImplementedError
