"""Who answers for what, and how that is changed."""

import pytest

from broker.issuance.errors import Conflict
from broker.issuance.events import SYSTEM, Actor, EventKind
from broker.issuance.owner_ports import OwnedKind
from broker.issuance.ownership import MAX_OWNER_CHARS, Ownership, check_owner
from broker.protocol.problems import Problem
from tests.fakes.world import World

JANE = Actor("operator:jane", "the team was split")
ROBOT = ("default", "robot")


async def test_change_is_an_event_with_what_was_before(world: World) -> None:
    """Who, why, from whom to whom."""
    client = await world.client()
    ownership = Ownership(world.store, world.clock)
    found = await ownership.of(OwnedKind.ACCOUNT, client.account.account_id)
    assert found is not None
    named = await ownership.set(found, owner="web", contact="web@corp.example", actor=JANE)
    assert (named.owner, named.contact, named.source) == ("web", "web@corp.example", "own")
    await ownership.set(named, owner="", contact="", actor=JANE)
    first, second = await world.events(EventKind.OWNER_CHANGED)
    assert (first.actor, first.account_id) == (JANE, client.account.account_id)
    assert first.data["before"] == {"owner": "", "contact": ""}
    assert second.data["before"] == {"owner": "web", "contact": "web@corp.example"}


async def test_owner_of_a_requester_is_what_policy_is_asked_about(world: World) -> None:
    """That of the key, until the account has its own."""
    client = await world.robot()
    ownership = Ownership(world.store, world.clock)

    async def owner() -> str | None:
        account = await world.accounts.require("default", client.account.account_id)
        facts = await world.planner.facts(
            account, identifiers=(), profile=None, not_before=None, not_after=None
        )
        return facts.requester.owner

    assert await owner() is None
    key = await ownership.of(OwnedKind.EAB_KEY, "robot", community="default")
    assert key is not None
    await ownership.set(key, owner="robots", contact="", actor=JANE)
    assert await owner() == "robots"
    account = await ownership.of(OwnedKind.ACCOUNT, client.account.account_id)
    assert account is not None
    await ownership.set(account, owner="anna", contact="", actor=JANE)
    assert await owner() == "anna"


async def test_what_the_configuration_says_holds(world: World) -> None:
    """It is in the store after the start, once as an event, and no command changes it."""
    for _ in range(2):
        ownership = Ownership(
            world.store, world.clock, declared={ROBOT: ("robots", "r@corp.example")}
        )
        await ownership.keep_declared()
    (event,) = await world.events(EventKind.OWNER_CHANGED)
    assert event.actor == SYSTEM
    found = await ownership.of(OwnedKind.EAB_KEY, "robot", community="default")
    assert found is not None
    assert (found.owner, found.contact) == ("robots", "r@corp.example")
    with pytest.raises(Conflict, match="change it there"):
        await ownership.set(found, owner="anna", contact="", actor=JANE)


@pytest.mark.parametrize(
    ("owner", "contact", "why"),
    [
        pytest.param("x" * (MAX_OWNER_CHARS + 1), "", "owner is not at most", id="long"),
        pytest.param("a\nb", "", "owner is not at most", id="two lines"),
        pytest.param("anna ", "", "owner is not at most", id="blank at the end"),
        pytest.param("anna", "\u202ea", "contact is not at most", id="turned around"),
        pytest.param("", "a@corp.example", "a contact needs an owner", id="nobody's contact"),
    ],
)
def test_odd_names_are_refused(owner: str, contact: str, why: str) -> None:
    """They are shown on terminals and in tables."""
    with pytest.raises(Problem, match=why):
        check_owner(owner, contact)


@pytest.mark.parametrize(
    ("owner", "contact"), [("", ""), ("team-web", ""), ("Ünal", "ü@corp.example")], ids=str
)
def test_names_of_people_pass(owner: str, contact: str) -> None:
    """Whatever they are called."""
    check_owner(owner, contact)
