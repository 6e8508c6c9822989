"""Signatures are noted beside what they were made for."""

import asyncio
import json

from broker.issuance.events import EventKind
from broker.issuance.signatures import MAX_WAITING, SignatureNotes, signing_for
from tests.fakes.clock import FakeClock


def made() -> SignatureNotes:
    """Return notes without any."""
    return SignatureNotes(FakeClock())


def test_signatures_of_an_order_stand_in_one_event() -> None:
    """With the name that Vault gave each request, in their order."""
    notes = made()
    with signing_for("fulfil", "o1"):
        notes.note("vault:transit/k#1", "r1")
        notes.note("vault:transit/k#1", "r2")
    (event,) = notes.take()
    assert (event.kind, event.order_id) == (EventKind.SIGNATURES_MADE, "o1")
    assert [one["vault_request"] for one in event.data["signatures"]] == ["r1", "r2"]  # type: ignore[attr-defined]
    assert (event.data["for"], event.data["subject"]) == ("fulfil", "o1")
    assert json.dumps(event.data)


def test_signatures_are_given_out_once() -> None:
    """The commit that takes them along has them."""
    notes = made()
    notes.note("k", "r")
    assert notes.is_waiting
    assert len(notes.take()) == 1
    assert notes.take() == ()
    assert not notes.is_waiting


def test_other_purposes_have_events_of_their_own() -> None:
    """A revocation is about a certificate, a command about nothing that is known here."""
    notes = made()
    with signing_for("revoke", "c1"):
        notes.note("k", "r1")
    notes.note("k", None)
    revoking, other = notes.take()
    assert (revoking.order_id, revoking.data["subject"]) == (None, "c1")
    assert "for" not in other.data
    assert other.data["signatures"][0]["vault_request"] is None  # type: ignore[index]


async def test_purpose_goes_with_the_tasks_that_are_started() -> None:
    """Nothing in between hands it down."""
    notes = made()

    async def ask() -> None:
        notes.note("k", "r")

    with signing_for("prepare", "o2"):
        await asyncio.create_task(ask())
    assert notes.take()[0].order_id == "o2"


def test_signatures_apart_make_no_event() -> None:
    """They are where their maker looks for them."""
    notes = made()
    with signing_for("checkpoint", "7", apart=True) as collected:
        notes.note("k", "r")
    assert [one.request for one in collected] == ["r"]
    assert not notes.is_waiting


def test_waiting_signatures_are_bounded() -> None:
    """Past the bound they are counted, and the next event says so."""
    notes = made()
    for _ in range(MAX_WAITING + 3):
        notes.note("k", "r")
    (event,) = notes.take()
    assert event.data["left_out_before"] == 3
