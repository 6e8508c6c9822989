"""What the parts of the store have in common: the database they work on."""

from __future__ import annotations

from broker.storage.database import Database
from broker.storage.transaction import Snapshot

__all__ = ["Part", "page_start"]

PAGE_END: tuple[int, str] = (2**63 - 1, "")
"""Where a newest-first list begins: later than any (time, id)."""


class Part:
    """A group of ports over one database; `sqlite.SqliteStore` is all of them."""

    def __init__(self, database: Database) -> None:
        """Work on *database*."""
        self._database = database


def page_start(
    snapshot: Snapshot, statement: str, after: str | None, *further: object
) -> tuple[int, str] | None:
    """Return the (time, id) that a newest-first page starts below.

    *statement* looks up the (time, id) of the row named *after*; *further* are its other
    parameters.  None when there is no such row: the page is empty then.
    """
    if after is None:
        return PAGE_END
    found = snapshot.first(statement, after, *further)
    return None if found is None else (found[0], found[1])
