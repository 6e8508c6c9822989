"""When a client is told to renew, and how the CAs are asked about it."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.events import EventKind
from broker.issuance.records import CertificateRecord
from broker.issuance.renewal_ports import RenewalAnswer, RenewalRecord
from broker.issuance.renewals import (
    ANSWER_AGE,
    BATCH,
    LONG_TERM_PAUSE,
    NOT_OFFERED_PAUSE,
    suggested_window,
)
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.renewal import RenewalInfo, RenewalWindow
from tests.fakes.fake_policies import POLICY
from tests.fakes.world import Client, World

NAME = "www.example.com"
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def saying(
    world: World, start: timedelta, *, length: timedelta = DAY, again: timedelta | None = 6 * HOUR
) -> None:
    """Let the CA name a window that begins *start* from now."""
    now = world.clock.now()
    window = RenewalWindow(now + start, now + start + length)
    info = RenewalInfo(window=window, explanation_url="https://ca.example/why")

    def answer(_: str) -> RenewalAnswer:
        at = None if again is None else world.clock.now() + again
        return RenewalAnswer(info=info, retry_at=at)

    world.ca.renewals = answer


async def issued(
    world: World, client: Client | None = None, *, profile: str | None = None
) -> CertificateRecord:
    """Return a certificate that was issued just now."""
    client = client or await world.client()
    order = await client.issue(NAME, profile=profile)
    found = await world.store.find_certificate(order.certificate_id or "")
    assert found is not None
    return found


async def window(world: World, found: CertificateRecord) -> RenewalWindow:
    """Return when a client is told to renew."""
    suggestion = await world.renewing.renewals.suggestion("default", found.cert_id or "")
    return suggestion.info.window


async def kept(world: World, found: CertificateRecord) -> RenewalRecord:
    """Return what is kept of the CA's answers."""
    record = await world.store.find_renewal(found.certificate_id)
    assert record is not None
    return record


async def sweep(world: World, passing: timedelta = timedelta()) -> int:
    """Let time pass, and ask what is due."""
    await world.let_pass(passing)
    return await world.renewing.watch.refresh_due()


# --------------------------------------------------------------------------------- to clients


@pytest.mark.parametrize("profile", [None, "private"], ids=["a CA without", "our own CA"])
async def test_window_is_our_own_where_the_ca_names_none(world: World, profile: str | None) -> None:
    """Around two thirds of the lifetime, and clients come again in six hours."""
    found = await issued(world, profile=profile)
    await sweep(world)
    told = await world.renewing.renewals.suggestion("default", found.cert_id or "")
    assert found.not_before + 55 * DAY < told.info.window.start < found.not_before + 65 * DAY
    assert told.retry_after == ANSWER_AGE
    assert told.info.explanation_url is None


async def test_window_is_that_of_the_ca_where_it_names_one(world: World) -> None:
    """Neither later nor earlier; where the CA explains itself is told to the operator alone."""
    saying(world, 20 * DAY)
    found = await issued(world)
    assert await sweep(world) == 1
    record = await kept(world, found)
    assert await window(world, found) == RenewalWindow(
        record.window_start or found.not_before, record.window_end or found.not_after
    )
    assert (record.window_start or found.not_before) - world.clock.now() > 19 * DAY
    told = await world.renewing.renewals.suggestion("default", found.cert_id or "")
    assert told.info.explanation_url is None
    assert record.explanation_url == "https://ca.example/why"


async def test_window_past_the_end_is_not_believed(world: World) -> None:
    """A CA that names the next century lets nobody's certificate end."""
    saying(world, 30_000 * DAY)
    found = await issued(world)
    await sweep(world)
    assert (await window(world, found)).end < found.not_after - 4 * DAY


@pytest.mark.parametrize(
    ("share", "is_pulled"), [(0.1, True), (0.9, False)], ids=["earlier", "later"]
)
async def test_policy_pulls_the_window_and_never_pushes_it(
    world: World, share: float, is_pulled: bool
) -> None:
    """The CA's word is the latest."""
    saying(world, 45 * DAY)
    found = await issued(world)
    await sweep(world)
    before = await window(world, found)
    world.policies.change(
        "description: TLS servers\n", f"description: TLS servers\n    renew_at: {share}\n"
    )
    after = await window(world, found)
    assert (after.start < before.start) is is_pulled
    assert after.start <= before.start


