"""What an order replaces: whose certificate, how often, and which CA hears of it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.adoption_ports import AdoptedCertificate
from broker.issuance.errors import AlreadyReplaced, Refused, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.ports import Attached
from broker.issuance.records import OrderRecord, UpstreamAccountRecord
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from tests.fakes.world import Client, World

NAME = "www.example.com"
UNKNOWN = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
DAY = timedelta(days=1)


async def registered(world: World, *, at: timedelta = timedelta()) -> None:
    """Let us have an account at the CA, registered *at* from now."""
    now = world.clock.now()
    record = UpstreamAccountRecord(
        upstream="ca",
        community="default",
        directory_url="https://ca.example/dir",
        account_url="https://ca.example/account/1",
        key_id="account-ca@default",
        thumbprint="thumb",
        registered_at=now + at,
    )
    event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=now)
    await world.store.save_upstream_account(record, event)


async def issued(world: World, client: Client, *names: str) -> tuple[OrderRecord, str]:
    """Return an order with its certificate's CertID."""
    order = await client.issue(*(names or (NAME,)))
    found = await world.store.find_certificate(order.certificate_id or "")
    assert found is not None
    assert found.cert_id is not None
    return order, found.cert_id


async def test_successor_shows_what_it_replaces_and_the_ca_is_told(world: World) -> None:
    """The same account of ours ordered both."""
    await registered(world)
    client = await world.client()
    _, cert_id = await issued(world, client)
    order = await client.issue(NAME, replaces=cert_id)
    assert (order.replaces, order.replaces_upstream) == (cert_id, "ca")
    assert [each.request.replaces for each in world.ca.issued] == [None, cert_id]


async def test_order_that_names_nothing_replaces_nothing(world: World) -> None:
    """The twin."""
    client = await world.client()
    order = await client.issue(NAME)
    assert (order.replaces, order.replaces_upstream) == (None, None)


@pytest.mark.parametrize("account", [None, DAY], ids=["none", "newer than the certificate"])
async def test_ca_is_not_told_where_another_account_ordered_the_predecessor(
    world: World, account: timedelta | None
) -> None:
    """It would answer that the certificate is none of ours."""
    client = await world.client()
    _, cert_id = await issued(world, client)
    if account is not None:
        await registered(world, at=account)
    order = await client.issue(NAME, replaces=cert_id)
    assert (order.replaces, order.replaces_upstream) == (cert_id, None)
    assert world.ca.issued[1].request.replaces is None


async def test_other_ca_is_not_told(world: World) -> None:
    """The predecessor came from elsewhere."""
    await registered(world)
    client = await world.client()
    _, cert_id = await issued(world, client)
    await client.issue(NAME, profile="private", replaces=cert_id)
    assert world.local.issued[0].request.replaces is None


async def test_unknown_certificate_is_taken_and_means_nothing(world: World) -> None:
    """A client that comes from another CA says what it had there."""
    client = await world.client()
    order = await client.issue(NAME, replaces=UNKNOWN)
    assert (order.replaces, order.replaces_upstream) == (UNKNOWN, None)


async def test_certificate_of_another_account_is_as_good_as_unknown(world: World) -> None:
    """Nobody learns what others have, and nobody spoils their renewal."""
    await registered(world)
    owner, other = await world.client(), await world.client()
    _, cert_id = await issued(world, owner)
    taken = await other.issue(NAME, replaces=cert_id)
    assert taken.replaces_upstream is None
    own = await owner.issue(NAME, replaces=cert_id)
    assert own.replaces_upstream == "ca"


async def test_certificate_that_shares_no_name_is_refused(world: World) -> None:
    """RFC 9773 §5; one name in common is enough."""
    client = await world.client()
    _, cert_id = await issued(world, client, NAME, "b.example.com")
    with pytest.raises(Problem) as caught:
        await client.order("c.example.com", replaces=cert_id)
    assert caught.value.type is ProblemType.MALFORMED
    assert (await client.order("b.example.com", replaces=cert_id)).replaces == cert_id


