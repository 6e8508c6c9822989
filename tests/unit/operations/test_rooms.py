"""What every part of the desk has."""

from dataclasses import replace

import pytest

from broker.issuance.ownership import Ownership
from broker.operations.rooms import Desk
from broker.operations.views import View
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


@pytest.mark.parametrize(
    ("owner", "contact", "shown"),
    [
        ("", "", ("team-pki", "pki@corp.example", "community")),
        ("", "4711", ("", "4711", "")),
        ("anna", "", ("anna", "", "own")),
        ("anna", "4711", ("anna", "4711", "own")),
    ],
    ids=["nobody", "contact alone", "owner alone", "both"],
)
async def test_community_answers_for_what_names_nobody_at_all(
    office: Office, owner: str, contact: str, shown: tuple[str, str, str]
) -> None:
    """A contact that a node came with is whom to call."""
    world = office.world
    answering = {"default": ("team-pki", "pki@corp.example")}
    ownership = Ownership(world.store, world.clock, of_communities=answering)
    by = "own" if owner else ""
    row: View = {"community": "default", "owner": owner, "contact": contact, "owner_by": by}
    found = Desk(replace(office.rooms, ownership=ownership))._answered_for(row)
    assert (found["owner"], found["contact"], found["owner_by"]) == shown