async def test_a_rule_that_wants_renewals_early_is_heeded_to_the_end(world: World) -> None:
    """It was kept with the order; the earlier of it and of the profile counts, then and later."""
    rule = "{name: early, because: a test, names: ['**.example.com'], renew_at: 0.2}"
    world.policies.set(POLICY + f"rules: [{rule}]\n")
    found = await issued(world)
    (view,) = await world.store.renewal_views("default", found.cert_id or "")
    assert view.renew_at == 0.2
    lifetime = found.not_after - found.not_before
    early = suggested_window(view, world.clock.now(), renew_at=None)
    assert early.start < found.not_before + lifetime * 0.3
    assert suggested_window(view, world.clock.now(), renew_at=0.6) == early
    world.policies.set(POLICY)
    plain = await issued(world)
    (view,) = await world.store.renewal_views("default", plain.cert_id or "")
    assert view.renew_at is None


async def test_wide_window_of_the_ca_is_cut_at_the_end_of_policys(world: World) -> None:
    """One that lasts from issuance to the end leaves nobody later than policy says."""
    found = await issued(world)
    (view,) = await world.store.renewal_views("default", found.cert_id or "")
    wide = replace(view, window_start=found.not_before, window_end=found.not_after)
    lifetime = found.not_after - found.not_before
    cut = suggested_window(wide, world.clock.now(), renew_at=0.4)
    assert cut.start == found.not_before
    assert cut.end < found.not_before + lifetime / 2
    whole = suggested_window(wide, world.clock.now(), renew_at=None)
    assert whole.end > found.not_before + lifetime * 0.9


async def test_revoked_certificate_is_to_be_renewed_at_once(world: World) -> None:
    """Whatever the CA says; and nobody asks it again."""
    saying(world, 45 * DAY)
    client = await world.client()
    found = await issued(world, client)
    await sweep(world)
    await client.revoke(found.leaf_der)
    assert (await window(world, found)).end <= world.clock.now()
    assert (await kept(world, found)).due_at is None
    asked = world.ca.count("renewal_info")
    assert await sweep(world, 2 * DAY) == 0
    assert world.ca.count("renewal_info") == asked


@pytest.mark.parametrize(
    ("cert_id", "status"),
    [("aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE", 404), ("nonsense", 400), ("a.b.c", 400)],
)
async def test_unknown_certificate_is_told_from_a_malformed_identifier(
    world: World, cert_id: str, status: int
) -> None:
    """Both are malformed, as RFC 8555 has it."""
    with pytest.raises(Problem) as caught:
        await world.renewing.renewals.suggestion("default", cert_id)
    assert (caught.value.type, caught.value.status) == (ProblemType.MALFORMED, status)


async def test_certificate_of_another_community_is_not_there(world: World) -> None:
    """Nor is one that was withheld: nobody has it."""
    found = await issued(world)
    with pytest.raises(Problem) as caught:
        await world.renewing.renewals.suggestion("lab", found.cert_id or "")
    assert caught.value.status == 404


# ----------------------------------------------------------------------------------- to the CAs


async def test_ca_is_asked_at_once_and_then_as_it_wishes(world: World) -> None:
    """Six hours later, and not before."""
    saying(world, 45 * DAY)
    await issued(world)
    assert await sweep(world) == 1
    assert await sweep(world, 5 * HOUR) == 0
    assert await sweep(world, HOUR) == 1
    assert world.ca.count("renewal_info") == 2


@pytest.mark.parametrize(
    ("named", "pause"),
    [
        pytest.param(timedelta(seconds=1), MINUTE, id="too soon"),
        pytest.param(300 * DAY, DAY, id="too late"),
        pytest.param(None, LONG_TERM_PAUSE, id="not named"),
    ],
)
async def test_wish_of_the_ca_is_kept_within_bounds(
    world: World, named: timedelta | None, pause: timedelta
) -> None:
    """A minute at least, a day at most (RFC 9773 §4.3.2)."""
    saying(world, 45 * DAY, again=named)
    found = await issued(world)
    await sweep(world)
    assert (await kept(world, found)).due_at == world.clock.now() + pause


async def test_failures_that_pass_are_tried_again_with_growing_pauses(world: World) -> None:
    """One, two, four, eight minutes; the fifth in a row counts as lasting."""
    found = await issued(world)
    world.ca.fail("renewal_info", Unreachable("503"), times=5)
    pauses = []
    for _ in range(5):
        await sweep(world)
        due_at = (await kept(world, found)).due_at
        assert due_at is not None
        pauses.append(due_at - world.clock.now())
        await world.let_pass(due_at - world.clock.now())
    assert pauses == [MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE, LONG_TERM_PAUSE]
    saying(world, 20 * DAY)
    await sweep(world)
    assert (await kept(world, found)).failures == 0


