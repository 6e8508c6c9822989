"""Numbered SQL files, applied in order, each in a transaction of its own; forward only.

The table ``schema_version`` tells which were applied.  A store written by a newer version is
refused, never guessed at.
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
    "load_migrations",
    "migrate",
    "schema_version",
    "statements_of",
]

APPLICATION_ID: Final = 0x50454E53
"""SQLite's application_id of a store: the ASCII letters PENS, so that ``file`` can tell."""

_FILE_NAME: Final = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step of the schema."""

    version: int
    name: str
    script: str


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

    Raises:
        Broken: The file is no store of ours, or a newer version wrote it.
        sqlite3.Error: The database failed; nothing of that migration has happened.
    """
    version = _version(connection, migrations)
    for migration in migrations[version:]:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _apply(connection, migration)
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    return len(migrations) - version


def check_schema(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Raise Broken unless the schema stands exactly where *migrations* leave it."""
    version = _version(connection, migrations)
    if version < len(migrations):
        raise Broken(
            f"store has schema {version}, this version needs {len(migrations)}:"
            " start the broker once, it brings the store up to date"
        )


def schema_version(connection: sqlite3.Connection) -> int:
    """Return the version of the schema, 0 for an empty file.

    Raises:
        Broken: The file is no store of ours, or a newer version wrote it.
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


def _version(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> int:
    """Return the version of the schema, 0 for an empty file."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application_id == 0 and tables == 0:
        return 0
    if application_id != APPLICATION_ID:
        raise Broken("store file is a database of another program: name another path")
    (version,) = connection.execute("SELECT max(version) FROM schema_version").fetchone()
    if version > len(migrations):
        raise Broken(
            f"store has schema {version}, this version knows {len(migrations)}:"
            " run the version that wrote it, or a newer one"
        )
    return int(version)
