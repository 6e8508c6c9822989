"""A delivery's order: the same journey as every order, under the node's own account."""

import asyncio
from datetime import datetime, timedelta

from broker.issuance.errors import Unreachable
from broker.issuance.events import EventKind
from broker.issuance.managed_ports import NodeOrders
from broker.issuance.node_ports import DeliveryStage, NodeRecord
from broker.issuance.ordering import MAX_REASON_CHARS, order_id_of
from broker.issuance.records import AccountRecord, OrderRecord
from broker.policy.published_limits import LimitPer, PublishedLimit
from broker.policy.units import Rate
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import NewOrder
from broker.protocol.resources import AccountStatus, OrderStatus
from tests.fakes.delivery_world import DeliveryWorld
from tests.fakes.interruptions import Cut, Cutting
from tests.fakes.world import Client, new_key

PROVED_POLICY = (
    "    upstreams: [{upstream: ca}]\n",
    "    upstreams: [{upstream: ca}]\n    on_nodes: {challenges: [http-01]}\n",
)


class Prover:
    """Has a node answer challenges, as a test says."""

    def __init__(self, hosts: DeliveryWorld) -> None:
        self._hosts = hosts
        self.asked: list[str] = []
        self.outcome: Exception | None = None
        self.is_answering = True

    async def prove(self, node: NodeRecord, account: AccountRecord, order: OrderRecord) -> None:
        """See the port."""
        self.asked.append(order.order_id)
        if self.outcome is not None:
            raise self.outcome
        if self.is_answering:
            client = Client(self._hosts, account, new_key())
            for authorization in await client.authorizations(order):
                await client.respond(authorization)


async def test_orders_id_follows_from_the_deliverys(hosts: DeliveryWorld) -> None:
    """It is like any other, and nobody who does not know the delivery can tell it."""
    node = await hosts.node()
    await node.settled("www")
    (delivery,) = await node.deliveries()
    assert delivery.order_id == order_id_of(delivery.delivery_id)
    assert len(delivery.order_id) == 32


async def test_order_that_was_made_before_a_crash_is_found_again(hosts: DeliveryWorld) -> None:
    """One delivery has one order."""
    node = await hosts.node()
    await node.wants("www")
    await node.read()
    number = hosts.traffic.seen("store.create_order")
    hosts.traffic.cutting = Cutting("store.create_order", number + 1, Cut.AFTER)
    going = asyncio.ensure_future(node.answer(node.inbox[0]))
    await hosts.traffic.is_cut.wait()
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    await hosts.restart()
    await hosts.settle()
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN
    assert await hosts.count(EventKind.ORDER_CREATED) == 1


async def test_failed_successor_is_followed_by_one_that_replaces_nothing(
    hosts: DeliveryWorld,
) -> None:
    """The certificate before has a successor already, which never came to be served."""
    node = await hosts.node()
    await node.settled("www")
    managed = await node.managed()
    node.ends = "restored"
    await hosts.deliveries.asking.begin(managed.managed_id, reason="asked")
    await node.work()
    assert await node.stage() is DeliveryStage.RESTORED
    node.ends = "seen"
    await hosts.let_pass(timedelta(minutes=2))
    await hosts.deliveries.asking.begin(managed.managed_id, reason="asked")
    await node.work()
    last, failed, _ = await node.deliveries()
    assert (last.stage, failed.stage) == (DeliveryStage.SEEN, DeliveryStage.RESTORED)
    order = await hosts.store.load_order(last.order_id or "")
    assert order is not None
    assert order.replaces is None


async def test_limit_of_the_upstream_puts_it_off_and_counts_no_failure(
    hosts: DeliveryWorld,
) -> None:
    """Until the time that was named."""
    node = await hosts.node()
    calls: list[datetime] = []

    class Limited(NodeOrders):
        """Orders that are over a limit once."""

        def __init__(self, orders: NodeOrders) -> None:
            self._orders = orders

        async def create(
            self, account: AccountRecord, request: NewOrder, *, order_id: str | None = None
        ) -> OrderRecord:
            calls.append(hosts.clock.now())
            if len(calls) == 1:
                raise Problem(
                    ProblemType.RATE_LIMITED, "bucket is empty", retry_after=timedelta(minutes=7)
                )
            return await self._orders.create(account, request, order_id=order_id)

        async def finalize(
            self, account: AccountRecord, order_id: str, csr_der: bytes
        ) -> OrderRecord:
            return await self._orders.finalize(account, order_id, csr_der)

    hosts.node_orders = Limited
    await hosts.restart()
    await node.wants("www")
    await node.work()
    assert await node.stage() is DeliveryStage.ORDERED
    await hosts.let_pass(timedelta(minutes=8))
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN
    assert calls[1] - calls[0] == timedelta(minutes=7)
    assert (await node.managed()).attempts == 0


async def test_account_that_was_closed_ends_it(hosts: DeliveryWorld) -> None:
    """What the node asked for before is not ordered after."""
    node = await hosts.node()
    await node.wants("www")
    await node.read()
    account = await hosts.store.find_account(node.record.account_id)
    assert account is not None
    (event,) = await hosts.events(EventKind.NODE_ENROLLED)
    await hosts.store.update_account(
        account.account_id, expected=AccountStatus.VALID, status=AccountStatus.DEACTIVATED,
        contacts=None, event=event,
    )  # fmt: skip
    await node.answer(node.inbox.pop())
    assert await node.stage() is DeliveryStage.FAILED
    assert await hosts.count(EventKind.ORDER_CREATED) == 0


