"""Certificates that are longer than their cap: accepted where policy says so, then replaced."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.issuance.events import EventKind
from broker.issuance.records import CertificateRecord, JobKind, OrderRecord
from broker.issuance.renewal_ports import RetirementRecord, RetirementStatus
from broker.protocol.problems import Problem
from broker.protocol.resources import OrderStatus
from tests.fakes.fake_policies import POLICY
from tests.fakes.fake_upstream import Leaf
from tests.fakes.world import Client, World, default_facts

NAME = "www.example.com"
DAY = timedelta(days=1)
CAP = 47 * DAY


def retiring(world: World, rule: str = "{grace: 2d}", *, cap: str = "47d") -> None:
    """Let the CA issue 90 days whatever it is asked, and policy retire them after 47."""
    world.facts["ca"] = replace(default_facts("ca"), honours_not_after=False)
    world.ca.honours_not_after = False
    policy = POLICY.replace("cap: 90d", f"cap: {cap}")
    policy = policy.replace("[{upstream: ca}]", f"[{{upstream: ca, retire: {rule}}}]")
    policy = policy.replace("{upstream: ca, profile: short}", "{upstream: ca}")
    world.policies.set(policy)


async def issued(world: World, client: Client, *names: str, **how: str) -> CertificateRecord:
    """Return a certificate that was issued just now and fetched by nobody yet."""
    order = await client.issue(*(names or (NAME,)), **how)
    found = await world.store.find_certificate(order.certificate_id or "")
    assert found is not None
    return found


async def fetch(world: World, client: Client, found: CertificateRecord) -> None:
    """Download it: from now on it is in use."""
    await world.renewing.handover.certificate(client.account, found.certificate_id)


async def retirement(world: World, found: CertificateRecord) -> RetirementRecord:
    """Return how a certificate's retirement stands."""
    record = await world.store.find_retirement(found.certificate_id)
    assert record is not None
    return record


async def pass_days(world: World, days: float) -> None:
    """Let days pass, with the sweep of due jobs at their end."""
    await world.let_pass(days * DAY)
    await world.dispatcher.run_due()
    await world.settle()


def is_revoked(world: World, found: CertificateRecord) -> bool:
    """Tell whether the CA has revoked it."""
    return world.ca.revoked.get(found.fingerprint) == 4


async def test_without_the_rule_the_order_is_refused(world: World) -> None:
    """It is never a default."""
    retiring(world)
    world.policies.set(POLICY.replace("cap: 90d", "cap: 47d"))
    client = await world.client()
    with pytest.raises(Problem, match="past the 47d cap"):
        await client.order(NAME)


async def test_longer_certificate_is_accepted_and_shown_with_its_date(world: World) -> None:
    """Never as a cap: the facts of the decision name none."""
    retiring(world)
    client = await world.client()
    found = await issued(world, client)
    assert found.is_released
    assert found.not_after - found.received_at > CAP
    order = await world.store.load_order(found.order_id)
    assert order is not None
    assert order.decision["lever"] == "retire"
    assert order.decision["retires_after"] == "47d"
    assert "cap" not in order.decision
    record = await retirement(world, found)
    assert record.retire_at == found.received_at + CAP
    assert (record.status, record.grace) == (RetirementStatus.WAITING, 2 * DAY)
    (event,) = await world.events(EventKind.CERTIFICATE_ISSUED)
    assert event.data["retires_at"] == record.retire_at.isoformat()


async def test_certificate_that_ends_in_time_is_not_retired(world: World) -> None:
    """The CA issued less than it was known for."""
    retiring(world)
    world.ca.lifetime = 40 * DAY
    client = await world.client()
    found = await issued(world, client)
    assert await world.store.find_retirement(found.certificate_id) is None


async def test_certificate_longer_than_the_ca_is_known_for_is_a_breach(world: World) -> None:
    """The lever lets through what was planned with, and no more."""
    retiring(world)
    world.ca.misissue = lambda leaf: Leaf(
        names=leaf.names,
        public_key=leaf.public_key,
        not_before=leaf.not_before,
        not_after=leaf.not_before + 400 * DAY,
    )
    client = await world.client()
    order = await world.finish(await client.finalize(await client.ready(NAME)))
    assert order.status is OrderStatus.INVALID
    assert "90d that this upstream was known to issue" in str(order.error)
    await world.settle()
    assert len(world.ca.revoked) == 1


async def test_order_that_was_not_decided_so_lets_nothing_through(world: World) -> None:
    """The gate asks the order's own decision, not the policy of the moment."""
    client = await world.client()
    order = await client.ready(NAME)
    world.ca.honours_not_after = False
    world.ca.lifetime = 120 * DAY
    retiring_policy = POLICY.replace("[{upstream: ca}]", "[{upstream: ca, retire: {}}]")
    done = await client.finalize(order)
    world.policies.set(retiring_policy)
    assert (await world.finish(done)).status is OrderStatus.INVALID


async def test_window_ends_before_the_retirement_date(world: World) -> None:
    """However late the CA's own would be."""
    retiring(world)
    client = await world.client()
    found = await issued(world, client)
    told = await world.renewing.renewals.suggestion("default", found.cert_id or "")
    window = told.info.window
    assert found.received_at + 25 * DAY < window.start
    assert window.end < (await retirement(world, found)).retire_at


