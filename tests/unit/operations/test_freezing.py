"""The desk that stops issuance."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.issuance.events import Actor, EventKind
from broker.operations.freezing import parse_until
from broker.protocol.problems import Problem
from broker.web.operator import OperationError
from tests.unit.operations.conftest import ANNA, Office

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def test_each_thing_is_frozen_listed_and_freed(office: Office) -> None:
    """By the words of the command; the newest first."""
    client = await office.world.robot()
    things: list[dict[str, Any]] = [
        {"community": "default"},
        {"account": client.account.account_id},
        {"eab": "robot"},
        {"upstream": "ca"},
    ]
    for thing in things:
        await office.desk.freeze(actor=ANNA, **thing)
        office.world.clock.advance(timedelta(seconds=1))
    rows = await office.desk.frozen()
    json.dumps(rows)
    assert [(row["what"], row["name"], row["community"]) for row in rows] == [
        ("upstream", "ca", None),
        ("eab-key", "robot", "default"),
        ("account", client.account.account_id, "default"),
        ("community", "default", "default"),
    ]
    assert {(row["by"], row["reason"]) for row in rows} == {(ANNA.name, ANNA.reason)}
    with pytest.raises(Problem, match="is frozen"):
        await client.order("a.robots.example.com")
    for thing in things:
        await office.desk.unfreeze(actor=ANNA, **thing)
    assert await office.desk.frozen() == []
    await client.order("a.robots.example.com")


@pytest.mark.parametrize(
    ("given", "why"),
    [
        pytest.param({}, "name one of", id="nothing"),
        pytest.param({"upstream": "ca", "node": "web-01"}, "name one of", id="two things"),
        pytest.param({"upstream": "ca", "community": "default"}, "stands alone", id="half of one"),
        pytest.param({"community": "nowhere"}, "no community is called", id="community"),
        pytest.param({"account": "0" * 32}, "there is no account", id="account"),
        pytest.param({"eab": "nothing"}, "has no EAB key", id="key"),
        pytest.param({"node": "web-99"}, "there is no node", id="node"),
        pytest.param({"upstream": "nobody"}, "no upstream is called", id="upstream"),
        pytest.param({"upstream": "ca", "until": "soon"}, "neither a length", id="until"),
        pytest.param({"upstream": "ca", "tell": "a\nb"}, "tell is no line", id="two lines"),
        pytest.param({"upstream": "ca", "ask": "x" * 201}, "ask is no line", id="long"),
    ],
)
async def test_what_cannot_be_frozen_is_told(
    office: Office, given: dict[str, Any], why: str
) -> None:
    """Nothing is frozen by half a command, and no event says so."""
    with pytest.raises(OperationError, match=why):
        await office.desk.freeze(actor=ANNA, **given)
    assert await office.desk.frozen() == []
    assert await office.world.events(EventKind.FROZEN) == []


@pytest.mark.parametrize("reason", [None, " "], ids=["none", "blank"])
async def test_reason_is_asked_for(office: Office, reason: str | None) -> None:
    """To stop as to go on: whoever finds it in the morning has to know."""
    with pytest.raises(OperationError, match="this takes a reason"):
        await office.desk.freeze(actor=Actor("operator:anna", reason), upstream="ca")
    await office.desk.freeze(actor=ANNA, upstream="ca")
    with pytest.raises(OperationError, match="this takes a reason"):
        await office.desk.unfreeze(actor=Actor("operator:anna", reason), upstream="ca")
    assert len(await office.desk.frozen()) == 1


async def test_what_is_not_frozen_is_not_freed(office: Office) -> None:
    """It says where to look."""
    with pytest.raises(OperationError, match="upstream 'ca' is not frozen"):
        await office.desk.unfreeze(actor=ANNA, upstream="ca")


@pytest.mark.parametrize(
    ("text", "until"),
    [
        pytest.param("2h", NOW + timedelta(hours=2), id="length"),
        pytest.param("2026-03-02", NOW + timedelta(hours=12), id="day"),
        pytest.param("2026-03-01T14:00:00Z", NOW + timedelta(hours=2), id="UTC"),
        pytest.param("2026-03-01T14:00:00+01:00", NOW + timedelta(hours=1), id="elsewhere"),
    ],
)
def test_end_is_a_length_or_a_time(text: str, until: datetime) -> None:
    """In UTC where it names no zone."""
    assert parse_until(text, NOW) == until


def test_end_that_is_over_is_refused() -> None:
    """A freeze that stops nothing is a mistake."""
    with pytest.raises(OperationError, match="would be over already"):
        parse_until("2026-02-28", NOW)
