"""A restored broker: what is listed passes, and nothing else does."""

from datetime import UTC, datetime
from typing import Any

import pytest

from broker.app.held import COMMANDS, READS, held_operations, held_workflows
from broker.issuance.origins import NOWHERE
from broker.issuance.records import RestorationRecord
from broker.issuance.standstill import Standstill
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import NewAccount
from broker.web import operator, workflows
from broker.web.operator import OperationError

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)


def standing_still() -> Standstill:
    """Return a standstill that holds."""
    return Standstill(
        RestorationRecord(
            restoration_id="r",
            backup_id="b",
            backup_at=AT,
            restored_at=AT,
            reconciled_at=None,
            report={},
        )
    )


class Remembering:
    """Does what it is asked, and remembers it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.existing = False

    def __getattr__(self, name: str) -> Any:
        async def answer(*_arguments: object, **_named: object) -> str:
            self.asked.append(name)
            return "done"

        return answer


class Accounts(Remembering):
    """Has the account of a key, or has not."""

    async def register(
        self, community: str, key: Any, request: NewAccount, binding: Any, *, origin: Any
    ) -> Any:
        self.asked.append("register")
        if request.only_return_existing and not self.existing:
            raise Problem(ProblemType.ACCOUNT_DOES_NOT_EXIST, "no account has this key")
        return "account", not self.existing


def held(standstill: Standstill) -> tuple[Any, Remembering, Accounts]:
    """Return held workflows, and what is behind them."""
    inner, accounts = Remembering(), Accounts()
    names = workflows.Workflows.__dataclass_fields__
    made = workflows.Workflows(**{**dict.fromkeys(names, inner), "accounts": accounts})
    return held_workflows(made, standstill), inner, accounts


CHANGES = [
    (field, method)
    for field, port in (
        ("orders", workflows.Orders),
        ("authorizations", workflows.Authorizations),
        ("revocations", workflows.Revocations),
        ("key_changes", workflows.KeyChanges),
        ("accounts", workflows.Accounts),
    )
    for method in vars(port)
    if not method.startswith("_") and method not in READS and method != "register"
]


@pytest.mark.parametrize(("field", "method"), CHANGES)
async def test_change_is_refused_until_the_standstill_is_lifted(field: str, method: str) -> None:
    """And is done afterwards, without a restart."""
    standstill = standing_still()
    made, inner, accounts = held(standstill)
    with pytest.raises(Problem) as refused:
        await getattr(getattr(made, field), method)()
    assert refused.value.status == 403
    assert [*inner.asked, *accounts.asked] == []
    standstill.lift()
    await getattr(getattr(made, field), method)()
    assert [*inner.asked, *accounts.asked] == [method]


@pytest.mark.parametrize("field", ["orders", "authorizations"])
async def test_reading_passes(field: str) -> None:
    """Clients go on polling, and fetch what there is."""
    made, inner, _ = held(standing_still())
    assert await getattr(made, field).read() == "done"
    assert inner.asked == ["read"]


async def test_account_that_exists_is_found() -> None:
    """However the client asks for it; a new one is not made."""
    made, _, accounts = held(standing_still())
    wanted = NewAccount(contacts=(), terms_agreed=True, only_return_existing=False, eab=None)
    with pytest.raises(Problem) as refused:
        await made.accounts.register("default", None, wanted, None, origin=NOWHERE)
    assert refused.value.status == 403
    accounts.existing = True
    assert await made.accounts.register("default", None, wanted, None, origin=NOWHERE) == (
        "account",
        False,
    )


@pytest.mark.parametrize("command", sorted(operator.COMMANDS))
async def test_operator_commands_pass_by_name(command: str) -> None:
    """What looks, and what mends what stands in the way."""
    inner = Remembering()
    made = held_operations(inner, standing_still())
    if command in COMMANDS:
        await getattr(made, command)()
        assert inner.asked == [command]
    else:
        with pytest.raises(OperationError, match="restored from the backup"):
            await getattr(made, command)()
        assert inner.asked == []


def test_every_listed_command_exists() -> None:
    """A name that nobody has would hold nothing up."""
    assert operator.COMMANDS >= COMMANDS


def test_nothing_stands_before_a_broker_that_was_not_restored() -> None:
    """Its requests pay nothing for it."""
    made, _, accounts = held(Standstill(None))
    assert made.accounts is accounts
    inner = Remembering()
    assert held_operations(inner, Standstill(None)) is inner
