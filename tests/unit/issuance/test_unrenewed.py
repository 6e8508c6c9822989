"""Clients that renew by themselves: who has not, and should have, is told of; nobody else."""

from datetime import timedelta

import pytest

from broker.issuance.events import SYSTEM, EventKind
from broker.issuance.renewal_ports import RenewalAnswer
from broker.issuance.unrenewed import BATCH, UnrenewedWatch
from broker.protocol.renewal import RenewalInfo, RenewalWindow
from tests.fakes.delivery_world import DeliveryWorld

NAME = "www.example.com"
DAY = timedelta(days=1)


@pytest.fixture
def watch(hosts: DeliveryWorld) -> UnrenewedWatch:
    """A watch over the clients of a world."""
    return UnrenewedWatch(hosts.store, hosts.policies, hosts.clock)


async def pass_looking(hosts: DeliveryWorld, watch: UnrenewedWatch, days: int) -> None:
    """Let days pass, with a look at each."""
    for _ in range(days):
        await hosts.let_pass(DAY)
        await watch.run()


async def test_certificate_that_is_not_renewed_is_told_once(
    hosts: DeliveryWorld, watch: UnrenewedWatch
) -> None:
    """After its window and some patience, well before its end; forgotten when it has ended."""
    client = await hosts.client()
    order = await client.issue(NAME)
    await pass_looking(hosts, watch, 62)
    assert await hosts.count(EventKind.CERTIFICATE_NOT_RENEWED) == 0
    await pass_looking(hosts, watch, 22)
    (event,) = await hosts.events(EventKind.CERTIFICATE_NOT_RENEWED)
    assert event.order_id == order.order_id
    assert event.data["identifiers"] == [f"dns:{NAME}"] or NAME in str(event.data["identifiers"])
    (shown,) = await hosts.store.unrenewed(10)
    assert shown.certificate_id == order.certificate_id
    assert shown.not_after - shown.should_by > 4 * DAY
    await pass_looking(hosts, watch, 10)
    assert await hosts.store.count_unrenewed() == 0
    assert await hosts.count(EventKind.CERTIFICATE_NOT_RENEWED) == 1


async def test_client_that_renews_at_two_thirds_is_never_told_of(
    hosts: DeliveryWorld, watch: UnrenewedWatch
) -> None:
    """Also one that knows no windows: the same names, the same account, nothing replaced."""
    client = await hosts.client()
    await client.issue(NAME)
    for _ in range(3):
        await pass_looking(hosts, watch, 60)
        await client.issue(NAME)
    assert await hosts.count(EventKind.CERTIFICATE_NOT_RENEWED) == 0


@pytest.mark.parametrize("way", ["replaces", "revoked", "node", "closed"])
async def test_no_false_alarm(hosts: DeliveryWorld, watch: UnrenewedWatch, way: str) -> None:
    """Replaced by one with further names, revoked, a node's own, or of an account that is closed:
    nobody has to renew it."""
    client = await hosts.client()
    if way == "node":
        await (await hosts.node()).settled("www")
        (certificate,) = await hosts.certificates()
    else:
        order = await client.issue(NAME)
        (certificate,) = await hosts.certificates()
        if way == "replaces":
            await client.issue(NAME, "b.example.com", replaces=certificate.cert_id)
        elif way == "revoked":
            await client.revoke(await client.leaf_der(order))
        else:
            await hosts.accounts.deactivate(client.account, SYSTEM)
    await pass_looking(hosts, watch, 84)
    told = await hosts.events(EventKind.CERTIFICATE_NOT_RENEWED)
    assert certificate.certificate_id not in [event.data["certificate_id"] for event in told]


async def test_other_names_are_no_successor(hosts: DeliveryWorld, watch: UnrenewedWatch) -> None:
    """The negative's twin: a younger one for another name helps nothing."""
    client = await hosts.client()
    await client.issue(NAME)
    await pass_looking(hosts, watch, 60)
    await client.issue("b.example.com")
    await pass_looking(hosts, watch, 24)
    assert await hosts.count(EventKind.CERTIFICATE_NOT_RENEWED) == 1


async def test_one_that_is_renewed_after_all_is_forgotten(
    hosts: DeliveryWorld, watch: UnrenewedWatch
) -> None:
    """The list shows who has to act."""
    client = await hosts.client()
    await client.issue(NAME)
    await pass_looking(hosts, watch, 84)
    assert await hosts.store.count_unrenewed() == 1
    await client.issue(NAME)
    await pass_looking(hosts, watch, 1)
    assert await hosts.store.count_unrenewed() == 0


async def test_window_that_moved_earlier_shortens_the_patience(
    hosts: DeliveryWorld, watch: UnrenewedWatch
) -> None:
    """A CA that wants it renewed today is not waited for two months."""
    client = await hosts.client()
    order = await client.issue(NAME)
    now = hosts.clock.now()
    info = RenewalInfo(window=RenewalWindow(now + DAY, now + 2 * DAY))
    hosts.ca.renewals = lambda _: RenewalAnswer(info=info, retry_at=None)
    await hosts.renewing.watch.refresh(order.certificate_id or "")
    await watch.hurry(order.certificate_id or "")
    await pass_looking(hosts, watch, 2)
    assert await hosts.count(EventKind.CERTIFICATE_NOT_RENEWED) == 0
    await pass_looking(hosts, watch, 2)
    assert await hosts.count(EventKind.CERTIFICATE_NOT_RENEWED) == 1


async def test_nothing_due_is_one_question(hosts: DeliveryWorld, watch: UnrenewedWatch) -> None:
    """A sweep costs what is due."""
    await (await hosts.client()).issue(NAME)
    assert await watch.run() == 0
    assert BATCH == 200
