"""The desk about owners."""

import json
from dataclasses import replace
from typing import Any

import pytest

from broker.issuance.ownership import Ownership
from broker.operations import OperatorDesk
from broker.web.operator import OperationError, Operations
from tests.unit.operations.conftest import ANNA, Office


async def test_minted_key_has_its_owner_and_gives_it_to_its_account(office: Office) -> None:
    """It is in every listing, and found by its name."""
    minted = await office.desk.eab_mint(
        actor=ANNA, key_id="web", owner="team-web", contact="web@corp.example"
    )
    assert (minted["owner"], minted["contact"]) == ("team-web", "web@corp.example")
    key = await office.world.store.find_eab_key("default", "web")
    assert key is not None
    shown = await office.desk.owner_show(owner="team-web")
    json.dumps(shown)
    assert [(one["what"], one["id"]) for one in shown["things"]] == [("eab-key", "web")]
    rows = {row["owner"]: row for row in await office.desk.owner_list()}
    assert rows["team-web"]["eab_keys"] == 1


async def test_account_shows_whose_it_is(office: Office) -> None:
    """Its certificates stand beside it, by name."""
    client = await office.world.client()
    account = client.account.account_id
    await client.issue("a.example.com")
    assert (await office.desk.account_show(account_id=account))["owner"] == ""
    named = await office.desk.owner_set(actor=ANNA, account=account, owner="anna", contact="4711")
    assert (named["owner"], named["contact"], named["by"]) == ("anna", "4711", "own")
    assert (await office.desk.account_show(account_id=account))["owner"] == "anna"
    (listed,) = await office.desk.account_list()
    assert (listed["owner"], listed["contact"]) == ("anna", "4711")
    shown = await office.desk.owner_show(owner="anna")
    assert [one["names"] for one in shown["certificates"]] == [["a.example.com"]]
    explained = await office.desk.policy_explain(names=["a.example.com"], account=account)
    assert (explained["owner"], explained["frozen"]) == ("anna", None)


async def test_explanation_says_what_is_frozen(office: Office) -> None:
    """Policy may allow it all the same."""
    client = await office.world.client()
    account = client.account.account_id
    await office.desk.freeze(actor=ANNA, community="default")
    explained = await office.desk.policy_explain(names=["a.example.com"], account=account)
    assert (explained["allowed"], explained["frozen"]) == (True, "community 'default'")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        pytest.param({}, "name one account, node or EAB key", id="nothing"),
        pytest.param({"account": "a", "node": "b"}, "name one account", id="two"),
        pytest.param({"account": "nobody"}, "there is no account 'nobody'", id="account"),
        pytest.param({"node": "web-99"}, "there is no node 'web-99'", id="node"),
        pytest.param({"eab": "none"}, "there is no eab-key 'none'", id="key"),
    ],
)
async def test_what_is_not_there_has_no_owner(
    office: Office, given: dict[str, Any], why: str
) -> None:
    """It is said what there is not."""
    with pytest.raises(OperationError, match=why):
        await office.desk.owner_set(actor=ANNA, owner="anna", **given)


async def test_lists_have_an_end_and_know_their_communities(office: Office) -> None:
    """As all lists."""
    with pytest.raises(OperationError, match="limit 0 is not between 1 and 1000"):
        await office.desk.owner_list(limit=0)
    with pytest.raises(OperationError, match="no community is called 'nowhere'"):
        await office.desk.owner_show(owner="anna", community="nowhere")


async def test_community_answers_for_what_names_nobody(office: Office) -> None:
    """It is told as that, is in nobody's column, and is not what a rule asks for."""
    world = office.world
    fallback = Ownership(
        world.store, world.clock, of_communities={"default": ("team-pki", "pki@corp.example")}
    )
    desk: Operations = OperatorDesk(replace(office.rooms, ownership=fallback))
    client = await world.client()
    account = client.account.account_id
    shown = await desk.account_show(account_id=account)
    assert (shown["owner"], shown["contact"], shown["owner_by"]) == (
        "team-pki", "pki@corp.example", "community",
    )  # fmt: skip
    assert (await office.desk.account_show(account_id=account))["owner_by"] == ""
    minted = await desk.eab_mint(actor=ANNA, key_id="web")
    assert (minted["owner"], minted["owner_by"]) == ("team-pki", "community")
    assert {row["owner_by"] for row in await desk.eab_list()} == {"community"}
    unnamed = (await desk.owner_show(owner=""))["things"]
    assert account in {one["id"] for one in unnamed}
    assert {(one["owner"], one["by"]) for one in unnamed} == {("team-pki", "community")}
    assert (await desk.owner_show(owner="team-pki"))["things"] == []
    explained = await desk.policy_explain(names=["a.example.com"], account=account)
    assert explained["owner"] is None
    await desk.owner_set(actor=ANNA, account=account, owner="anna", contact="4711")
    shown = await desk.account_show(account_id=account)
    assert (shown["owner"], shown["contact"], shown["owner_by"]) == ("anna", "4711", "own")
