"""When a certificate at a node is renewed, tried again, and told to be late."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from broker.issuance.node_ports import ManagedRecord
from broker.issuance.renewal_times import drawn, late_at, pause_after
from broker.protocol.renewal import RenewalWindow
from tests.fakes.clock import START
from tests.fakes.delivery_world import DeliveryWorld
from tests.fakes.world import dns

DAY = timedelta(days=1)
WINDOW = RenewalWindow(START, START + DAY)

RECORD = ManagedRecord(
    managed_id="m1",
    node_id="node-web-01",
    name="www",
    community="default",
    identifiers=(dns("www.robots.example.com"),),
    profile="private",
    key_kind="ec-p256",
    is_wanted=True,
    generation=1,
    certificate_id=None,
    not_after=None,
    csr_der=None,
    next_at=None,
    attempts=0,
    created_at=START,
)


def test_moment_is_in_the_window_and_stays() -> None:
    """The same at each look, another for each certificate, over the whole window."""
    moments = [drawn(WINDOW, f"fingerprint {number}") for number in range(200)]
    assert moments == [drawn(WINDOW, f"fingerprint {number}") for number in range(200)]
    assert all(WINDOW.start <= one <= WINDOW.end for one in moments)
    assert len(set(moments)) == 200
    assert min(moments) < WINDOW.start + DAY / 10
    assert max(moments) > WINDOW.end - DAY / 10


def test_attempts_of_an_hour_are_six_at_most() -> None:
    """Pauses grow, so that a name that fails costs its CA no more than that."""
    at, calls = timedelta(), [timedelta()]
    for attempts in range(1, 40):
        at += pause_after(replace(RECORD, attempts=attempts), 90 * DAY)
        calls.append(at)
    for first in calls:
        assert len([one for one in calls if first <= one < first + timedelta(hours=1)]) <= 6
    assert calls[-1] - calls[-2] >= timedelta(hours=6)


@pytest.mark.parametrize(
    ("lifetime", "longest"),
    [(timedelta(minutes=5), timedelta(seconds=19)), (timedelta(hours=1), timedelta(minutes=4))],
    ids=["five-minutes", "an-hour"],
)
def test_what_lives_shortly_is_tried_again_soon(lifetime: timedelta, longest: timedelta) -> None:
    """No pause outlives what is left."""
    assert pause_after(replace(RECORD, attempts=9), lifetime) <= longest


def test_pauses_of_two_certificates_part() -> None:
    """Those that failed together do not come back together."""
    one, other = (replace(RECORD, managed_id=name, attempts=3) for name in ("a", "b"))
    assert pause_after(one, None) != pause_after(other, None)


@pytest.mark.parametrize(
    ("due_since", "not_after", "expected"),
    [
        (None, START + 30 * DAY, None),
        (START, START + 30 * DAY, START + 10 * DAY),
        (START, None, START + timedelta(hours=1)),
        (START, START - DAY, START),
    ],
    ids=["not-due", "a-third-of-what-is-left", "first-one", "ended-already"],
)
def test_lateness_is_told_when_a_third_is_gone(
    due_since: datetime | None, not_after: datetime | None, expected: datetime | None
) -> None:
    """Of what was left when it became due."""
    assert late_at(replace(RECORD, due_since=due_since, not_after=not_after)) == expected


class Windows:
    """Reload windows that a test sets."""

    def __init__(self, to: datetime) -> None:
        self.to = to

    def pulled_forward(self, node: str, moment: datetime, *, now: datetime, seed: str) -> datetime:
        """See the port."""
        assert node == "web-01"
        return self.to


async def test_renewal_is_pulled_into_the_nodes_window(hosts: DeliveryWorld) -> None:
    """Earlier where the node may be reloaded then, and never later, whatever the window says."""
    node = await hosts.node()
    await node.settled("www")
    moment = (await node.managed()).next_at
    assert moment is not None
    times = hosts.deliveries.times
    for to, expected in ((moment - DAY, moment - DAY), (moment + DAY, moment)):
        times._windows = Windows(to)
        planned = await times.planned(await node.managed(), node.record)
        assert planned.next_at == expected


async def test_share_of_the_policy_pulls_earlier(hosts: DeliveryWorld) -> None:
    """Where policy names a share of the lifetime, it is renewed by then."""
    node = await hosts.node()
    await node.settled("www")
    before = (await node.managed()).next_at
    hosts.policies.change(
        "    upstreams: [{upstream: local}]",
        "    upstreams: [{upstream: local}]\n    renew_at: 0.3",
    )
    planned = await hosts.deliveries.times.planned(await node.managed(), node.record)
    assert planned.next_at is not None
    assert before is not None
    assert planned.next_at < before
    assert planned.next_at < START + 35 * DAY
