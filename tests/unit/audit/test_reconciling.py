"""Vault's log held against the trail, both ways."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.audit.reconciling import (
    KeptSignature,
    Reconciled,
    key_of,
    read_signature,
    signatures_of,
)
from broker.issuance.audit_chain import GENESIS, ChainedRecord, canonical

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KEY = "transit/penstock.default.ca"


def entry(request: str, minutes: float, **changes: Any) -> dict[str, Any]:
    """Return an entry of Vault's log, as 2.x writes it."""
    at = (NOON + timedelta(minutes=minutes)).isoformat().replace("+00:00", "")
    if "." not in at:
        at += ".123456789"
    return {
        "time": at + "Z",
        "type": "response",
        "auth": {"display_name": "token"},
        "request": {"id": request, "operation": "update", "path": f"{KEY}/x"},
        **changes,
    }


def signed(request: str, minutes: float = 10, key: str = KEY, **changes: Any) -> str:
    """Return the line of a signature."""
    mount, _, name = key.rpartition("/")
    asked = {"id": request, "operation": "update", "path": f"{mount}/sign/{name}/sha2-256"}
    return json.dumps({**entry(request, minutes), "request": asked, **changes})


def kept(request: str | None, minutes: float = 10) -> KeptSignature:
    """Return a signature of ours."""
    at = NOON + timedelta(minutes=minutes)
    return KeptSignature(request=request, key=KEY, at=at, purpose="fulfil o1", seq=1)


def reconciled(*lines: str) -> Reconciled:
    """Return what was read of a log from noon to half past one."""
    found = Reconciled()
    for line in (json.dumps(entry("a", 0)), *lines, json.dumps(entry("z", 90)), "", "no json"):
        found.read(line)
    return found


def test_signature_on_both_sides_matches() -> None:
    """By Vault's name of the request."""
    found = reconciled(signed("r1"))
    found.compare([kept("r1")])
    assert (found.matched, found.only_there, found.only_here) == (1, [], [])


def test_signature_in_vault_alone_is_named() -> None:
    """Somebody else used the key."""
    found = reconciled(signed("r1"), signed("r2"))
    found.compare([kept("r1")])
    assert [(one.request, one.key) for one in found.only_there] == [("r2", KEY)]


def test_signature_here_alone_is_named() -> None:
    """An event says what Vault never did."""
    found = reconciled(signed("r1"))
    found.compare([kept("r1"), kept("r2")])
    assert [one.request for one in found.only_here] == ["r2"]


def test_request_without_an_answer_explains_one_signature() -> None:
    """It may have been made; a second one has no such explanation."""
    found = reconciled(signed("r1"), signed("r2"))
    found.compare([kept(None, minutes=10.5)])
    assert (found.unanswered, len(found.only_there)) == (1, 1)


def test_signature_outside_of_the_log_is_counted() -> None:
    """A log that was rotated tells nothing about before."""
    found = reconciled()
    found.compare([kept("r1", minutes=-60), kept("r2", minutes=120)])
    assert (found.outside, found.only_here) == (2, [])


def test_keys_of_others_are_counted_by_name() -> None:
    """They are not this broker's affair, and are not hidden."""
    found = reconciled(signed("r1", key="other/app"))
    found.compare([], {KEY})
    assert (found.others, found.only_there) == ({"other/app": 1}, [])


def test_key_that_is_named_is_ours_without_a_record() -> None:
    """Whoever used it alone is found."""
    found = reconciled(signed("r1"))
    found.compare([], {KEY})
    assert ([one.request for one in found.only_there], found.others) == (["r1"], {})


def test_comparing_again_begins_anew() -> None:
    """Nothing of the first time is counted twice, and what came meanwhile has its place."""
    found = reconciled(signed("r1"), signed("r2"), signed("r3"), signed("o1", key="other/app"))
    early = [kept("r1"), kept("r8"), kept("r9", minutes=-60), kept(None, minutes=10.5)]
    found.compare(early)
    assert (found.matched, [one.request for one in found.only_there]) == (1, ["r3"])
    for _ in range(2):
        found.compare([*early, kept("r3")])
        assert (found.matched, found.unanswered, found.outside) == (2, 1, 1)
        assert (found.only_there, [one.request for one in found.only_here]) == ([], ["r8"])
        assert (len(found.signed), found.others) == (3, {"other/app": 1})


def test_request_given_up_after_the_log_ends_explains_one_in_it() -> None:
    """It was made before that; one that explains nothing is outside of the log."""
    found = reconciled(signed("r1", minutes=89.99))
    found.compare([kept(None, minutes=90.05), kept(None, minutes=90.06)])
    assert (found.unanswered, found.outside, found.only_there) == (1, 1, [])


def test_youngest_that_is_only_there_is_told() -> None:
    """By the log's own time; one that has its record is none."""
    found = reconciled(signed("r1", minutes=10), signed("r2", minutes=20))
    found.compare([kept("r2", minutes=20)])
    assert found.has_made_since(NOON + timedelta(minutes=9))
    assert not found.has_made_since(NOON + timedelta(minutes=11))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"type": "request"}, id="before the answer"),
        pytest.param({"error": "permission denied"}, id="refused"),
        pytest.param({"time": "yesterday"}, id="without a time"),
    ],
)
def test_entry_that_is_no_signature_counts_for_none(changes: dict[str, Any]) -> None:
    """Each request is logged twice, and a refused one signed nothing."""
    assert read_signature(json.loads(signed("r1", **changes))) is None
    assert read_signature(entry("r1", 1)) is None


def test_signatures_are_read_from_records() -> None:
    """And from no other kind of record."""
    data = {
        "for": "fulfil",
        "subject": "o1",
        "signatures": [{"key": f"vault:{KEY}#3", "vault_request": "r1", "at": "x"}],
    }
    columns = ("signatures-made", 0, "system", None, None, None, None, None, canonical(data))
    (one,) = signatures_of(ChainedRecord(4, columns, GENESIS, GENESIS))
    assert (one.key, one.request, one.purpose, one.seq) == (KEY, "r1", "fulfil o1", 4)
    other = ("order-created", *columns[1:])
    assert signatures_of(ChainedRecord(4, other, GENESIS, GENESIS)) == ()


def test_key_is_named_without_its_version() -> None:
    """Vault's log names none."""
    assert key_of(f"vault:{KEY}#3") == KEY
