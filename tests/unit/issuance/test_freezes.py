"""What is frozen orders nothing; reads and revocations go on."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.issuance.errors import Conflict, Unreachable
from broker.issuance.events import SYSTEM, Actor, EventKind
from broker.issuance.freeze_ports import FreezeKind, FreezePlace, FreezeRecord
from broker.issuance.freezes import Freezes
from broker.issuance.settings import CommunitySettings
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import AccountUpdate, NewAccount, Revocation
from broker.protocol.resources import AccountStatus, OrderStatus
from tests.fakes.delivery_world import DeliveryWorld
from tests.fakes.fake_policies import POLICY
from tests.fakes.fake_upstream import FakeUpstream
from tests.fakes.node_world import AgentKey, NodeWorld
from tests.fakes.world import Client, World, default_facts, dns, jwk_of, make_csr

NAME = "www.example.com"
JANE = Actor("operator:jane", "key found on a public site")


def record(world: World, kind: FreezeKind, subject: str, **changes: Any) -> FreezeRecord:
    """Return a freeze of now."""
    values: dict[str, Any] = {
        "kind": kind,
        "community": "" if kind is FreezeKind.UPSTREAM else "default",
        "subject": subject,
        "name": subject,
        "at": world.clock.now(),
        "actor": JANE.name,
        "reason": JANE.reason,
    }
    return FreezeRecord(**{**values, **changes})


async def freeze(world: World, kind: FreezeKind, subject: str, **changes: Any) -> FreezePlace:
    """Freeze it, and return what was frozen."""
    made = record(world, kind, subject, **changes)
    await world.freezes.freeze(made, JANE)
    return made.place


async def frozen_client(world: World, kind: FreezeKind) -> Client:
    """Return a client that a freeze of this kind stops."""
    client = await world.robot()
    subjects = {
        FreezeKind.COMMUNITY: "default",
        FreezeKind.ACCOUNT: client.account.account_id,
        FreezeKind.EAB_KEY: "robot",
    }
    await freeze(world, kind, subjects[kind])
    return client


REQUESTERS = [FreezeKind.COMMUNITY, FreezeKind.ACCOUNT, FreezeKind.EAB_KEY]


@pytest.mark.parametrize("kind", REQUESTERS, ids=str)
async def test_frozen_requester_orders_nothing(world: World, kind: FreezeKind) -> None:
    """Whatever of it was frozen, a new order is refused, and no CA hears of it."""
    client = await frozen_client(world, kind)
    with pytest.raises(Problem, match="issuance is frozen for") as caught:
        await client.order("a.robots.example.com")
    assert caught.value.type is ProblemType.UNAUTHORIZED
    assert world.ca.count("open_order") == 0


async def test_refusal_is_kept_with_the_policies_in_force(world: World) -> None:
    """Every refusal tells under which they fell, one for a freeze as well."""
    client = await frozen_client(world, FreezeKind.ACCOUNT)
    with pytest.raises(Problem, match="issuance is frozen for"):
        await client.order("a.robots.example.com")
    *_, told = await world.events(EventKind.REQUEST_REFUSED)
    assert told.data["policy_sha256"] == world.policies.current("default").policy_sha256


@pytest.mark.parametrize("kind", REQUESTERS, ids=str)
async def test_others_order_on(world: World, kind: FreezeKind) -> None:
    """A freeze of one account, key or community stops nobody else."""
    await frozen_client(world, kind)
    other = await world.client("lab" if kind is FreezeKind.COMMUNITY else "default")
    assert (await other.issue(NAME)).status is OrderStatus.VALID


async def test_refusal_says_whom_to_ask_and_not_why(world: World) -> None:
    """The reason is ours; who to ask is the configuration's, or what was said with the freeze."""
    client = await world.client()
    await freeze(world, FreezeKind.COMMUNITY, "default")
    with pytest.raises(Problem) as caught:
        await client.order(NAME)
    assert caught.value.detail == (
        "issuance is frozen for community 'default', ask pki@corp.example"
    )
    await freeze(
        world, FreezeKind.COMMUNITY, "default", ask="soc@corp.example", told="we rotate keys"
    )
    with pytest.raises(Problem) as caught:
        await client.order(NAME)
    assert caught.value.detail == (
        "issuance is frozen for community 'default', ask soc@corp.example (we rotate keys)"
    )


