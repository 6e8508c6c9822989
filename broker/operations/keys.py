"""The part of the desk about keys in use."""

from __future__ import annotations

from typing import Any

from broker.operations.rooms import Desk
from broker.web.operator import OperationError

__all__ = ["KeyDesk"]


class KeyDesk(Desk):
    """Commands about keys."""

    async def key_check(self) -> Any:
        """Return what must not be so about the keys in use, as whoever keeps them says now."""
        if self._rooms.keys_in_use is None:
            raise OperationError("this desk knows no keys")
        return await self._rooms.keys_in_use.findings()
