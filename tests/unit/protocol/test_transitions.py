"""The status tables, every pair of status and event."""

from collections.abc import Callable
from enum import Enum, StrEnum
from itertools import product
from typing import Any

import pytest

from broker.protocol.resources import (
    AccountStatus,
    AuthorizationStatus,
    ChallengeStatus,
    OrderStatus,
)
from broker.protocol.transitions import (
    AccountEvent,
    AuthorizationEvent,
    ChallengeEvent,
    IllegalTransition,
    OrderEvent,
    advance_account,
    advance_authorization,
    advance_challenge,
    advance_order,
    render_diagrams,
)

ALLOWED: dict[Callable[[Any, Any], StrEnum], set[tuple[str, str, str]]] = {
    advance_account: {
        ("valid", "DEACTIVATED", "deactivated"),
        ("valid", "REVOKED", "revoked"),
    },
    advance_order: {
        ("pending", "AUTHORIZED", "ready"),
        ("pending", "AUTHORIZATION_FAILED", "invalid"),
        ("pending", "EXPIRED", "invalid"),
        ("ready", "FINALIZE_ACCEPTED", "processing"),
        ("ready", "AUTHORIZATION_FAILED", "invalid"),
        ("ready", "EXPIRED", "invalid"),
        ("processing", "ISSUED", "valid"),
        ("processing", "ISSUANCE_REFUSED", "invalid"),
    },
    advance_authorization: {
        ("pending", "CHALLENGE_VALID", "valid"),
        ("pending", "CHALLENGE_INVALID", "invalid"),
        ("pending", "DEACTIVATED", "deactivated"),
        ("pending", "EXPIRED", "expired"),
        ("pending", "REVOKED", "revoked"),
        ("valid", "DEACTIVATED", "deactivated"),
        ("valid", "EXPIRED", "expired"),
        ("valid", "REVOKED", "revoked"),
    },
    advance_challenge: {
        ("pending", "RESPONDED", "processing"),
        ("processing", "RESPONDED", "processing"),
        ("processing", "LOOK_FAILED", "processing"),
        ("processing", "VALIDATED", "valid"),
        ("processing", "FAILED", "invalid"),
    },
}

KINDS: list[tuple[Callable[[Any, Any], StrEnum], type[StrEnum], type[Enum]]] = [
    (advance_account, AccountStatus, AccountEvent),
    (advance_order, OrderStatus, OrderEvent),
    (advance_authorization, AuthorizationStatus, AuthorizationEvent),
    (advance_challenge, ChallengeStatus, ChallengeEvent),
]

PAIRS = [
    pytest.param(advance, status, event, id=f"{statuses.__name__} {status} {event.name}")
    for advance, statuses, events in KINDS
    for status, event in product(statuses, events)
]


@pytest.mark.parametrize(("advance", "status", "event"), PAIRS)
def test_every_pair_of_status_and_event(
    advance: Callable[[Any, Any], StrEnum], status: StrEnum, event: Enum
) -> None:
    """An allowed event leads where RFC 8555 §7.1.6 draws the arrow, any other is illegal."""
    targets = [to for at, name, to in ALLOWED[advance] if (at, name) == (status, event.name)]
    if targets:
        assert advance(status, event) == targets[0]
        return
    with pytest.raises(IllegalTransition) as caught:
        advance(status, event)
    assert (caught.value.status, caught.value.event) == (status, event)
    assert str(status) in str(caught.value)
    assert event.name in str(caught.value)


def test_processing_never_expires() -> None:
    """An upstream that does not answer is no event: the order waits for an answer."""
    with pytest.raises(IllegalTransition):
        advance_order(OrderStatus.PROCESSING, OrderEvent.EXPIRED)
    assert advance_order(OrderStatus.READY, OrderEvent.EXPIRED) is OrderStatus.INVALID


def test_events_of_another_kind_are_illegal() -> None:
    """Expiry of an authorization is not expiry of an order, though both are called so."""
    with pytest.raises(IllegalTransition):
        advance_order(OrderStatus.PENDING, AuthorizationEvent.EXPIRED)  # type: ignore[arg-type]


def test_diagram_draws_every_arrow_and_no_other() -> None:
    """The document is drawn from the tables, so it cannot drift from them."""
    text = render_diagrams()
    titles = ["Account", "Order", "Authorization", "Challenge"]
    assert [line[4:] for line in text.splitlines() if line.startswith("### ")] == titles
    sections = text.split("### ")[1:]
    for section, (advance, statuses, _) in zip(sections, KINDS, strict=True):
        drawn = {
            tuple(line.split(":")[0].split(" --> "))
            for line in map(str.strip, section.splitlines())
            if " --> " in line and "[*]" not in line
        }
        assert drawn == {(at, to) for at, _, to in ALLOWED[advance]}
        assert f"[*] --> {next(iter(statuses))}" in section


def test_diagram_ends_at_the_final_statuses() -> None:
    """A status without an arrow out of it is an end."""
    order = render_diagrams().split("### ")[2]
    ends = {line.split()[0] for line in order.splitlines() if line.endswith("--> [*]")}
    assert ends == {"valid", "invalid"}
