"""The desk about limits."""

import json
from datetime import timedelta

import pytest

from broker.issuance.quota_ports import BreakerRecord, BreakerState, HoldRecord
from broker.policy.published_limits import LimitPer, PublishedLimit
from broker.policy.units import Rate
from broker.web.operator import OperationError
from tests.unit.operations.conftest import Office

WEEK = timedelta(days=7)


async def used(office: Office) -> None:
    """Use some of each limit."""
    office.world.limits["ca"] = (
        PublishedLimit(per=LimitPer.ACCOUNT, rate=Rate(10, WEEK)),
        PublishedLimit(per=LimitPer.NAMES, rate=Rate(2, WEEK)),
        PublishedLimit(per=LimitPer.DOMAIN, rate=Rate(5, WEEK)),
    )
    await (await office.world.client()).issue("a.example.com")


async def test_what_is_left_is_shown_the_emptiest_first(office: Office) -> None:
    """With whose limit it is, what it counts by, and when it is full again."""
    await used(office)
    shown = await office.desk.quota_show()
    json.dumps(shown)
    rows = [
        (row["of"], row["per"], row["subject"], row["limit"], row["left"])
        for row in shown["buckets"]
    ]
    assert rows == [
        ("upstream ca", "names", "a.example.com", "2/7d", 1),
        ("upstream ca", "domain", "example.com", "5/7d", 4),
        ("upstream ca", "account", "default", "10/7d", 9),
    ]
    assert shown["buckets"][0]["full"] == "2026-03-05T00:00:00Z"
    assert (shown["holds"], shown["left_alone"]) == ([], [])


async def test_community_sees_its_own(office: Office) -> None:
    """What all of them share tells of the others' names."""
    await used(office)
    shown = await office.desk.quota_show(community="default")
    assert [row["per"] for row in shown["buckets"]] == ["account"]
    assert (await office.desk.quota_show(upstream="other"))["buckets"] == []


async def test_how_cas_stand_is_shown(office: Office) -> None:
    """Limits that they named, and those that do not answer."""
    store, now = office.world.store, office.world.clock.now()
    await store.keep_hold(
        HoldRecord(
            upstream="ca",
            account="key",
            subject="",
            until=now + WEEK,
            since=now,
            reason="too many",
        )
    )
    await store.move_breaker(
        BreakerRecord(
            upstream="next",
            state=BreakerState.OPEN,
            openings=1,
            since=now,
            until=now + timedelta(seconds=5),
            reason="no answer",
        ),
        expected=None,
        events=(),
    )
    shown = await office.desk.quota_show()
    (hold,), (left,) = shown["holds"], shown["left_alone"]
    assert (hold["upstream"], hold["about"], hold["reason"]) == ("ca", "our account", "too many")
    assert (left["upstream"], left["state"], left["reason"]) == ("next", "open", "no answer")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"limit": 0}, "limit 0 is not between", id="no rows"),
        pytest.param({"community": "other"}, "no community is called 'other'", id="unknown"),
    ],
)
async def test_what_cannot_be_shown_is_said(
    office: Office, given: dict[str, object], said: str
) -> None:
    """With what is there."""
    with pytest.raises(OperationError, match=said):
        await office.desk.quota_show(**given)  # type: ignore[arg-type]
