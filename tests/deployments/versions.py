"""Two versions of the broker over one state directory: this one, and the one after it.

The one after is this checkout with one more migration, in a directory of its own, started as
whoever upgrades would start it.  What it is called plays no part: versions know each other by the
store alone.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any, Final

from broker.storage.migrate import load_migrations
from tests.deployments.penstock import REPOSITORY, Penstock

__all__ = ["GENTLE", "HARSH", "NEXT", "Versioned", "next_version"]

NEXT: Final = len(load_migrations()) + 1
"""Schema of the version after this one."""

GENTLE: Final = f"""\
-- works with: {NEXT - 1}
CREATE TABLE of_the_next_version (a TEXT) STRICT;

ALTER TABLE orders ADD COLUMN of_the_next_version TEXT NOT NULL DEFAULT 'by default';

CREATE INDEX of_the_next_version_by_a ON of_the_next_version (a);
"""
"""A migration that this version can live with, with all that such a one may do."""

HARSH: Final = "ALTER TABLE orders RENAME COLUMN profile TO of_the_next_version;\n"
"""One that it cannot, and that does not say that it could."""


def next_version(directory: Path, migration: str) -> Path:
    """Make a tree of the version after this one in *directory*, with *migration*; return it."""
    for name in ("broker", "agents", "policies"):
        leave = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / name, directory / name, ignore=leave)
    migrations = directory / "broker" / "storage" / "migrations"
    (migrations / f"{NEXT:04}_next.sql").write_text(migration, "ascii")
    return directory


class Versioned(Penstock):
    """A broker whose program can be put in another's place."""

    def __init__(self, tmp: Path, **options: Any) -> None:
        super().__init__(tmp, **options)
        self.tree = REPOSITORY

    def environment(self) -> dict[str, str]:
        """Return the environment, in which this version's tree comes first."""
        return {**super().environment(), "PYTHONPATH": str(self.tree)}

    def migrations(self) -> list[int]:
        """Return the numbers of the migrations that were applied, past the broker."""
        return [row[0] for row in self.rows("SELECT version FROM schema_version ORDER BY version")]

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Return what the store has, past the broker."""
        where = f"file:{self.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(where, uri=True)) as store:
            return store.execute(query).fetchall()

    def backups(self) -> list[Path]:
        """Return the backups of before migrations."""
        return sorted(self.state.glob("backups/*"))