async def test_freeze_that_ends_says_when_to_come_again(world: World) -> None:
    """Its end is the Retry-After, and at its end orders are made again."""
    client = await world.client()
    until = world.clock.now() + timedelta(hours=2)
    await freeze(world, FreezeKind.ACCOUNT, client.account.account_id, until=until)
    with pytest.raises(Problem) as caught:
        await client.order(NAME)
    assert caught.value.retry_after == timedelta(hours=2)
    world.clock.advance(timedelta(hours=2))
    assert (await client.issue(NAME)).status is OrderStatus.VALID


async def test_end_of_a_freeze_is_written_down(world: World) -> None:
    """The sweep tells it once, as the system's doing."""
    until = world.clock.now() + timedelta(hours=2)
    await freeze(world, FreezeKind.UPSTREAM, "ca", until=until)
    assert await world.freezes.sweep() == 0
    world.clock.advance(timedelta(hours=3))
    assert (await world.freezes.sweep(), await world.freezes.sweep()) == (1, 0)
    (event,) = await world.events(EventKind.UNFROZEN)
    assert event.actor == Actor(SYSTEM.name, "its time was over")
    assert event.upstream == "ca"


async def test_each_change_is_an_event_with_actor_and_reason(world: World) -> None:
    """Freezing, freezing anew and lifting are told, with who and why."""
    client = await world.client()
    place = await freeze(world, FreezeKind.ACCOUNT, client.account.account_id)
    await freeze(world, FreezeKind.ACCOUNT, client.account.account_id, told="ask us")
    await world.freezes.unfreeze(place, Actor("operator:sam", "it was a test key"))
    frozen = await world.events(EventKind.FROZEN, EventKind.UNFROZEN)
    assert [event.kind for event in frozen] == ["frozen", "frozen", "unfrozen"]
    assert {event.account_id for event in frozen} == {client.account.account_id}
    assert frozen[0].actor == JANE
    assert frozen[1].data["told"] == "ask us"
    assert frozen[2].actor == Actor("operator:sam", "it was a test key")


async def test_refusals_are_events(world: World) -> None:
    """Who came during a freeze is found afterwards."""
    client = await frozen_client(world, FreezeKind.EAB_KEY)
    with pytest.raises(Problem):
        await client.order("a.robots.example.com")
    (event,) = await world.events(EventKind.REQUEST_REFUSED)
    assert event.account_id == client.account.account_id
    findings: Any = event.data["findings"]
    assert findings[0]["check"] == "frozen"
    assert findings[0]["sentence"] == "EAB key 'robot' is frozen"


async def test_lifting_what_is_not_frozen_conflicts(world: World) -> None:
    """It says so instead of writing an event about nothing."""
    with pytest.raises(Conflict, match="upstream 'ca' is not frozen"):
        await world.freezes.unfreeze(FreezePlace(FreezeKind.UPSTREAM, "", "ca"), JANE)
    assert await world.events(EventKind.UNFROZEN) == []


async def test_freeze_survives_a_restart(world: World) -> None:
    """It lies in the store, and was on the disk when the command was answered."""
    world.keeps_snapshots = True
    await world.restart()
    client = await world.client()
    await freeze(world, FreezeKind.ACCOUNT, client.account.account_id)
    await world.restart(power_cut=True)
    account = await world.accounts.require("default", client.account.account_id)
    with pytest.raises(Problem, match="issuance is frozen for this account"):
        await world.freezes.verify_free(account, "new-order")


async def test_freeze_by_another_process_holds_within_a_second(world: World) -> None:
    """What was read is believed for a second and no longer."""
    client = await world.client()
    await world.freezes.verify_free(client.account, "new-order")
    elsewhere = Freezes(world.store, world.store, world.clock)
    await elsewhere.freeze(record(world, FreezeKind.COMMUNITY, "default"), JANE)
    world.clock.advance(timedelta(seconds=1))
    with pytest.raises(Problem, match="is frozen"):
        await world.freezes.verify_free(client.account, "new-order")