async def test_policy_that_changed_meanwhile_refuses_it(hosts: DeliveryWorld) -> None:
    """The name was taken from the grant between the question and the order."""
    node = await hosts.node()
    await node.wants("www")
    await node.read()
    hosts.policies.change('"**.robots.example.com"', '"**.androids.example.com"')
    await node.answer(node.inbox.pop())
    assert await node.stage() is DeliveryStage.FAILED
    (told,) = await node.read()
    assert told.kind == "refused"


async def test_ca_that_is_away_is_waited_for(hosts: DeliveryWorld) -> None:
    """No answer is no end."""
    node = await hosts.node()
    node.profile = "server"
    hosts.ca.is_away = True
    await node.wants("www")
    await node.work()
    assert await node.stage() is DeliveryStage.ORDERED
    await hosts.let_pass(timedelta(minutes=5))
    assert await node.stage() is DeliveryStage.ORDERED
    hosts.ca.is_away = False
    await hosts.let_pass(timedelta(minutes=2))
    await node.work()
    assert await node.stage() is DeliveryStage.SEEN
    assert await hosts.count(EventKind.DELIVERY_FAILED) == 0


async def test_long_reason_is_told_once_as_well(hosts: DeliveryWorld) -> None:
    """It is kept cut off, and compared as it is kept."""
    node = await hosts.node()
    node.profile = "server"
    hosts.ca.is_away = True
    hosts.ca.name = "a" * 2 * MAX_REASON_CHARS
    await node.wants("www")
    await node.work()
    await hosts.let_pass(timedelta(minutes=1))
    (told,) = [one for one in await node.read() if one.kind == "waits"]
    assert len(str(told.body["reason"])) == MAX_REASON_CHARS
    await hosts.let_pass(timedelta(minutes=5))
    assert [one for one in await node.read() if one.kind == "waits"] == []


async def test_node_is_told_what_its_order_waits_for(hosts: DeliveryWorld) -> None:
    """Once for each reason, so that whoever looks at a pod that does not start sees why."""
    node = await hosts.node()
    node.profile = "server"
    hosts.ca.is_away = True
    await node.wants("www")
    await node.work()
    await hosts.let_pass(timedelta(minutes=5))
    told = [one for one in await node.read() if one.kind == "waits"]
    assert [str(one.body["reason"]).partition(":")[0] for one in told] == ["its order waits"]
    (delivery,) = await node.deliveries()
    assert delivery.note == told[0].body["reason"]
    hosts.ca.is_away = False
    await hosts.let_pass(timedelta(minutes=2))
    await node.work()
    (delivery,) = await node.deliveries()
    assert (delivery.stage, delivery.note) == (DeliveryStage.SEEN, None)


async def test_node_is_told_which_limit_its_order_waits_for(hosts: DeliveryWorld) -> None:
    """The figure is the limit's; the time that is left is another each minute and no news."""
    limit = PublishedLimit(per=LimitPer.ACCOUNT, rate=Rate(1, timedelta(days=7)))
    hosts.limits["ca"] = hosts.limits["local"] = (limit,)
    first, second = await hosts.node(), await hosts.node("web-02")
    for node in (first, second):
        await node.wants("www")
        await node.work()
    (delivery,) = await second.deliveries()
    assert delivery.note is not None
    assert "limited to 1/7d" in delivery.note
    await hosts.let_pass(timedelta(days=1))
    assert [one.kind for one in await second.read()] == []
    assert await second.deliveries() == [delivery]
    assert delivery.stage is DeliveryStage.ORDERED


async def test_names_are_proved_at_the_node_where_policy_says_so(hosts: DeliveryWorld) -> None:
    """Nothing was granted: the node answered, the broker looked, and the order went on."""
    hosts.policies.change(*PROVED_POLICY)
    prover = hosts.challenges = Prover(hosts)
    await hosts.restart()
    node = await hosts.node()
    node.profile = "server"
    await node.settled("www", "www.example.com")
    assert len(prover.asked) >= 1
    (delivery,) = await node.deliveries()
    order = await hosts.store.load_order(delivery.order_id or "")
    assert order is not None
    assert order.status is OrderStatus.VALID
    assert len(await hosts.events(EventKind.CHALLENGE_VALID)) == 1


async def test_node_that_cannot_be_asked_for_proof_is_asked_later(hosts: DeliveryWorld) -> None:
    """And a name that it cannot prove ends the delivery."""
    hosts.policies.change(*PROVED_POLICY)
    prover = hosts.challenges = Prover(hosts)
    await hosts.restart()
    prover.outcome = Unreachable("node is away")
    node = await hosts.node()
    node.profile = "server"
    await node.wants("www", "www.example.com")
    await node.work()
    assert await node.stage() is DeliveryStage.ORDERED
    prover.outcome = Problem(ProblemType.UNAUTHORIZED, "it cannot be proved so")
    await hosts.let_pass(timedelta(minutes=1))
    assert await node.stage() is DeliveryStage.FAILED


async def test_failed_challenge_ends_it_as_soon_as_it_is_known(hosts: DeliveryWorld) -> None:
    """The order is invalid then, and its problem is what people read."""
    hosts.policies.change(*PROVED_POLICY)
    hosts.challenges = Prover(hosts)
    await hosts.restart()
    hosts.validator.wrong.add("www.example.com")
    node = await hosts.node()
    node.profile = "server"
    await node.wants("www", "www.example.com")
    await node.work()
    await hosts.let_pass(timedelta(minutes=10))
    failed = (await node.deliveries())[-1]
    assert failed.stage is DeliveryStage.FAILED
    assert "www.example.com" in (failed.note or "")