@pytest.mark.parametrize(
    "outcome",
    [Refused(Problem(ProblemType.MALFORMED, "no such", status=404)), Broken("a window of none")],
    ids=["unknown there", "nonsense"],
)
async def test_failures_that_last_are_tried_again_after_six_hours(
    world: World, outcome: Exception
) -> None:
    """RFC 9773 §4.3.3; what was known before is kept."""
    saying(world, 20 * DAY)
    found = await issued(world)
    await sweep(world)
    before = await window(world, found)
    world.ca.fail("renewal_info", outcome)
    await sweep(world, 6 * HOUR)
    assert (await kept(world, found)).due_at == world.clock.now() + LONG_TERM_PAUSE
    assert await window(world, found) == before


async def test_ca_without_renewal_information_is_looked_at_once_a_day(world: World) -> None:
    """It may come to offer some."""
    found = await issued(world)
    await sweep(world)
    assert (await kept(world, found)).due_at == world.clock.now() + NOT_OFFERED_PAUSE
    saying(world, 20 * DAY)
    await sweep(world, DAY)
    assert (await kept(world, found)).window_start is not None


async def test_one_silence_of_a_ca_is_heard_once_a_sweep(world: World) -> None:
    """A hundred certificates of a CA that is away cost a few requests, not a hundred."""
    client = await world.client()
    for number in range(30):
        await client.issue(f"h{number}.example.com")
    world.ca.is_away = True
    assert await sweep(world) == 30
    assert world.ca.count("renewal_info") <= 8
    assert await world.store.due_renewals(world.clock.now(), BATCH) == []


async def test_certificate_that_has_ended_is_asked_about_no_more(world: World) -> None:
    """RFC 9773 §4.3."""
    saying(world, 45 * DAY)
    found = await issued(world)
    await sweep(world)
    asked = world.ca.count("renewal_info")
    await sweep(world, 91 * DAY)
    assert (await kept(world, found)).due_at is None
    assert world.ca.count("renewal_info") == asked


async def test_certificate_that_was_replaced_is_asked_about_no_more(world: World) -> None:
    """Once the successor is issued; one that fails changes nothing."""
    saying(world, 45 * DAY)
    client = await world.client()
    found = await issued(world, client)
    await client.order(NAME, replaces=found.cert_id)
    assert (await kept(world, found)).due_at is not None
    await world.let_pass(DAY)
    await client.issue(NAME, replaces=found.cert_id)
    assert (await kept(world, found)).due_at is None


async def test_move_to_an_earlier_time_is_an_event(world: World) -> None:
    """A later one, or one of seconds, is none."""
    saying(world, 45 * DAY)
    found = await issued(world)
    await sweep(world)
    moves: list[tuple[Callable[[], None], int]] = [
        (lambda: saying(world, 50 * DAY), 0),
        (lambda: saying(world, timedelta()), 1),
    ]
    for move, count in moves:
        move()
        await sweep(world, 6 * HOUR)
        assert await world.count(EventKind.RENEWAL_MOVED_EARLIER) == count
    (event,) = await world.events(EventKind.RENEWAL_MOVED_EARLIER)
    assert event.data["certificate_id"] == found.certificate_id
    assert datetime.fromisoformat(str(event.data["start"])) <= world.clock.now()
    assert (await window(world, found)).start <= world.clock.now()


async def test_operator_has_the_ca_asked_now(world: World) -> None:
    """Before it is due; of our own CA nobody is asked."""
    saying(world, 45 * DAY)
    found = await issued(world)
    await sweep(world)
    saying(world, DAY)
    record = await world.renewing.watch.refresh(found.certificate_id)
    assert record is not None
    assert record.window_start == world.clock.now() + DAY
    own = await issued(world, profile="private")
    assert await world.renewing.watch.refresh(own.certificate_id) is None


async def test_client_comes_again_once_the_ca_has_been_asked_anew(world: World) -> None:
    """Sooner than in six hours, if the CA is asked sooner."""
    saying(world, 45 * DAY, again=HOUR)
    found = await issued(world)
    await sweep(world)
    told = await world.renewing.renewals.suggestion("default", found.cert_id or "")
    assert told.retry_after == HOUR + MINUTE
