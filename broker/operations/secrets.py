"""Secrets in Vault at the desk: whether they can be read; what they are is told to nobody."""

from __future__ import annotations

from typing import Any

from broker.operations.rooms import Desk
from broker.web.operator import OperationError

__all__ = ["SecretDesk"]


class SecretDesk(Desk):
    """What is wrong with secrets that the configuration refers to."""

    async def secret_check(self) -> Any:
        """Return a row for each secret in Vault: the reference, and what is wrong, if anything."""
        secrets = self._rooms.secrets_in_use
        if secrets is None:
            raise OperationError("this desk knows nothing of secrets")
        return list(await secrets.findings())
