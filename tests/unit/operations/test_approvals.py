"""The desk about requests that people answer."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.issuance.events import Actor
from broker.operations import OperatorDesk, Rooms, approvals
from broker.operations.approvals import ApprovalDesk
from broker.protocol.problems import Problem
from broker.web.operator import OperationError
from tests.fakes.approving import BEN, filed, people_policy
from tests.fakes.fake_policies import POLICY
from tests.fakes.world import Client, World
from tests.unit.operations.conftest import ANNA, FakeAuthorityKeeper, FakeUpstreamKeeper

HOST = "www.people.example.com"
BOARD = "www.board.example.com"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose policy wants people."""
    async with World(tmp_path) as made:
        made.policies.set(people_policy())
        yield made


@pytest.fixture
def rooms(world: World) -> Rooms:
    """What the desk works with."""
    return Rooms(
        store=world.store,
        accounts=world.accounts,
        enrollment=world.enrollment,
        revocations=world.revocations,
        planner=world.planner,
        policies=world.policies,
        upstreams=FakeUpstreamKeeper(),
        authorities=FakeAuthorityKeeper(),
        clock=world.clock,
        communities=("default",),
        version="0.1.0",
        approvals=world.authority,
    )


@pytest.fixture
def desk(rooms: Rooms) -> ApprovalDesk:
    """A desk that is open."""
    return OperatorDesk(rooms)


@pytest.fixture
async def client(world: World) -> Client:
    """Somebody who asks."""
    return await world.client()


async def test_list_shows_what_waits_for_a_person(desk: ApprovalDesk, client: Client) -> None:
    """And what does not where it is asked for by its state."""
    request = await filed(client, HOST)
    (row,) = await desk.approval_list()
    assert (row["approval"], row["status"], row["names"], row["people"]) == (
        request.approval_id, "waiting", [HOST], 1,
    )  # fmt: skip
    assert row["ends"] == "2026-03-08T12:00:00Z"
    await desk.approval_approve(actor=ANNA, approval=request.approval_id)
    assert await desk.approval_list() == []
    (row,) = await desk.approval_list(status="approved")
    assert row["ends"] == "2026-03-31T12:00:00Z"
    assert await desk.approval_list(status="all", community="lab") == []


async def test_list_has_pages(desk: ApprovalDesk, client: Client) -> None:
    """Newest first; the next page begins after the last row."""
    for number in range(3):
        await filed(client, f"h{number}.people.example.com")
    first = await desk.approval_list(limit=2)
    rest = await desk.approval_list(limit=2, after=first[-1]["approval"])
    assert len({row["approval"] for row in [*first, *rest]}) == 3
    with pytest.raises(OperationError, match="limit 0 is not between"):
        await desk.approval_list(limit=0)
    with pytest.raises(OperationError, match="'odd' is no status"):
        await desk.approval_list(status="odd")


async def test_list_tells_what_ends_soon(desk: ApprovalDesk, client: Client) -> None:
    """So that it is renewed before."""
    approval = (await filed(client, HOST)).approval_id
    await desk.approval_approve(actor=ANNA, approval=approval)
    assert await desk.approval_list(ending_within="29d") == []
    (row,) = await desk.approval_list(ending_within="30d")
    assert row["approval"] == approval
    with pytest.raises(OperationError, match="'30' is not a duration"):
        await desk.approval_list(ending_within="30")


async def test_request_is_shown_with_all_that_is_known(desk: ApprovalDesk, client: Client) -> None:
    """Who asks, by which rule, on which terms, and who said what."""
    request = await filed(client, BOARD)
    await client.issue("www.example.com")
    await desk.approval_approve(actor=ANNA, approval=request.approval_id, evidence=["ticket=7"])
    shown = await desk.approval_show(approval=request.approval_id)
    assert shown["asked_by"]["thumbprint"] == client.account.thumbprint
    assert shown["terms"] == {
        "people": 2, "answer_within": "14d", "holds": "300d", "reproof": "100d",
        "on_withdrawal": "revoke", "evidence": ["ticket"], "by": None,
        "rules": ["default.yaml:39 rule 'two-people'"],
        "because": ["these hosts speak for the board"],
    }  # fmt: skip
    (answer,) = shown["answers"]
    assert (answer["person"], answer["said"], answer["evidence"]) == (
        ANNA.name, "approve", ["ticket=7"],
    )  # fmt: skip
    assert [one["names"] for one in shown["orders"]] == [["www.example.com"]]


async def test_it_is_told_how_far_a_request_is(desk: ApprovalDesk, client: Client) -> None:
    """How many have said yes, and what the last one has to bring; a renewal begins anew."""
    given = {"approval": (await filed(client, BOARD)).approval_id}

    def progress(shown: Any) -> tuple[int, list[str]]:
        return shown["said_yes"], shown["evidence_missing"]

    assert progress(await desk.approval_show(**given)) == (0, ["ticket"])
    assert progress(await desk.approval_approve(actor=BEN, **given)) == (1, ["ticket"])
    opened = await desk.approval_approve(actor=ANNA, **given, evidence=["ticket=7"])
    assert (opened["status"], *progress(opened)) == ("approved", 2, [])
    assert progress(await desk.approval_suspend(actor=ANNA, **given)) == (2, [])
    assert progress(await desk.approval_resume(actor=BEN, **given)) == (2, [])
    assert progress(await desk.approval_renew(actor=BEN, **given)) == (1, [])
    assert progress(await desk.approval_withdraw(actor=BEN, **given)) == (1, [])