@pytest.mark.parametrize("by", ["replaces", "names and profile"])
async def test_successor_in_use_retires_it_after_the_grace_time(world: World, by: str) -> None:
    """In use means fetched; issuing alone is not enough."""
    retiring(world)
    client = await world.client()
    old = await issued(world, client)
    await fetch(world, client, old)
    await pass_days(world, 30)
    if by == "replaces":
        new = await issued(world, client, NAME, "b.example.com", replaces=old.cert_id or "")
    else:
        new = await issued(world, client)
    await pass_days(world, 1)
    assert (await retirement(world, old)).status is RetirementStatus.WAITING
    await fetch(world, client, new)
    record = await retirement(world, old)
    assert (record.status, record.replaced_by) == (RetirementStatus.REPLACED, new.certificate_id)
    await pass_days(world, 1.9)
    assert not is_revoked(world, old)
    await pass_days(world, 0.2)
    assert is_revoked(world, old)
    assert not is_revoked(world, new)
    assert (await retirement(world, old)).status is RetirementStatus.RETIRED
    kept = await world.store.find_certificate(old.certificate_id)
    assert kept is not None
    assert kept.revoked_at is not None
    assert await world.count(EventKind.CERTIFICATE_REPLACED) == 1
    assert await world.count(EventKind.CERTIFICATE_RETIRED) == 1


@pytest.mark.parametrize(
    "names", [("other.example.com",), (NAME, "b.example.com")], ids=["other", "more"]
)
async def test_certificate_for_other_names_replaces_nothing_by_itself(
    world: World, names: tuple[str, ...]
) -> None:
    """Nor does one of another profile, or of another account."""
    retiring(world)
    client, stranger = await world.client(), await world.client()
    old = await issued(world, client)
    await pass_days(world, 1)
    await fetch(world, client, await issued(world, client, *names))
    await fetch(world, client, await issued(world, client, profile="private"))
    await fetch(world, stranger, await issued(world, stranger))
    assert (await retirement(world, old)).status is RetirementStatus.WAITING


async def test_older_certificate_fetched_again_replaces_nothing(world: World) -> None:
    """A successor is younger."""
    retiring(world)
    client = await world.client()
    old = await issued(world, client)
    await pass_days(world, 1)
    new = await issued(world, client)
    await fetch(world, client, old)
    assert (await retirement(world, new)).status is RetirementStatus.WAITING
    assert (await retirement(world, old)).status is RetirementStatus.WAITING


async def test_without_a_successor_it_is_overdue_told_once_and_kept(world: World) -> None:
    """Cutting off what is in use is for policy to say."""
    retiring(world)
    client = await world.client()
    old = await issued(world, client)
    await pass_days(world, 47.1)
    await pass_days(world, 5)
    assert (await retirement(world, old)).status is RetirementStatus.OVERDUE
    assert not is_revoked(world, old)
    (event,) = await world.events(EventKind.RETIREMENT_OVERDUE)
    assert NAME in str(event.data["identifiers"])
    assert (await world.store.count_retirements())["overdue"] == 1
    (listed,) = await world.store.list_retirements(None, 10)
    assert listed.certificate_id == old.certificate_id
    new = await issued(world, client)
    await fetch(world, client, new)
    await pass_days(world, 2.1)
    assert is_revoked(world, old)


async def test_without_a_successor_it_is_revoked_where_policy_says_so(world: World) -> None:
    """On the day, and not before."""
    retiring(world, "{unreplaced: revoke}")
    client = await world.client()
    old = await issued(world, client)
    await pass_days(world, 46.9)
    assert not is_revoked(world, old)
    await pass_days(world, 0.2)
    assert is_revoked(world, old)
    assert (await retirement(world, old)).status is RetirementStatus.RETIRED


@pytest.mark.parametrize("way", ["revoked", "ended"])
async def test_certificate_that_is_gone_needs_no_retiring(world: World, way: str) -> None:
    """Its row is closed, and the CA hears nothing more."""
    retiring(world)
    client = await world.client()
    old = await issued(world, client)
    if way == "revoked":
        await client.revoke(old.leaf_der)
        await pass_days(world, 48)
    else:
        await pass_days(world, 48)
        await pass_days(world, 45)
    assert (await retirement(world, old)).status is RetirementStatus.RETIRED
    assert await world.jobs(JobKind.RETIRE) == 0
    assert world.ca.count("revoke") == (1 if way == "revoked" else 0)


async def test_retirement_survives_a_restart(world: World) -> None:
    """The date is a row."""
    retiring(world, "{unreplaced: revoke}")
    client = await world.client()
    old = await issued(world, client)
    await world.restart()
    world.clock.advance(48 * DAY)
    await world.dispatcher.run_due()
    await world.settle()
    assert is_revoked(world, old)


async def test_ca_that_is_away_revokes_when_it_is_back(world: World) -> None:
    """The wish is kept like any other revocation's."""
    retiring(world, "{unreplaced: revoke}")
    client = await world.client()
    old = await issued(world, client)
    await world.let_pass(46 * DAY)
    world.ca.is_away = True
    await pass_days(world, 1.1)
    assert not is_revoked(world, old)
    world.ca.is_away = False
    await world.let_pass(timedelta(minutes=1))
    assert is_revoked(world, old)


async def test_tighter_cap_before_finalize_keeps_the_stricter_of_both(world: World) -> None:
    """A policy that now holds a cap by itself is stricter than one that retires."""
    retiring(world)
    client = await world.client()
    order: OrderRecord = await client.ready(NAME)
    world.policies.set(POLICY.replace("cap: 90d", "cap: 91d"))
    done = await world.finish(await client.finalize(order))
    assert done.status is OrderStatus.VALID
    assert done.decision["lever"] == "profile"
    assert await world.store.count_retirements() == {
        "waiting": 0,
        "overdue": 0,
        "replaced": 0,
        "retired": 0,
    }
