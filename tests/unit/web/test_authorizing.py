"""The gate: each role may do what the table says, where it is held, and sees nothing of others."""

from typing import Any

import pytest

from broker.issuance.events import Actor, Event, EventKind
from broker.policy.roles import EVERYWHERE, Role
from broker.web.authorizing import MAX_ROWS, Gate, NotAllowed
from broker.web.operator import COMMANDS, OperationError
from broker.web.rights import RIGHTS, Caller, Thing
from broker.web.routes import route_of
from tests.fakes.clock import FakeClock

OWN, OTHER = "web", "mail"
VALUES: dict[Any, object] = {str: "x", int: 1, bool: False, list[str]: ["x"]}


class FakeOperations:
    """Does every command, and remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.rows: list[dict[str, Any]] = [
            {"community": OWN, "node_id": "n1"},
            {"community": OTHER, "node_id": "n2"},
            {"node_id": "n3"},
        ]

    def __getattr__(self, name: str) -> Any:
        async def answer(**arguments: Any) -> Any:
            self.asked.append((name, arguments))
            return list(self.rows)

        return answer


class FakeBelonging:
    """Every thing called after a community is of it; two names are of two."""

    async def communities_of(self, thing: Thing, reference: str) -> frozenset[str]:
        return frozenset(one for one in (OWN, OTHER) if one in reference)


class World:
    """The gate and what stands on both sides of it."""

    def __init__(self) -> None:
        self.operations = FakeOperations()
        self.events: list[Event] = []
        self.has_approvers = False
        self.gate = Gate(
            self.operations,  # type: ignore[arg-type]  # answers every name
            FakeBelonging(),
            clock=FakeClock(),
            record=self.record,
            has_approvers=lambda: self.has_approvers,
        )

    async def record(self, event: Event) -> None:
        self.events.append(event)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """A gate before operations that do everything."""
    made = World()

    async def perform(operations: Any, command: str, arguments: Any, actor: Actor) -> Any:
        return await getattr(operations, command)(**arguments, actor=actor)

    monkeypatch.setattr("broker.web.authorizing.perform", perform)
    return made


def caller(*roles: Role, place: str = OWN) -> Caller:
    """Return somebody with *roles* in one place."""
    return Caller(name="jane", roles={place: frozenset(roles)}, is_person=True)


def arguments(command: str, where: str) -> dict[str, object]:
    """Return arguments of *command* that lead to *where*."""
    right, given = RIGHTS[command], {}
    for name, one in route_of(command).arguments.items():
        if one.is_required:
            given[name] = VALUES.get(one.shape, {})
    if right.references:
        given[right.references[0].argument] = where
    return given


async def is_done(world: World, asker: Caller, command: str, where: str = OWN) -> bool:
    """Return whether *command* is done; what is refused is an event, and is not done."""
    before, told = len(world.operations.asked), len(world.events)
    try:
        await world.gate.perform(asker, command, arguments(command, where))
    except NotAllowed:
        assert len(world.operations.asked) == before
        assert [one.kind for one in world.events[told:]] == [EventKind.OPERATOR_REFUSED]
        return False
    assert len(world.operations.asked) == before + 1
    assert len(world.events) == told
    return True


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize("role", list(Role))
async def test_role_everywhere_may_what_the_table_says(
    world: World, role: Role, command: str
) -> None:
    """And nothing else."""
    asker = caller(role, place=EVERYWHERE)
    assert await is_done(world, asker, command) == (role in RIGHTS[command].roles)


@pytest.mark.parametrize("command", sorted(COMMANDS))
@pytest.mark.parametrize("role", list(Role))
async def test_role_in_a_community_may_it_there_alone(
    world: World, role: Role, command: str
) -> None:
    """Not in another, and not what belongs to none."""
    right, asker = RIGHTS[command], caller(role)
    may = role in right.roles and (bool(right.references) or right.by_rows)
    assert await is_done(world, asker, command) == may
    if right.references:
        assert not await is_done(world, asker, command, OTHER)


@pytest.mark.parametrize("command", sorted(COMMANDS))
async def test_nobody_without_a_role_may_anything(world: World, command: str) -> None:
    """The twin of all of these."""
    assert not await is_done(world, Caller(name="joe", roles={}, is_person=True), command)


@pytest.mark.parametrize("command", sorted(COMMANDS))
async def test_owner_may_everything_while_nobody_is_named_to_approve(
    world: World, command: str
) -> None:
    """They could change the store; once people are named, approvals take one of them."""
    owner = Caller(name="root", roles={}, is_owner=True)
    assert await is_done(world, owner, command)
    world.has_approvers = True
    assert await is_done(world, owner, command) == (not RIGHTS[command].is_personal)


@pytest.mark.parametrize(("role", "may"), [(Role.APPROVER, True), (Role.OPERATOR, False)])
async def test_owner_who_is_named_approves_by_the_role_they_are_given(
    world: World, role: Role, may: bool
) -> None:
    """To own the broker is no right to say yes."""
    world.has_approvers = True
    named = Caller(name="sam", roles={EVERYWHERE: frozenset({role})}, is_owner=True, is_person=True)
    assert await is_done(world, named, "approval_approve") == may
    assert await is_done(world, named, "order_retry")


async def test_what_is_of_others_is_told_like_what_does_not_exist(world: World) -> None:
    """Nobody learns what there is elsewhere."""
    said = []
    for reference in ("an-order-of-mail", "an-order-of-nobody"):
        given = {"order_id": reference}
        with pytest.raises(NotAllowed) as caught:
            await world.gate.perform(caller(Role.VIEWER), "order_show", given)
        said.append(caught.value.message.replace(reference, "…"))
    assert said[0] == said[1]


async def test_who_sees_and_may_not_is_told_which_role_it_takes(world: World) -> None:
    """There is no secret in that."""
    with pytest.raises(NotAllowed, match="takes the role operator in community 'web'"):
        await world.gate.perform(caller(Role.VIEWER), "order_retry", {"order_id": OWN})
    (event,) = world.events
    assert event.actor.name == "operator:jane"
    assert event.data["command"] == "order_retry"


async def test_thing_of_two_communities_takes_the_role_in_both(world: World) -> None:
    """Half a right is none."""
    both = "a certificate of web and mail"
    asker = caller(Role.OPERATOR)
    with pytest.raises(NotAllowed):
        await world.gate.perform(asker, "renew", {"target": both})
    twin = Caller(name="jane", roles={one: frozenset({Role.OPERATOR}) for one in (OWN, OTHER)})
    assert await world.gate.perform(twin, "renew", {"target": both})


async def test_everything_that_is_named_has_to_be_of_ones_own(world: World) -> None:
    """A thing of others does not pass beside one's own."""
    asker, names = caller(Role.VIEWER), ["a.example"]
    with pytest.raises(NotAllowed):
        await world.gate.perform(
            asker, "policy_explain", {"names": names, "node": OWN, "account": OTHER}
        )
    own = {"names": names, "node": OWN, "account": OWN}
    assert await world.gate.perform(asker, "policy_explain", own)


