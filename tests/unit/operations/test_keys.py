"""The desk's command about keys in use."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.operations import OperatorDesk
from broker.web.operator import OperationError
from tests.unit.operations.conftest import Office

ROW = {"key": "vault:transit/key#1", "use": "account", "kind": "barring", "finding": "rotates"}


class FakeKeys:
    """Finds one thing."""

    async def findings(self) -> list[dict[str, Any]]:
        """See the port."""
        return [ROW]


async def test_what_is_wrong_with_keys_is_told(office: Office) -> None:
    """As the watch over them says."""
    made: Any = office.desk
    desk = OperatorDesk(replace(made._rooms, keys_in_use=FakeKeys()))
    assert await desk.key_check() == [ROW]


async def test_desk_without_keys_says_so(office: Office) -> None:
    """It was put together for a test."""
    made: Any = office.desk
    desk = OperatorDesk(replace(made._rooms, keys_in_use=None))
    with pytest.raises(OperationError, match="knows no keys"):
        await desk.key_check()
