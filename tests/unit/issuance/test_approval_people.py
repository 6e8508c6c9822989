"""Who answers for a request, and who could be who."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.issuance.approval_people import People, is_any_of
from broker.issuance.approval_ports import AnswerWord
from broker.issuance.events import Actor
from broker.issuance.minting import Minting
from broker.protocol.encoding import encode_base64url
from broker.protocol.problems import Problem
from broker.protocol.requests import NewAccount
from tests.fakes.approving import ANNA
from tests.fakes.delivery_world import DeliveryWorld
from tests.fakes.fake_policies import POLICY
from tests.fakes.world import jwk_of, new_key


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[DeliveryWorld]:
    """A world with nodes."""
    async with DeliveryWorld(tmp_path) as made:
        yield made


@pytest.mark.parametrize(
    ("actor", "person", "is_same"),
    [
        ("operator:anna", "operator:anna", True),
        ("operator:Anna", "anna", True),
        ("operator:anna", "mailto:anna@corp.example", True),
        ("operator:anna@corp.example", "anna@corp.example", True),
        ("operator:anna@corp.example", "anna", True),
        ("operator:anna@corp.example", "anna@other.example", True),
        ("operator:anna", "Anna Example <anna@corp.example>", True),
        ("operator:anna", "ben@corp.example, anna@corp.example", True),
        ("operator:anna", "Ben; Anna", True),
        ("operator:corp/00u-7", "corp/00u-7", True),
        ("operator:corp/anna", "operator:anna", True),
        ("operator:corp/anna@corp.example", "anna@corp.example", True),
        ("operator:corp/anna@corp.example", "operator:anna", True),
        ("operator:corp/ben", "operator:anna", False),
        ("operator:anna", "Ben <ben@anna.example>", False),
        ("operator:anna", "operator:annabel", False),
        ("operator:anna", "ben@corp.example", False),
        ("operator:anna", "web team", False),
        ("operator:anna", "", False),
        ("operator:anna", "account:anna", False),
    ],
    ids=lambda value: str(value).replace("/", "-"),
)
def test_two_names_that_could_be_one_person_are_taken_for_one(
    actor: str, person: str, is_same: bool
) -> None:
    """Unsure means no."""
    assert is_any_of(actor, ["somebody else", person]) == is_same


async def test_account_is_answered_for_by_its_contacts_and_who_minted_its_key(
    world: DeliveryWorld,
) -> None:
    """The operator who handed a key out does not approve what it asks for."""
    key = await world.enrollment.mint(
        "default", label="", names=(), profiles=(), expires_at=None, is_reusable=False,
        actor=Actor("operator:anna"),
    )  # fmt: skip
    assert encode_base64url(key.mac_key)
    client = await world.client(binding=(key.key_id, key.mac_key))
    account = replace(client.account, contacts=("mailto:ben@corp.example",))
    found = await People(world.store).of_account(account)
    assert found == ("mailto:ben@corp.example", "operator:anna")
    owned = replace(account, owner="carl", contact="carl@corp.example")
    found = await People(world.store).of_account(owned)
    assert {"carl", "carl@corp.example"} <= set(found)


async def test_whoever_was_shown_a_binding_answers_for_the_account_that_used_it(
    world: DeliveryWorld,
) -> None:
    """The key that was approved needs no binding; another one may be the approver's own."""
    key = new_key()
    world.policies.set(POLICY + "accounts:\n  approval:\n    holds: 30d\n")
    with pytest.raises(Problem) as refused:
        await world.accounts.register("default", jwk_of(key), NewAccount(), None)
    assert refused.value.instance is not None
    approval_id = refused.value.instance.rpartition("/")[2]
    minting = Minting(world.enrollment, names=(), profiles=())
    await world.authority.answer(approval_id, AnswerWord.APPROVE, actor=ANNA, also=minting)
    assert minting.key is not None
    client = await world.client(binding=(minting.key.key_id, minting.key.mac_key))
    people = People(world.store)
    assert "operator:anna" in await people.of_account(client.account)
    asked = replace(client.account, thumbprint=jwk_of(key).thumbprint)
    assert "operator:anna" not in await people.of_account(asked)


async def test_node_is_answered_for_by_its_owner_and_contact(world: DeliveryWorld) -> None:
    """As they are known when it matters."""
    node = await world.node("web-01")
    account = await world.store.find_account(node.record.account_id)
    assert account is not None
    found = await People(world.store).of_account(account)
    assert {"web team", "web@corp.example"} <= set(found)
