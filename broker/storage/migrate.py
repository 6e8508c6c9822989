"""Numbered SQL files, applied in order, each in a transaction of its own; forward only.

The table ``schema_version`` tells which were applied.  A store that a newer version has migrated is
opened where that version's migrations say that we can live with them (docs/adr/0034), and refused
otherwise: it is never guessed at.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from broker.issuance.errors import Broken

__all__ = [
    "Migration",
    "check_schema",
    "due_migrations",
    "load_migrations",
    "migrate",
    "schema_version",
    "statements_of",
]

APPLICATION_ID: Final = 0x50454E53
"""SQLite's application_id of a store: the ASCII letters PENS, so that ``file`` can tell."""

_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")

_WORKS_WITH: Final = re.compile(r"-- works with: (\d+)\n")
"""The first line of a migration that programs of an older schema can live with."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema."""

    version: int
    name: str
    script: str

    @property
    def works_with(self) -> int:
        """Return the oldest schema whose programs can work with the store after this step."""
        said = _WORKS_WITH.match(self.script)
        return self.version if said is None else int(said[1])


def load_migrations(folder: Traversable | None = None) -> tuple[Migration, ...]:
    """Return the migrations in *folder*, by default those of the package, oldest first.

    Raises:
        Broken: A number is missing, so the package is not whole.
    """
    found = []
    folder = folder or resources.files("broker.storage").joinpath("migrations")
    for entry in folder.iterdir():
        match = _FILE_NAME.fullmatch(entry.name)
        if match is not None:
            number, name = match.groups()
            found.append(Migration(int(number), name, entry.read_text(encoding="utf-8")))
    found.sort(key=lambda one: one.version)
    if not found or [one.version for one in found] != list(range(1, len(found) + 1)):
        raise Broken("store migrations are missing from the package: install it anew")
    return tuple(found)


def migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> int:
    """Bring the schema up to the last of *migrations*; return how many were applied.

    A store that is further on, and that we can work with, is left as it is.

    Raises:
        Broken: The file is no store of ours, or a newer version changed it too much.
        sqlite3.Error: The database failed; nothing of that migration has happened.
    """
    due = due_migrations(connection, migrations)
    for migration in due:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _apply(connection, migration)
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    return len(due)


def due_migrations(
    connection: sqlite3.Connection, migrations: Sequence[Migration]
) -> Sequence[Migration]:
    """Return those of *migrations* that were not applied yet.

    Raises:
        Broken: The file is no store of ours, or a newer version changed it too much.
    """
    return migrations[_version(connection, migrations) :]


def check_schema(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Raise Broken unless *migrations* are applied, and whatever was after them changes nothing."""
    version = _version(connection, migrations)
    if version < len(migrations):
        raise Broken(
            f"store has schema {version}, this version needs {len(migrations)}:"
            " start the broker once, it brings the store up to date"
        )


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the version of the schema, 0 for an empty file.

    Raises:
        Broken: The file is no store of ours, or a newer version changed it too much.
    """
    return _version(connection, load_migrations())


def statements_of(script: str) -> Iterator[str]:
    """Yield the statements of *script*, which ends each of them at the end of a line."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    for statement in statements_of(migration.script):
        connection.execute(statement)
    connection.execute(
        "INSERT INTO schema_version (version, name) VALUES (?, ?)",
        (migration.version, migration.name),
    )
    # The header of the file holds what a program has to know, for programs that do not know this
    # migration.  A step that is easy to live with does not undo one that was not.
    (needed,) = connection.execute("PRAGMA user_version").fetchone()
    connection.execute(f"PRAGMA user_version = {max(needed, migration.works_with)}")


def _version(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> int:
    """Return the version of the schema, 0 for an empty file."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application_id == 0 and tables == 0:
        return 0
    if application_id != APPLICATION_ID:
        raise Broken("store file is a database of another program: name another path")
    (version,) = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    known = len(migrations)
    if version > known:
        # Programs from before that was written left 0 there: nothing is known about such a store.
        (needed,) = connection.execute("PRAGMA user_version").fetchone()
        if not 0 < needed <= known:
            raise Broken(
                f"store has schema {version}, this version knows {known}: run the version that"
                " wrote it, or a newer one; the way back is a backup of before"
            )
    return int(version)