async def test_look_that_a_freeze_overtook_is_taken_again(world: World) -> None:
    """Rows that were read before a freeze was committed are not what is believed after it."""
    client = await world.client()
    read, go_on = asyncio.Event(), asyncio.Event()
    store = _Slow(world.store.freezes, read, go_on)
    freezes = Freezes(_Lending(world, store), world.store, world.clock)
    looking = asyncio.create_task(freezes.of_account(client.account))
    await read.wait()
    await freezes.freeze(record(world, FreezeKind.COMMUNITY, "default"), JANE)
    go_on.set()
    assert await looking is not None


class _Slow:
    """Reads at once and answers late, the first time."""

    def __init__(
        self,
        inner: Callable[[], Awaitable[Any]],
        read: asyncio.Event,
        go_on: asyncio.Event,
    ) -> None:
        self._inner, self._read, self._go_on = inner, read, go_on

    async def __call__(self) -> Any:
        found = await self._inner()
        if not self._read.is_set():
            self._read.set()
            await self._go_on.wait()
        return found


class _Lending:
    """The store of a world with another way to read freezes."""

    def __init__(self, world: World, freezes: Any) -> None:
        self._world = world
        self.freezes = freezes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.store, name)


async def test_store_that_cannot_be_read_freezes_everything(world: World) -> None:
    """Unsure means no: the question is not answered with yes."""
    client = await world.client()

    async def fail() -> Any:
        raise Unreachable("disk is failing")

    freezes = Freezes(_Lending(world, fail), world.store, world.clock)
    with pytest.raises(Unreachable):
        await freezes.verify_free(client.account, "new-order")


# ------------------------------------------------------------------------------ what it stops


async def test_new_accounts_are_refused(world: World) -> None:
    """Neither a frozen community nor a frozen key takes anybody in; others are."""
    await freeze(world, FreezeKind.EAB_KEY, "robot")
    with pytest.raises(Problem, match="external account binding key of this account"):
        await world.robot()
    await world.client()
    await freeze(world, FreezeKind.COMMUNITY, "default")
    with pytest.raises(Problem, match="issuance is frozen for community 'default'"):
        await world.client()
    await world.client("lab")


async def test_frozen_account_gives_nobody_its_key_and_keeps_its_contacts(world: World) -> None:
    """Whoever stole its key locks nobody out; to give it up is allowed."""
    client = await world.client()
    await freeze(world, FreezeKind.ACCOUNT, client.account.account_id)
    with pytest.raises(Problem, match="issuance is frozen for this account"):
        await world.accounts.update(
            client.account, AccountUpdate(contacts=("mailto:thief@evil.example",))
        )
    with pytest.raises(Problem, match="issuance is frozen for this account"):
        await world.key_changes.change(client.account, None)  # type: ignore[arg-type]
    unchanged = await world.accounts.update(client.account, AccountUpdate())
    assert unchanged == client.account
    ended = await world.accounts.update(client.account, AccountUpdate(deactivate=True))
    assert ended.status is AccountStatus.DEACTIVATED


async def test_order_under_way_is_not_finalized_and_is_after_the_freeze(world: World) -> None:
    """It stays ready and can be read; the same finalize passes once it is lifted."""
    client = await world.client()
    order = await client.ready(NAME)
    place = await freeze(world, FreezeKind.ACCOUNT, client.account.account_id)
    csr = make_csr(NAME)
    with pytest.raises(Problem, match="is frozen"):
        await client.finalize(order, csr)
    assert (await client.read(order)).status is OrderStatus.READY
    await world.freezes.unfreeze(place, JANE)
    assert (await client.finalize(order, csr)).status is OrderStatus.VALID


async def test_challenges_are_not_responded_to(world: World) -> None:
    """Nothing is looked at for who is frozen, so nothing is begun at a CA either."""
    client = await world.client()
    order = await client.order(NAME)
    (authorization,) = await client.authorizations(order)
    place = await freeze(world, FreezeKind.COMMUNITY, "default")
    with pytest.raises(Problem, match="is frozen"):
        await client.respond(authorization)
    assert (await client.read(order)).status is OrderStatus.PENDING
    await world.freezes.unfreeze(place, JANE)
    assert (await client.prove(order)).status is OrderStatus.READY


