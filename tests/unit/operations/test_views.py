"""Records as an operator sees them."""

from datetime import timedelta

import pytest

from broker.issuance.events import Event, EventKind
from broker.issuance.records import EabKeyRecord, Suspension
from broker.operations.views import (
    authorization_view,
    eab_view,
    event_view,
    lever_of,
    order_view,
    suspension_view,
    work_view,
)
from tests.fakes.clock import START
from tests.fakes.workflows import authorization_record, order_record


@pytest.mark.parametrize(
    ("kinds", "planned", "lever"),
    [
        ([EventKind.CERTIFICATE_ISSUED], "ask", "ask"),
        ([EventKind.CERTIFICATE_ISSUED], "profile", "profile"),
        ([EventKind.CERTIFICATE_WITHHELD], "ask", "verify"),
        ([], None, None),
    ],
    ids=["ask", "profile", "verify", "none"],
)
def test_lever_is_the_one_that_held(
    kinds: list[EventKind], planned: str | None, lever: str | None
) -> None:
    """The planned one, unless what came back had to be withheld."""
    decision = {"lever": planned} if planned else {}
    events = [Event(kind=kind, at=START) for kind in kinds]
    assert lever_of(order_record("a", decision=decision), events) == lever


def test_times_and_lengths_are_readable() -> None:
    """RFC 3339, and durations as the policy writes them."""
    shown = order_view(order_record("a"))
    assert shown["created"] == "2026-03-01T12:00:00Z"
    assert shown["cap"] == "90d"
    assert shown["not_after"] is None


def test_wildcard_is_shown_as_it_was_ordered() -> None:
    """The label that the authorization leaves out is put back."""
    assert authorization_view(authorization_record("a", is_wildcard=True))["name"] == (
        "*.www.corp.example"
    )


def test_mac_key_is_never_shown() -> None:
    """Not even its length."""
    key = EabKeyRecord(
        key_id="k1",
        community="default",
        label="build farm",
        mac_key=b"hunter2",
        names=(),
        profiles=(),
        is_reusable=False,
        created_at=START,
        expires_at=START + timedelta(days=1),
        revoked_at=None,
        bound_account_id=None,
    )
    shown = eab_view(key)
    assert "hunter2" not in str(shown)
    assert shown["expires"] == "2026-03-02T12:00:00Z"


def test_suspension_names_its_rule() -> None:
    """So that whoever resumes knows what was broken."""
    shown = suspension_view(
        Suspension(upstream="ca", upstream_profile=None, since=START, order_id="o1", rule="cap")
    )
    assert (shown["rule"], shown["order"]) == ("cap", "o1")


def test_event_has_its_number_and_actor() -> None:
    """As the table has them."""
    shown = event_view(7, Event(kind=EventKind.ORDER_READY, at=START, data={"a": 1}))
    assert (shown["number"], shown["actor"], shown["data"]) == (7, "system", {"a": 1})


def test_order_without_upstream_work_has_none() -> None:
    """Before finalize there may be nothing yet."""
    assert work_view(None) is None
