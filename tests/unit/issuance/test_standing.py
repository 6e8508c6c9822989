"""Which CAs are not to be given new orders now."""

from datetime import timedelta

import pytest

from broker.issuance.events import Event, EventKind
from broker.issuance.quota_ports import BreakerRecord, BreakerState, HoldRecord
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.standing import WORTH_LEAVING, Standing, subject_of
from tests.fakes.world import World, dns

NAMES = (dns("b.example.com"), dns("a.example.com"))
SUBJECT = subject_of(NAMES)
HOUR = timedelta(hours=1)


@pytest.fixture
def standing(world: World) -> Standing:
    """What a broker with one account at its CA knows."""
    return Standing(store=world.store, accounts=world.store, clock=world.clock)


async def registered(world: World) -> None:
    """Have an account at the CA, for one community."""
    record = UpstreamAccountRecord(
        upstream="ca",
        community="default",
        directory_url="https://ca.example/directory",
        account_url="https://ca.example/account/1",
        key_id="k",
        thumbprint="ours",
        registered_at=world.clock.now(),
    )
    event = Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=world.clock.now())
    await world.store.save_upstream_account(record, event)


async def hold(world: World, account: str, subject: str, length: timedelta = HOUR) -> None:
    """Keep a hold of the CA."""
    now = world.clock.now()
    await world.store.keep_hold(
        HoldRecord(
            upstream="ca",
            account=account,
            subject=subject,
            until=now + length,
            since=now,
            reason="",
        )
    )


async def test_nothing_is_away_at_first(standing: Standing) -> None:
    """All CAs may be asked."""
    assert await standing.away("default", SUBJECT) == {}


@pytest.mark.parametrize("state", [BreakerState.OPEN, BreakerState.HALF_OPEN])
async def test_ca_that_is_left_alone_is_away(
    world: World, standing: Standing, state: BreakerState
) -> None:
    """Until it has answered, though somebody looks by now."""
    now = world.clock.now()
    record = BreakerRecord(
        upstream="ca", state=state, openings=1, since=now, until=now, reason="no answer"
    )
    await world.store.move_breaker(record, expected=None, events=())
    world.clock.advance(HOUR)
    assert await standing.away("default", SUBJECT) == {
        "ca": "does not answer since 2026-03-01T12:00:00Z"
    }


@pytest.mark.parametrize(
    ("account", "subject", "community", "is_away"),
    [
        pytest.param("", "", "lab", True, id="everything"),
        pytest.param("ours", "", "default", True, id="our account"),
        pytest.param("ours", "", "lab", False, id="another community's account"),
        pytest.param("theirs", "", "default", False, id="a former account"),
        pytest.param("ours", subject_of(NAMES), "default", True, id="these names"),
        pytest.param("ours", "a.example.com", "default", False, id="some of these names"),
    ],
)
async def test_limit_is_about_what_it_was_told_about(
    world: World, standing: Standing, account: str, subject: str, community: str, is_away: bool
) -> None:
    """Nobody else has to go elsewhere."""
    await registered(world)
    await hold(world, account, subject)
    away = await standing.away(community, subject_of(NAMES[::-1]))
    assert away == ({"ca": "limits us until 2026-03-01T13:00:00Z"} if is_away else {})


async def test_short_limit_is_waited_for(world: World, standing: Standing) -> None:
    """And one that was long is short in the end."""
    await hold(world, "", "")
    world.clock.advance(HOUR - WORTH_LEAVING)
    assert await standing.away("default", SUBJECT) == {}