async def test_names_are_not_proved_ahead(tmp_path: Path) -> None:
    """A pre-authorization is refused as an order is."""
    settings = _with_pre_authorization()
    async with World(tmp_path, **settings) as world:
        client = await world.client()
        place = await freeze(world, FreezeKind.COMMUNITY, "default")
        name: Identifier = dns(NAME)
        with pytest.raises(Problem, match="is frozen"):
            await world.orders.pre_authorize(client.account, name)
        await world.freezes.unfreeze(place, JANE)
        assert (await world.orders.pre_authorize(client.account, name)).identifier == name


def _with_pre_authorization() -> dict[str, Any]:
    community = CommunitySettings(name="default", pre_authorization=timedelta(days=7))
    return {"communities": {"default": community}}


@pytest.mark.parametrize(
    ("kind", "subject"),
    [(FreezeKind.COMMUNITY, "default"), (FreezeKind.ACCOUNT, None), (FreezeKind.UPSTREAM, "ca")],
    ids=["community", "account", "upstream"],
)
async def test_finalized_order_waits_until_the_freeze_is_lifted(
    world: World, kind: FreezeKind, subject: str | None
) -> None:
    """The CA is not told to issue meanwhile, the client polls, and after it the order is valid."""
    client = await world.client()
    order = await client.ready(NAME)
    world.ca.is_away = True
    assert (await client.finalize(order)).status is OrderStatus.PROCESSING
    place = await freeze(world, kind, subject or client.account.account_id)
    world.ca.is_away = False
    await world.let_pass(timedelta(minutes=10))
    assert (await client.read(order)).status is OrderStatus.PROCESSING
    assert world.ca.accepted == 0
    await world.freezes.unfreeze(place, JANE)
    await world.settle()
    assert (await client.read(order)).status is OrderStatus.VALID


async def test_freeze_between_open_and_finalize_is_met(world: World) -> None:
    """An order that a CA took its time to make ready is not finalized after all."""
    client = await world.client()
    order = await client.ready(NAME)
    world.clock.advance(timedelta(seconds=6))  # what is remembered of it is believed no more
    stall = world.ca.stall("read_order")
    finalizing = asyncio.create_task(client.finalize(order))
    await stall.reached.wait()
    place = await freeze(world, FreezeKind.ACCOUNT, client.account.account_id)
    stall.release()
    await world.let_pass(timedelta(minutes=1))
    assert (await finalizing).status is OrderStatus.PROCESSING
    assert world.ca.accepted == 0
    await world.freezes.unfreeze(place, JANE)
    assert (await world.finish(order)).status is OrderStatus.VALID


@pytest.mark.parametrize("is_lost", [False, True], ids=["it-did-not-come", "its-answer-was-lost"])
async def test_finalize_that_may_have_come_is_not_sent_again_under_a_freeze(
    world: World, is_lost: bool
) -> None:
    """What came of it is fetched; what did not come is sent after the freeze, once."""
    client = await world.client()
    order = await client.ready(NAME)
    world.ca.fail("finalize", Unreachable("no answer"), after=is_lost)
    stall = world.ca.stall("finalize")
    finalizing = asyncio.create_task(client.finalize(order))
    await stall.reached.wait()
    place = await freeze(world, FreezeKind.ACCOUNT, client.account.account_id)
    stall.release()
    await finalizing
    await world.let_pass(timedelta(minutes=10))
    status = (await client.read(order)).status
    assert status is (OrderStatus.VALID if is_lost else OrderStatus.PROCESSING)
    assert world.ca.count("finalize") == 1
    await world.freezes.unfreeze(place, JANE)
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert world.ca.accepted == 1


async def test_what_a_ca_was_told_to_issue_is_fetched(world: World) -> None:
    """Its certificate is known here, so that it can be revoked: nothing of it is lost."""
    client = await world.client()
    world.ca.holds_back = True
    order = await client.ready(NAME)
    assert (await client.finalize(order)).status is OrderStatus.PROCESSING
    await freeze(world, FreezeKind.COMMUNITY, "default")
    world.ca.issue_held()
    ended = await world.finish(order)
    assert ended.status is OrderStatus.VALID
    (kept,) = await world.certificates()
    assert kept.order_id == order.order_id


