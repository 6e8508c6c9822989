"""What the web calls is what the workflows offer."""

import inspect
from collections.abc import Iterable

import pytest

from broker.issuance import (
    accounts,
    authorizations,
    handover,
    key_changes,
    orders,
    renewals,
    revocations,
)
from broker.web import workflows

PAIRS = [
    (workflows.Accounts, accounts.Accounts),
    (workflows.Orders, orders.Orders),
    (workflows.Authorizations, authorizations.Authorizations),
    (workflows.Revocations, revocations.Revocations),
    (workflows.KeyChanges, key_changes.KeyChanges),
    (workflows.Handover, handover.Handover),
    (workflows.Renewals, renewals.Renewals),
    (workflows.Handover, handover.Handover),
    (workflows.Renewals, renewals.Renewals),
]

METHODS = [
    (name, port, workflow)
    for port, workflow in PAIRS
    for name, member in vars(port).items()
    if inspect.iscoroutinefunction(member)
]


@pytest.mark.parametrize(
    ("name", "port", "workflow"),
    METHODS,
    ids=[f"{workflow.__name__}.{name}" for name, _, workflow in METHODS],
)
def test_workflow_has_the_method_that_the_web_calls(name: str, port: type, workflow: type) -> None:
    """Same name, as many arguments by position, and the same ones by name; it may have more by
    name that can be left out."""
    asked = inspect.signature(getattr(port, name)).parameters.values()
    offered = inspect.signature(getattr(workflow, name)).parameters.values()

    wanted = {p.name for p in asked if p.kind is p.KEYWORD_ONLY}

    def shape(parameters: Iterable[inspect.Parameter]) -> tuple[int, set[str]]:
        by_name = {p for p in parameters if p.kind is p.KEYWORD_ONLY}
        needed = {p.name for p in by_name if p.default is p.empty or p.name in wanted}
        return len(list(parameters)) - len(by_name), needed

    assert shape(asked) == shape(offered)
    assert inspect.iscoroutinefunction(getattr(workflow, name))


def test_every_method_is_compared() -> None:
    """The table above is not empty."""
    assert len(METHODS) == 17
