"""What every part of the desk has."""

import pytest

from broker.web.operator import OperationError
from tests.unit.operations.conftest import Office


async def test_account_that_is_not_there_is_told_in_one_way(office: Office) -> None:
    """With the command that lists those there are."""
    with pytest.raises(OperationError) as caught:
        await office.desk.account_show(account_id="x")
    assert caught.value.hint == "see penstock account list"


async def test_community_that_is_not_there_is_told_with_those_there_are(office: Office) -> None:
    """A typo shows at once."""
    with pytest.raises(OperationError) as caught:
        await office.desk.policy_explain(names=["a.example.com"], community="defualt")
    assert caught.value.hint == "there is default"