async def test_reads_and_revocations_go_on(world: World) -> None:
    """Account, order and certificate are read, and the certificate is revoked at its CA."""
    client = await world.client()
    order = await client.issue(NAME)
    (kept,) = await world.certificates()
    for kind, subject in (
        (FreezeKind.COMMUNITY, "default"),
        (FreezeKind.ACCOUNT, client.account.account_id),
        (FreezeKind.UPSTREAM, "ca"),
    ):
        await freeze(world, kind, subject)
    assert (await client.read(order)).status is OrderStatus.VALID
    again = NewAccount(only_return_existing=True)
    found, is_new = await world.accounts.register("default", jwk_of(client.key), again, None)
    assert (found.account_id, is_new) == (client.account.account_id, False)
    await world.revocations.revoke(
        "default", Revocation(kept.leaf_der, 1), account=client.account, key=None
    )
    await world.settle()
    (gone,) = await world.certificates()
    assert gone.revoked_at is not None
    assert list(world.ca.revoked.values()) == [1]


# ---------------------------------------------------------------------------------- upstreams

TWO = POLICY.replace("upstreams: [{upstream: ca}]", "upstreams: [{upstream: ca}, {upstream: next}]")


async def test_next_upstream_takes_the_orders_of_a_frozen_one(world: World) -> None:
    """Where policy has another, a new order goes there."""
    world.upstreams["next"] = FakeUpstream(world.clock, "next")
    world.facts["next"] = default_facts("next")
    world.policies.set(TWO)
    await freeze(world, FreezeKind.UPSTREAM, "ca")
    client = await world.client()
    order = await client.issue(NAME)
    assert (order.status, order.upstream) == (OrderStatus.VALID, "next")
    assert world.ca.count("open_order") == 0


async def test_order_under_way_leaves_a_frozen_upstream(world: World) -> None:
    """One that waits for it goes on at the next one, at once."""
    world.upstreams["next"] = FakeUpstream(world.clock, "next")
    world.facts["next"] = default_facts("next")
    world.policies.set(TWO)
    client = await world.client()
    order = await client.ready(NAME)
    world.ca.is_away = True
    assert (await client.finalize(order)).status is OrderStatus.PROCESSING
    await freeze(world, FreezeKind.UPSTREAM, "ca")
    await world.let_pass(timedelta(seconds=10))
    ended = await world.finish(order)
    assert (ended.status, ended.upstream) == (OrderStatus.VALID, "next")


async def test_only_upstream_frozen_refuses_and_says_so(world: World) -> None:
    """Without another the order is not made; the client is told whom to ask."""
    await freeze(world, FreezeKind.UPSTREAM, "ca")
    client = await world.client()
    with pytest.raises(Problem, match=r"upstream 'ca' is frozen, ask pki@corp\.example") as caught:
        await client.order(NAME)
    assert caught.value.type is ProblemType.SERVER_INTERNAL


# -------------------------------------------------------------------------------------- nodes


async def test_frozen_node_is_not_renewed_and_is_after_the_freeze(tmp_path: Path) -> None:
    """Its node is not even asked for a key; lifted, it is looked at by the next sweep."""
    async with DeliveryWorld(tmp_path) as world:
        node, other = await world.node(), await world.node("web-02")
        place = await freeze(world, FreezeKind.NODE, node.record.node_id, name="web-01")
        await node.wants("www")
        await other.wants("next")
        assert await node.deliveries() == []
        managed = await node.managed()
        assert managed.fault is not None
        assert "issuance is frozen for this node, ask pki@corp.example" in managed.fault
        await other.work()
        assert set(other.installed) == {"next"}
        await world.freezes.unfreeze(place, JANE)
        assert await world.sweep() == 1
        await node.work()
        assert set(node.installed) == {"www"}


async def test_frozen_community_takes_no_new_node(tmp_path: Path) -> None:
    """One that is there renews its identity: it is to hear of revocations."""
    async with NodeWorld(tmp_path) as nodes:
        key = AgentKey()
        known = await nodes.join("web-01", key)
        place = await freeze(nodes.world, FreezeKind.COMMUNITY, "default")
        with pytest.raises(Problem, match="issuance is frozen for community 'default'"):
            await nodes.join("web-02")
        assert await nodes.store.find_node("web-02") is None
        await nodes.joining.renew(known, key.csr_der)
        await nodes.world.freezes.unfreeze(place, JANE)
        assert (await nodes.join("web-02")).name == "web-02"