async def test_nobody_has_said_yes_to_what_was_denied(desk: ApprovalDesk, client: Client) -> None:
    """A yes before the no does not count after it."""
    given = {"approval": (await filed(client, BOARD)).approval_id}
    await desk.approval_approve(actor=BEN, **given, evidence=["ticket=7"])
    denied = await desk.approval_deny(actor=ANNA, **given)
    assert (denied["said_yes"], denied["evidence_missing"]) == (0, ["ticket"])


@pytest.mark.parametrize(
    ("asked_by", "who"),
    [
        ({"owner": "Carl", "contacts": ["mailto:x@example.com"]}, "Carl"),
        ({"node": "web-01", "thumbprint": "zFtUlQaK37geca"}, "web-01"),
        (
            {"contacts": ["mailto:x@example.com", "mailto:y@example.com"], "thumbprint": "zFtU"},
            "x@example.com, y@example.com",
        ),
        ({"thumbprint": "zFtUlQaK37geca-IyjkV"}, "key zFtUlQaK37ge…"),
        ({}, None),
    ],
    ids=["owner", "node", "contacts", "key", "nothing"],
)
def test_who_asks_is_told_by_what_is_known(asked_by: dict[str, Any], who: str | None) -> None:
    """The nearest to a person comes first."""
    assert approvals._who(asked_by) == who


async def test_whole_life_by_commands(desk: ApprovalDesk, client: Client) -> None:
    """Approved by two, suspended, resumed, renewed, withdrawn."""
    given = {"approval": (await filed(client, BOARD)).approval_id}
    await desk.approval_approve(actor=ANNA, **given, evidence=["ticket=7"])
    steps = [
        (await desk.approval_approve(actor=BEN, **given))["status"],
        (await desk.approval_suspend(actor=ANNA, **given))["status"],
        (await desk.approval_resume(actor=BEN, **given))["status"],
        (await desk.approval_renew(actor=BEN, **given))["status"],
        (await desk.approval_withdraw(actor=ANNA, **given))["status"],
    ]
    assert steps == ["approved", "suspended", "approved", "approved", "withdrawn"]


async def test_no_is_said_with_a_reason(desk: ApprovalDesk, client: Client) -> None:
    """The requester reads it."""
    approval = (await filed(client, HOST)).approval_id
    with pytest.raises(OperationError, match="whoever asked is told why not"):
        await desk.approval_deny(actor=Actor("operator:anna"), approval=approval)
    denied = await desk.approval_deny(actor=ANNA, approval=approval)
    assert (denied["status"], denied["reason"]) == ("denied", ANNA.reason)


async def test_desk_without_approvals_says_so(rooms: Rooms) -> None:
    """Where a desk is tried without."""
    desk = OperatorDesk(replace(rooms, approvals=None))
    with pytest.raises(OperationError, match="has no approvals"):
        await desk.approval_show(approval="a1")


# ------------------------------------------------------------------------------------- accounts

ACCOUNTS = """\
accounts:
  approval: {people: 2}
"""


@pytest.fixture
async def account(world: World) -> str:
    """A request for an account."""
    world.policies.set(POLICY + ACCOUNTS)
    with pytest.raises(Problem) as refused:
        await world.client()
    return str(refused.value.instance).rpartition("/")[2]


async def test_account_is_given_its_key_by_the_last_yes(desk: ApprovalDesk, account: str) -> None:
    """In that answer and in no other."""
    given: dict[str, Any] = {
        "approval": account,
        "names": ["**.example.com"],
        "profiles": ["server"],
        "owner": "web team",
    }
    first = await desk.approval_approve(actor=ANNA, **given)
    assert (first["status"], "mac_key" in first, first["eab_key"]) == ("waiting", False, None)
    last = await desk.approval_approve(actor=BEN, **given)
    assert (last["status"], last["key_id"]) == ("approved", last["eab_key"])
    assert len(last["mac_key"]) == 43
    shown = await desk.approval_show(approval=account)
    assert "mac_key" not in shown
    (key,) = [one for one in await desk._rooms.enrollment.list("default") if one.label != ""
              and one.key_id == last["key_id"]]  # fmt: skip
    assert (key.names, key.profiles) == (("**.example.com",), ("server",))
    assert key.owner == "web team"


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"profiles": ["nothing"]}, "has no profile 'nothing'"),
        ({"names": ["a..b"]}, "a..b"),
    ],
    ids=["profile", "name"],
)
async def test_limits_that_cannot_be_are_refused(
    desk: ApprovalDesk, account: str, limits: dict[str, Any], says: str
) -> None:
    """Before anybody has said yes."""
    with pytest.raises(OperationError, match=says):
        await desk.approval_approve(actor=ANNA, approval=account, **limits)
    assert (await desk.approval_show(approval=account))["answers"] == []


async def test_names_are_opened_as_they_were_asked_for(desk: ApprovalDesk, client: Client) -> None:
    """Nobody narrows or widens them on the way."""
    approval = (await filed(client, HOST)).approval_id
    with pytest.raises(OperationError, match="is for names, which are those"):
        await desk.approval_approve(actor=ANNA, approval=approval, names=["**.example.com"])


async def test_key_of_a_withdrawn_account_is_revoked(desk: ApprovalDesk, account: str) -> None:
    """Whether or not somebody has bound it."""
    for actor in (ANNA, BEN):
        made = await desk.approval_approve(actor=actor, approval=account)
    await desk.approval_withdraw(actor=ANNA, approval=account)
    (key,) = [one for one in await desk._rooms.enrollment.list("default")
              if one.key_id == made["key_id"]]  # fmt: skip
    assert key.revoked_at is not None
