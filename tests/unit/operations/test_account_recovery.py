"""The desk's commands about accounts that are lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.issuance.account_health import Loss
from broker.issuance.account_ports import LossCause, Replaced
from broker.issuance.account_recovery import Recovered
from broker.issuance.caa_guard import GuardedName
from broker.issuance.errors import Refused, Unreachable
from broker.issuance.events import Event, EventKind
from broker.operations import OperatorDesk
from broker.protocol.caa import CaaRecord
from broker.protocol.problems import Problem, ProblemType
from broker.web.operator import OperationError
from tests.fakes.accounts_asked import URL, account_record
from tests.fakes.clock import START
from tests.unit.operations.conftest import ANNA, Office

NEW_URL = "https://ca.example/acct/2"


def loss_of(community: str, cause: LossCause = LossCause.KEY_GONE) -> Loss:
    """Return a loss."""
    return Loss(
        upstream="ca",
        community=community,
        cause=cause,
        sentence="key k is not there",
        account_url=URL,
        since=START,
        pin="k#4" if cause is LossCause.STORE_OLDER else None,
    )


class FakeHealth:
    """Has the accounts of these communities lost."""

    def __init__(self, *lost: str) -> None:
        self.lost = set(lost)

    def loss(self, upstream: str, community: str) -> Loss | None:
        return loss_of(community) if community in self.lost else None

    async def look(self, upstream: str, community: str) -> Loss | None:
        return self.loss(upstream, community)

    async def found(self, record: Any) -> None:
        self.lost.discard(record.community)


class FakeRecoveries:
    """Recovers whatever it is asked to."""

    def __init__(self, cause: LossCause = LossCause.KEY_GONE) -> None:
        self.cause = cause
        self.asked: list[str] = []
        self.refusal: Exception | None = None
        self.failures: dict[str, Exception] = {}

    async def recover(self, upstream: str, community: str, **asked: Any) -> Recovered:
        self.asked.append(community)
        if self.refusal is not None:
            raise self.refusal
        if community in self.failures:
            raise self.failures[community]
        made = account_record(community=community, account_url=NEW_URL)
        return Recovered(
            loss=loss_of(community, self.cause),
            account=None if asked["is_dry_run"] else made,
            is_new=self.cause not in (LossCause.STORE_OLDER, LossCause.KEY_ARCHIVED),
            orders=Replaced(("o1",), ("o2",)),
            certificates=(),
            certificate_count=3,
        )


class FakeGuard:
    """Knows the records for one name."""

    async def records(self, *where: str, **asked: Any) -> Any:
        record = CaaRecord(flags=0, tag="issue", value=f"ca.example; accounturi={NEW_URL}")
        return [GuardedName("corp.example", (record,))]


async def desk_of(office: Office, health: FakeHealth, recoveries: FakeRecoveries) -> OperatorDesk:
    """Return the desk, with an account for each community at the CA."""
    for community in ("default", "lab"):
        await office.world.store.save_upstream_account(
            account_record(community=community),
            Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START),
        )
    made: Any = office.desk
    rooms = replace(
        made._rooms, account_health=health, account_recoveries=recoveries, caa=FakeGuard()
    )
    return OperatorDesk(rooms)


async def test_every_lost_account_is_recovered_and_no_other(office: Office) -> None:
    """Without a community: those that are lost."""
    recoveries = FakeRecoveries()
    desk = await desk_of(office, FakeHealth("lab"), recoveries)
    (row,) = await desk.upstream_recover(actor=ANNA, upstream="ca")
    assert recoveries.asked == ["lab"]
    assert (row["cause"], row["done"], row["account"]["url"]) == ("key-gone", True, NEW_URL)
    assert row["orders_begun_anew"] == ["o1"]
    assert row["orders_undecided"] == ["o2"]
    assert any(NEW_URL in line for line in row["caa"]["lines"])
    assert URL in row["caa"]["note"]
    assert len(row["revocation"]) == 3


async def test_nothing_lost_is_said(office: Office) -> None:
    """With what a person may have meant instead."""
    desk = await desk_of(office, FakeHealth(), FakeRecoveries())
    with pytest.raises(OperationError, match="nothing to recover") as told:
        await desk.upstream_recover(actor=ANNA, upstream="ca")
    assert "rotate-key" in (told.value.hint or "")


async def test_same_account_needs_no_records(office: Office) -> None:
    """Where the right key is pinned, its URL is what it was."""
    desk = await desk_of(office, FakeHealth("lab"), FakeRecoveries(LossCause.STORE_OLDER))
    (row,) = await desk.upstream_recover(actor=ANNA, upstream="ca", community="lab")
    assert row["caa"] is None
    assert row["remedy"] == "pin k#4"


async def test_dry_run_names_no_new_account(office: Office) -> None:
    """There is none yet."""
    desk = await desk_of(office, FakeHealth("lab"), FakeRecoveries())
    (row,) = await desk.upstream_recover(actor=ANNA, upstream="ca", dry_run=True)
    assert (row["done"], row["account"], row["caa"]["lines"]) == (False, None, [])


async def test_dry_run_does_not_promise_what_is_not_done(office: Office) -> None:
    """A version that is archived is allowed again, by those who may; no account is made."""
    desk = await desk_of(office, FakeHealth("lab"), FakeRecoveries(LossCause.KEY_ARCHIVED))
    (row,) = await desk.upstream_recover(actor=ANNA, upstream="ca", dry_run=True)
    assert row["remedy"] == "none here: lower the minimum versions in Vault"
    assert row["caa"] is None


@pytest.mark.parametrize(
    ("type_", "hint"),
    [
        (ProblemType.USER_ACTION_REQUIRED, "--agree-to-terms"),
        (ProblemType.EXTERNAL_ACCOUNT_REQUIRED, "external_account_binding"),
    ],
)
async def test_unwilling_ca_is_explained(office: Office, type_: ProblemType, hint: str) -> None:
    """With what to do before the next attempt."""
    recoveries = FakeRecoveries()
    recoveries.refusal = Refused(Problem(type_, "no"))
    desk = await desk_of(office, FakeHealth("lab"), recoveries)
    with pytest.raises(OperationError) as told:
        await desk.upstream_recover(actor=ANNA, upstream="ca")
    assert hint in (told.value.hint or "")


async def test_loss_is_listed_and_checked(office: Office) -> None:
    """`upstream list` shows it, and `upstream check` says what to do about it."""
    desk = await desk_of(office, FakeHealth("lab"), FakeRecoveries())
    rows = await desk.upstream_list()
    accounts = next(row for row in rows if row["upstream"] == "ca")["accounts"]
    shown = {each["community"]: each["lost"] for each in accounts}
    assert shown["default"] is None
    assert shown["lab"]["cause"] == "key-gone"
    checked = {row["community"]: row["faults"] for row in await desk.upstream_check(upstream="ca")}
    assert checked["default"] == []
    assert "penstock upstream recover ca" in checked["lab"][0]


async def test_former_accounts_are_listed(office: Office) -> None:
    """Those that another one was put in place of."""
    desk = await desk_of(office, FakeHealth(), FakeRecoveries())
    await office.world.store.save_upstream_account(
        account_record(account_url=NEW_URL),
        Event(kind=EventKind.UPSTREAM_ACCOUNT_REGISTERED, at=START),
    )
    (row,) = await desk.upstream_former(upstream="ca")
    assert (row["url"], row["cause"]) == (URL, "registered-anew")
    with pytest.raises(OperationError, match="no CA with accounts is called 'none'"):
        await desk.upstream_former(upstream="none")


async def test_order_that_there_is_not_is_told_as_it_is(office: Office) -> None:
    """It is not called one that waits for something else."""
    desk = await desk_of(office, FakeHealth(), FakeRecoveries())
    with pytest.raises(OperationError, match="there is no order 'none'"):
        await desk.order_again(actor=ANNA, order_id="none")


async def test_desk_without_recoveries_says_so(office: Office) -> None:
    """As with every other part that a desk may be tried without."""
    with pytest.raises(OperationError, match="recovers no accounts"):
        await office.desk.order_again(actor=ANNA, order_id="o1")


@pytest.mark.parametrize(
    "failure",
    [Unreachable("Vault is sealed"), Refused(Problem(ProblemType.EXTERNAL_ACCOUNT_REQUIRED, "no"))],
    ids=["unreachable", "refused"],
)
async def test_failure_after_others_tells_what_was_done(office: Office, failure: Exception) -> None:
    """The next attempt finds nothing lost there, so that it would never be told again."""
    recoveries = FakeRecoveries()
    recoveries.failures["lab"] = failure
    desk = await desk_of(office, FakeHealth("default", "lab"), recoveries)
    with pytest.raises(OperationError, match="of community 'lab' is not recovered") as told:
        await desk.upstream_recover(actor=ANNA, upstream="ca")
    hint = told.value.hint or ""
    assert "default" in hint
    assert "o2" in hint
    assert "penstock upstream caa ca" in hint
    assert "--community lab" in hint
