"""The broker's own certificate from an ACME upstream: an order like anyone's, one at a time."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from broker.issuance.errors import Broken
from broker.issuance.events import EventKind
from broker.issuance.own_certificate import FIRST_PAUSE, LONGEST_PAUSE, OwnCertificates, OwnOrder
from broker.protocol.problems import Problem, ProblemType
from tests.fakes.fake_upstream import FakeUpstream
from tests.fakes.world import World, dns, leaf_of, make_csr

HOST = "acme.corp.example"


class Place:
    """A world whose broker orders for itself."""

    def __init__(self, world: World) -> None:
        self.world = world

    @property
    def ca(self) -> FakeUpstream:
        """The CA."""
        ca = self.world.upstreams["ca"]
        assert isinstance(ca, FakeUpstream)
        return ca

    def own(self, upstream: str = "ca") -> OwnCertificates:
        """Return what a process makes at its start."""
        world, store = self.world, self.world.store
        return OwnCertificates(
            upstream=upstream,
            community="default",
            names=(dns(HOST),),
            accounts=store,
            orders=store,
            certificates=store,
            renewals=store,
            log=store,
            planner=world.planner,
            policies=world.policies,
            dispatcher=world.dispatcher,
            clock=world.clock,
        )

    async def latest(self) -> OwnOrder:
        """Return the newest own order."""
        found = await self.own().latest()
        assert found is not None
        return found


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    """Nothing is ordered yet."""
    async with World(tmp_path) as world:
        yield Place(world)


async def test_certificate_is_ordered_for_a_name_that_no_rule_allows(place: Place) -> None:
    """Configuration names the broker; the cap is that of policy, and the gate the same."""
    assert await place.own().latest() is None
    await place.own().begin(make_csr(HOST))
    await place.world.settle()
    done = await place.latest()
    assert done.chain_pem is not None
    leaf = leaf_of(done.chain_pem)
    (order,) = await place.world.store.list_orders(
        community=None, account_id=None, status=None, after=None, limit=9
    )
    cap = timedelta(seconds=order.cap_seconds)
    assert leaf.not_valid_after_utc <= place.world.clock.now() + cap
    assert await place.world.count(EventKind.CERTIFICATE_ISSUED) == 1


async def test_order_is_found_again_after_a_restart(place: Place) -> None:
    """The CA is away; the next process goes on with it and orders no second one."""
    place.ca.is_away = True
    await place.own().begin(make_csr(HOST))
    await place.world.settle()
    before = await place.latest()
    assert (before.chain_pem, before.refusal) == (None, None)
    await place.world.restart()
    assert (await place.latest()).order_id == before.order_id
    place.ca.is_away = False
    await place.world.let_pass(timedelta(minutes=1))
    await place.world.dispatcher.run_due()
    await place.world.settle()
    done = await place.latest()
    assert done.order_id == before.order_id
    assert done.chain_pem is not None
    assert len(place.ca.issued) == 1


async def test_pauses_after_refusals_grow(place: Place) -> None:
    """So that a CA's limit on failures is never met."""
    place.ca.refuses_names = Problem(ProblemType.REJECTED_IDENTIFIER, "not yours")
    pauses = []
    for _ in range(9):
        await place.own().begin(make_csr(HOST))
        begun = place.world.clock.now()
        await place.world.settle()
        refused = await place.latest()
        assert refused.refusal is not None
        assert "not yours" in refused.refusal
        assert refused.retry_at is not None
        pauses.append(refused.retry_at - begun)
        await place.world.let_pass(timedelta(seconds=1))
    assert pauses[0] == FIRST_PAUSE
    assert pauses[1] == 2 * FIRST_PAUSE
    assert pauses[-1] == LONGEST_PAUSE


async def test_certificate_that_breaks_a_rule_is_withheld(place: Place) -> None:
    """The broker is held to the gate like everybody else, and has it revoked."""
    place.ca.misissue = lambda leaf: replace(leaf, not_after=leaf.not_after + timedelta(days=900))
    await place.own().begin(make_csr(HOST))
    await place.world.settle()
    refused = await place.latest()
    assert refused.chain_pem is None
    assert refused.refusal is not None
    assert await place.world.count(EventKind.CERTIFICATE_WITHHELD) == 1


async def test_upstream_that_policy_never_takes_is_told(place: Place) -> None:
    """No profile leads there."""
    with pytest.raises(Broken, match="no profile of its community names that upstream"):
        await place.own("other").begin(make_csr(HOST))


async def test_account_of_own_orders_is_one_and_nobodys(place: Place) -> None:
    """It is made once, and no requester holds its key."""
    for _ in range(2):
        await place.own().begin(make_csr(HOST))
        await place.world.settle()
    accounts = await place.world.store.list_accounts(community=None, after=None, limit=9)
    assert len(accounts) == 1
    assert accounts[0].eab_key_id is None
