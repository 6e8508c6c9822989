"""Each of SQLite's faults is one of our outcomes, in a sentence without a library's exception."""

import sqlite3
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Conflict, Unreachable
from broker.storage.faults import StoreLocked, fault_of, is_io_fault


def fault(code: int, name: str, text: str = "text") -> sqlite3.OperationalError:
    """Return an error as SQLite would raise it."""
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("code", "name", "kind", "sentence"),
    [
        (sqlite3.SQLITE_FULL, "FULL", Unreachable, "store has no space left on its disk (FULL)"),
        (sqlite3.SQLITE_BUSY, "BUSY", Unreachable, "store is locked by another program (BUSY)"),
        (
            sqlite3.SQLITE_BUSY_SNAPSHOT,
            "BUSY_SNAPSHOT",
            Unreachable,
            "store is locked by another program (BUSY_SNAPSHOT)",
        ),
        (
            sqlite3.SQLITE_IOERR_FSYNC,
            "IOERR_FSYNC",
            Unreachable,
            "store cannot be read or written (IOERR_FSYNC)",
        ),
        (sqlite3.SQLITE_READONLY, "READONLY", Unreachable, "store is read-only (READONLY)"),
        (sqlite3.SQLITE_CANTOPEN, "CANTOPEN", Unreachable, "store cannot be opened (CANTOPEN)"),
        (sqlite3.SQLITE_NOMEM, "NOMEM", Unreachable, "store has no memory left (NOMEM)"),
        (
            sqlite3.SQLITE_CORRUPT,
            "CORRUPT",
            Broken,
            "store is damaged: text (CORRUPT); restore it from a backup",
        ),
        (
            sqlite3.SQLITE_NOTADB,
            "NOTADB",
            Broken,
            "store is damaged: text (NOTADB); restore it from a backup",
        ),
        (
            sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY,
            "FOREIGNKEY",
            Broken,
            "store refused: text (FOREIGNKEY)",
        ),
        (sqlite3.SQLITE_ERROR, "ERROR", Broken, "store refused: text (ERROR)"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isupper() else "",
)
def test_fault_is_cut_by_what_to_do_next(
    code: int, name: str, kind: type[Exception], sentence: str
) -> None:
    """What may pass is Unreachable, what needs a person is Broken."""
    outcome = fault_of(fault(code, name))
    assert type(outcome) is kind
    assert outcome.reason == sentence


@pytest.mark.parametrize(
    "code",
    [
        sqlite3.SQLITE_CONSTRAINT_UNIQUE,
        sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        sqlite3.SQLITE_CONSTRAINT_ROWID,
    ],
    ids=["unique", "primary key", "rowid"],
)
def test_row_that_is_there_already_is_a_conflict(code: int) -> None:
    """The columns are named."""
    outcome = fault_of(fault(code, "X", "UNIQUE constraint failed: orders.order_id"))
    assert isinstance(outcome, Conflict)
    assert outcome.reason == "store holds another row with the same orders.order_id"


def test_fault_of_the_module_itself_is_broken() -> None:
    """One that carries no code of SQLite's is a fault of our own use."""
    outcome = fault_of(sqlite3.ProgrammingError("Cannot operate on a closed database."))
    assert isinstance(outcome, Broken)
    assert "ProgrammingError" in outcome.reason


def test_only_a_failing_disk_is_suspect() -> None:
    """A full disk has lost nothing; one that failed may have."""
    assert is_io_fault(fault(sqlite3.SQLITE_IOERR_FSYNC, "IOERR_FSYNC"))
    assert is_io_fault(fault(sqlite3.SQLITE_IOERR, "IOERR"))
    assert not is_io_fault(fault(sqlite3.SQLITE_FULL, "FULL"))
    assert not is_io_fault(sqlite3.ProgrammingError("closed"))


@pytest.mark.parametrize(
    ("pid", "sentence"),
    [
        (42, "store /s.db is in use by process 42"),
        (None, "store /s.db is in use by another process"),
    ],
    ids=["known", "unknown"],
)
def test_locked_store_names_its_holder(pid: int | None, sentence: str) -> None:
    """The process id stands in the sentence when the lock file tells it."""
    assert StoreLocked(Path("/s.db"), pid).reason == sentence