async def test_renewing_whatever_is_due_takes_the_role_everywhere(world: World) -> None:
    """It names no place."""
    with pytest.raises(NotAllowed, match="everywhere"):
        await world.gate.perform(caller(Role.OPERATOR), "renew", {"all_due": True})


async def test_list_is_of_the_one_community_where_a_role_is_held(world: World) -> None:
    """It need not be named."""
    await world.gate.perform(caller(Role.VIEWER), "order_list", {})
    assert world.operations.asked[0][1]["community"] == OWN


async def test_community_of_several_has_to_be_named(world: World) -> None:
    """A page of two lists would be neither."""
    asker = Caller(name="jane", roles={one: frozenset({Role.VIEWER}) for one in (OWN, OTHER)})
    with pytest.raises(OperationError, match="has to be named") as caught:
        await world.gate.perform(asker, "order_list", {})
    assert caught.value.hint == "one of mail, web"
    assert await world.gate.perform(asker, "order_list", {"community": OTHER})


async def test_rows_of_others_are_left_out(world: World) -> None:
    """And those of nobody; who holds the role everywhere has them all."""
    rows = await world.gate.perform(caller(Role.VIEWER), "node_list", {})
    assert [row["node_id"] for row in rows] == ["n1"]
    everything = await world.gate.perform(caller(Role.VIEWER, place=EVERYWHERE), "node_list", {})
    assert len(everything) == 3


async def test_page_is_filled_though_others_stand_between(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are read on until there are enough rows, or no more."""
    nodes = [
        {"community": OWN if number % 100 == 0 else OTHER, "node_id": f"n{number:05}"}
        for number in range(3 * MAX_ROWS)
    ]

    async def node_list(*, after: str | None = None, limit: int, **_: Any) -> Any:
        return [one for one in nodes if after is None or one["node_id"] > after][:limit]

    world.operations.node_list = node_list  # type: ignore[attr-defined]
    asker = caller(Role.VIEWER)
    rows = await world.gate.perform(asker, "node_list", {"limit": 25})
    assert [row["node_id"] for row in rows] == [f"n{number:05}" for number in range(0, 2500, 100)]
    rest = await world.gate.perform(asker, "node_list", {"limit": 25, "after": "n02400"})
    assert len(rest) == 5


async def test_what_is_no_command_is_told_so(world: World) -> None:
    """Whoever asks."""
    owner = Caller(name="root", roles={}, is_owner=True)
    for command in ("drop_everything", "__init__", ""):
        with pytest.raises(OperationError, match="there is no command"):
            await world.gate.perform(owner, command, {})
