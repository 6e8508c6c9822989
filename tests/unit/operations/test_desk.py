"""The desk as a whole."""

import inspect

import pytest

from broker.operations import OperatorDesk
from broker.web.operator import COMMANDS, Operations
from tests.unit.operations.conftest import Office


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_desk_has_every_command_as_it_is_asked_for(command: str) -> None:
    """Same arguments, by the same names, with the same ones left out."""

    def shape(owner: type) -> dict[str, bool]:
        parameters = inspect.signature(getattr(owner, command)).parameters
        return {name: each.default is each.empty for name, each in parameters.items()}

    assert shape(OperatorDesk) == shape(Operations)


async def test_status_tells_what_is_in_force(office: Office) -> None:
    """Version, hash of each policy, counts, suspensions."""
    await (await office.world.client()).issue("www.example.com")
    found = await office.desk.status()
    assert found["version"] == "0.1.0"
    assert found["policies"] == {"default": office.world.policies.current("default").sha256}
    assert found["counts"]["orders_valid"] == 1
    assert found["suspensions"] == []
