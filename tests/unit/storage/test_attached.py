"""What rides in a transaction, against a bare connection."""

import sqlite3
from enum import StrEnum

import pytest

from broker.issuance.ports import Attached
from broker.issuance.records import JobKind
from broker.storage.attached import attach, delete_job, refuse, upsert_jobs
from broker.storage.transaction import Transaction
from tests.contract.storage import given
from tests.contract.storage.given import HOUR, NOW


class Word(StrEnum):
    """Statuses of a thing."""

    OPEN = "open"
    SHUT = "shut"
    GONE = "gone"


@pytest.fixture
def transaction(connection: sqlite3.Connection) -> Transaction:
    """A transaction on an empty store."""
    return Transaction(connection, is_durable=False)


def jobs(transaction: Transaction) -> list[tuple[str, str]]:
    """Return the jobs that are queued."""
    return [(row[0], row[1]) for row in transaction.all("SELECT kind, subject FROM jobs")]


def test_job_of_work_that_the_caller_did_not_keep_is_dropped(transaction: Transaction) -> None:
    """Its PREPARE job goes with it; a job of another kind with that subject stays."""
    attached = Attached(
        jobs=(
            given.job(JobKind.PREPARE, subject="w"),
            given.job(JobKind.VALIDATE, subject="w"),
            given.job(JobKind.PREPARE, subject="other"),
        )
    )
    attach(transaction, attached, without_work="w")
    assert jobs(transaction) == [("prepare", "other"), ("validate", "w")]


def test_job_is_due_as_early_as_either_wants(transaction: Transaction) -> None:
    """A second row of the same name only ever hurries the first."""
    for hours, expected in ((0, 0), (1, 0), (-1, -1)):
        upsert_jobs(transaction, [given.job(subject="s", due_at=NOW + hours * HOUR)])
        (row,) = transaction.all("SELECT due_at FROM jobs")
        assert row[0] == int((NOW + expected * HOUR).timestamp() * 1_000_000)


def test_job_that_is_not_there_is_deleted_without_complaint(transaction: Transaction) -> None:
    """Done is done."""
    delete_job(transaction, JobKind.FULFIL, "nothing")
    assert jobs(transaction) == []


@pytest.mark.parametrize(
    ("found", "expected", "sentence"),
    [
        (None, Word.OPEN, "door 1 is unknown"),
        (("shut",), Word.OPEN, "door 1 is shut, expected open"),
        (("shut",), (Word.OPEN, Word.GONE), "door 1 is shut, expected gone or open"),
    ],
    ids=["unknown", "one expected", "several expected"],
)
def test_refusal_says_what_was_found_and_expected(
    found: tuple[str] | None, expected: Word | tuple[Word, ...], sentence: str
) -> None:
    """The thing first, then what it is, then what it should have been."""
    assert refuse("door 1", found, expected).reason == sentence
