"""Records are frozen values whose words are what the store holds."""

import dataclasses
import inspect

import pytest

from broker.issuance import records
from broker.issuance.records import JobKind, Proof, WorkStatus

RECORDS = [
    made
    for _, made in inspect.getmembers(records, dataclasses.is_dataclass)
    if made.__module__ == records.__name__
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda one: one.__name__)
def test_record_is_frozen_has_slots_and_is_told_by_name(record: type) -> None:
    """A copy is a change that somebody wrote; a typo is an error; no argument goes by position."""
    assert record.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(record)
    assert all(one.kw_only for one in dataclasses.fields(record))


@pytest.mark.parametrize("record", RECORDS, ids=lambda one: one.__name__)
def test_record_with_an_owner_always_has_one(record: type) -> None:
    """An owner that may be missing is an owner that will not be checked."""
    owners = [one for one in dataclasses.fields(record) if one.name in ("account_id", "community")]
    assert all(one.type == "str" and one.default is dataclasses.MISSING for one in owners)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (WorkStatus, ["intended", "opened", "finalizing", "accepted", "spent", "dead"]),
        (
            JobKind,
            [
                "validate",
                "prepare",
                "fulfil",
                "caa",
                "revoke",
                "retire",
                "incident",
                "deliver",
                "withdraw",
            ],
        ),
        (Proof, ["challenge", "policy"]),
    ],
    ids=["work", "jobs", "proof"],
)
def test_words_that_are_kept_stay_as_they_are(words: type, expected: list[str]) -> None:
    """A database of yesterday holds them, and so do the store's own statements."""
    assert [one.value for one in words] == expected  # type: ignore[attr-defined]


def test_every_record_is_exported() -> None:
    """What the ports speak of can be imported by name."""
    assert {one.__name__ for one in RECORDS} <= set(records.__all__)
