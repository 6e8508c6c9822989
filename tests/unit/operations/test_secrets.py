"""The desk tells whether secrets in Vault can be read."""

from dataclasses import replace
from typing import Any

import pytest

from broker.operations import OperatorDesk
from broker.web.operator import OperationError
from tests.unit.operations.conftest import Office

ROW = {"secret": "vault:kv/penstock/eab#mac", "kind": "broken", "finding": "it is not there"}


class FakeSecrets:
    """``operations.parties.SecretsInUse`` with one finding."""

    async def findings(self) -> list[dict[str, str]]:
        """See the port."""
        return [ROW]


async def test_findings_are_shown(office: Office) -> None:
    """As whoever reads the secrets tells them."""
    made: Any = office.desk
    desk = OperatorDesk(replace(made._rooms, secrets_in_use=FakeSecrets()))
    assert await desk.secret_check() == [ROW]


async def test_desk_without_secrets_says_so(office: Office) -> None:
    """It is tried without in tests."""
    with pytest.raises(OperationError, match="knows nothing of secrets"):
        await office.desk.secret_check()