async def test_second_successor_is_refused_until_the_first_has_failed(world: World) -> None:
    """409 alreadyReplaced, whether the first is pending or valid; an invalid one makes room."""
    client = await world.client()
    _, cert_id = await issued(world, client)
    first = await client.order(NAME, replaces=cert_id)
    with pytest.raises(Problem) as caught:
        await client.order(NAME, replaces=cert_id)
    assert caught.value.type is ProblemType.ALREADY_REPLACED
    assert caught.value.status == 409
    assert (await client.order(NAME)).replaces is None, "without it the order is made"
    (authorization,) = await client.authorizations(first)
    await world.authorizations.deactivate(client.account, authorization.authorization_id)
    assert (await client.read(first)).status is OrderStatus.INVALID
    again = await client.issue(NAME, replaces=cert_id)
    with pytest.raises(Problem, match="replaced by another order"):
        await client.order(NAME, replaces=cert_id)
    assert again.replaces == cert_id


async def test_successor_whose_time_has_passed_makes_room(world: World) -> None:
    """A client that gave up comes again the next day."""
    client = await world.client()
    _, cert_id = await issued(world, client)
    await client.order(NAME, replaces=cert_id)
    await world.let_pass(DAY)
    assert (await client.order(NAME, replaces=cert_id)).status is OrderStatus.PENDING


async def test_two_successors_at_once_have_one_winner(world: World) -> None:
    """The store decides."""
    client = await world.client()
    _, cert_id = await issued(world, client)
    first = await client.order(NAME)
    second = await client.order(NAME)
    for order, is_free in ((first, True), (second, False)):
        copy = replace(
            order, order_id=f"{order.order_id}-x", replaces=cert_id, authorization_ids=()
        )
        if is_free:
            await world.store.create_order(copy, [], Attached())
        else:
            with pytest.raises(AlreadyReplaced):
                await world.store.create_order(copy, [], Attached())


async def test_work_that_was_prepared_for_one_successor_is_not_taken_by_another(
    world: World,
) -> None:
    """Else the CA would hear that a certificate is replaced by one that does not replace it."""
    await registered(world)
    client = await world.client()
    _, cert_id = await issued(world, client)
    plain = await client.ready(NAME)
    successor = await client.ready(NAME, replaces=cert_id)
    assert (await client.finalize(plain)).status is OrderStatus.VALID
    assert (await client.finalize(successor)).status is OrderStatus.VALID
    asked = [each.request.replaces for each in world.ca.issued]
    assert asked == [None, None, cert_id]


@pytest.mark.parametrize(
    "problem",
    [
        Problem(ProblemType.ALREADY_REPLACED, "cert has been replaced", status=409),
        Problem(ProblemType.MALFORMED, 'parsing "replaces": unknown issuer'),
    ],
    ids=["already replaced", "malformed"],
)
async def test_ca_that_refuses_what_is_replaced_is_asked_once_without(
    world: World, problem: Problem
) -> None:
    """And an event tells of it; the client's order still shows what it said."""
    await registered(world)
    client = await world.client()
    _, cert_id = await issued(world, client)
    world.ca.fail("open_order", Refused(problem))
    order = await client.issue(NAME, replaces=cert_id)
    assert order.replaces == cert_id
    assert [each.request.replaces for each in world.ca.issued] == [None, None]
    (event,) = await world.events(EventKind.REPLACES_DROPPED)
    assert event.data["replaces"] == cert_id


async def test_ca_that_fails_over_what_is_replaced_is_asked_without(world: World) -> None:
    """At the second try: a CA that does not find the certificate may answer 500 for ever."""
    await registered(world)
    client = await world.client()
    _, cert_id = await issued(world, client)
    world.ca.fail("open_order", Unreachable("answered 500", is_fault=True))
    order = await client.ready(NAME, replaces=cert_id)
    done = await world.finish(await client.finalize(order))
    assert (done.status, done.replaces) == (OrderStatus.VALID, cert_id)
    assert [each.request.replaces for each in world.ca.issued] == [None, None]
    (event,) = await world.events(EventKind.REPLACES_DROPPED)
    assert event.data == {**event.data, "type": "serverInternal", "replaces": cert_id}


async def test_ca_that_does_not_answer_is_asked_the_same_again(world: World) -> None:
    """Its silence says nothing about what is replaced."""
    await registered(world)
    client = await world.client()
    _, cert_id = await issued(world, client)
    world.ca.fail("open_order", Unreachable("no answer"))
    order = await client.ready(NAME, replaces=cert_id)
    done = await world.finish(await client.finalize(order))
    assert done.status is OrderStatus.VALID
    assert [each.request.replaces for each in world.ca.issued] == [None, cert_id]
    assert await world.count(EventKind.REPLACES_DROPPED) == 0


