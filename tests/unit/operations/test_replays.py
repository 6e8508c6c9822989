"""The desk hands out what was asked of policy."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from broker.protocol.problems import Problem
from broker.web.operator import OperationError
from tests.unit.operations.conftest import Office


async def test_pages_tell_rows_and_who_asked(office: Office) -> None:
    """As plain JSON, until there is no next page."""
    robot = await office.world.robot()
    for number in range(3):
        await robot.issue_granted(f"h{number}.robots.example.com")
        office.world.clock.advance(timedelta(seconds=1))
    first = await office.desk.policy_asked(kind="order", days=1, limit=2)
    assert len(first["rows"]) == 2
    rest = await office.desk.policy_asked(kind="order", days=1, limit=2, after=first["after"])
    assert len(rest["rows"]) == 1
    assert rest["after"] is None
    [row] = rest["rows"]
    assert row["names"] == [["dns", "h2.robots.example.com"]]
    assert rest["askers"][row["account"]]["eab"] == "robot"
    assert not rest["askers"][row["account"]]["closed"]
    json.dumps(rest)


async def test_certificates_and_refusals_are_pages_of_their_own(office: Office) -> None:
    """Live certificates of any age; refusals of those days."""
    client = await office.world.client()
    await client.issue("a.example.com")
    with pytest.raises(Problem):
        await client.order("denied.example.com")
    alive = await office.desk.policy_asked(kind="certificate", days=0)
    [row] = alive["rows"]
    assert row["until"] is not None
    refused = await office.desk.policy_asked(kind="refusal", days=1)
    assert [one["names"] for one in refused["rows"]] == [[["dns", "denied.example.com"]]]
    counts = await office.desk.policy_asked_counts(days=1)
    assert (counts["orders"], counts["certificates"]) == (1, 1)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param({"kind": "secrets", "days": 1}, "'secrets' is no kind", id="kind"),
        pytest.param({"kind": "order", "days": -1}, "-1 days", id="days"),
        pytest.param({"kind": "order", "days": 1, "limit": 0}, "limit 0", id="none"),
        pytest.param({"kind": "order", "days": 1, "limit": 9_999}, "limit 9999", id="too-many"),
        pytest.param({"kind": "order", "days": 1, "after": ["x"]}, "no place", id="short"),
        pytest.param({"kind": "order", "days": 1, "after": ["x", "y"]}, "no place", id="no-time"),
    ],
)
async def test_bad_question_is_told(office: Office, given: dict[str, object], told: str) -> None:
    """In a sentence, and nothing is read."""
    with pytest.raises(OperationError, match=told):
        await office.desk.policy_asked(**given)  # type: ignore[arg-type]