async def test_other_refusals_are_refusals(world: World) -> None:
    """Asked once, and told to the client."""
    await registered(world)
    client = await world.client()
    _, cert_id = await issued(world, client)
    refusal = Refused(Problem(ProblemType.REJECTED_IDENTIFIER, "not this name, replaces or not"))
    world.ca.fail("open_order", refusal, times=2)
    order = await client.ready(NAME, replaces=cert_id)
    before = world.ca.count("open_order")
    done = await world.finish(await client.finalize(order))
    assert done.status is OrderStatus.INVALID
    assert world.ca.count("open_order") == before + 1
    assert await world.count(EventKind.REPLACES_DROPPED) == 0


async def test_lost_answer_is_sought_with_what_is_replaced(world: World) -> None:
    """The order that the CA made is found again, and is the only one."""
    await registered(world)
    client = await world.client()
    _, cert_id = await issued(world, client)
    world.ca.fail("open_order", Unreachable("lost"), after=True)
    order = await client.finalize(await client.ready(NAME, replaces=cert_id))
    assert (await world.finish(order)).status is OrderStatus.VALID
    assert [each.request.replaces for each in world.ca.issued] == [None, cert_id]
    assert world.ca.unfinalized == []


async def test_coalesced_order_of_another_successor_is_not_taken(world: World) -> None:
    """A CA that hands one pending order to all: the one that replaces something is withdrawn."""
    await registered(world)
    client = await world.client()
    _, cert_id = await issued(world, client)
    world.ca.is_coalescing = True
    await client.ready(NAME, replaces=cert_id)
    plain = await client.ready(NAME)
    done = await world.finish(await client.finalize(plain))
    assert done.status is OrderStatus.VALID
    taken = world.ca.orders[(await _url(world, done))]
    assert taken.request.replaces is None


async def _url(world: World, order: OrderRecord) -> str:
    work = await world.store.work_of_order(order.order_id)
    assert work is not None
    return work.order_url or ""


async def adopted(world: World, account_url: str, *names: str, community: str = "default") -> None:
    """Have a certificate be known that came with an account."""
    certificate = AdoptedCertificate(
        cert_id=UNKNOWN,
        upstream="ca",
        community=community,
        account_url=account_url,
        identifiers=tuple(Identifier(IdentifierType.DNS, name) for name in names),
        not_after=world.clock.now() + DAY,
    )
    event = Event(kind=EventKind.CERTIFICATES_ADOPTED, at=world.clock.now())
    await world.store.keep_adopted_certificates([certificate], event)


async def test_certificate_that_came_with_an_adopted_account_is_told(world: World) -> None:
    """Whoever may have its name renews it: the CA counts a renewal."""
    await registered(world)
    await adopted(world, "https://ca.example/account/1", NAME, "other.example.com")
    client = await world.client()
    order = await client.issue(NAME, replaces=UNKNOWN)
    assert (order.replaces, order.replaces_upstream) == (UNKNOWN, "ca")
    assert world.ca.issued[0].request.replaces == UNKNOWN


@pytest.mark.parametrize(
    ("account_url", "name", "community"),
    [
        ("https://ca.example/account/1", "other.example.com", "default"),
        ("https://ca.example/account/0", NAME, "default"),
        ("https://ca.example/account/1", NAME, "lab"),
    ],
    ids=["no-name-in-common", "another-account", "another-community"],
)
async def test_other_adopted_certificates_are_as_good_as_unknown(
    world: World, account_url: str, name: str, community: str
) -> None:
    """Nobody has another one's certificate counted as replaced, nor learns that it is known."""
    await registered(world)
    await adopted(world, account_url, name, community=community)
    client = await world.client()
    order = await client.issue(NAME, replaces=UNKNOWN)
    assert (order.replaces, order.replaces_upstream) == (UNKNOWN, None)


async def test_adopted_certificate_means_nothing_without_its_account(world: World) -> None:
    """The account was forgotten since."""
    await adopted(world, "https://ca.example/account/1", NAME)
    client = await world.client()
    order = await client.issue(NAME, replaces=UNKNOWN)
    assert order.replaces_upstream is None
