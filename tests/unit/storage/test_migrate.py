"""Migrations: in order, each whole, never back."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.issuance.errors import Broken
from broker.storage.migrate import (
    Migration,
    check_schema,
    load_migrations,
    migrate,
    statements_of,
)

FIRST = load_migrations()[0]
SECOND = Migration(
    2, "more", "CREATE TABLE more (a TEXT) STRICT;\nINSERT INTO more VALUES ('x');\n"
)


@pytest.fixture
def empty() -> Iterator[sqlite3.Connection]:
    """An empty database."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        yield made


def versions(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    """Return what was applied."""
    return connection.execute("SELECT version, name FROM schema_version ORDER BY 1").fetchall()


def test_migrations_are_applied_once_and_in_order(empty: sqlite3.Connection) -> None:
    """A later run applies only what is new."""
    assert migrate(empty, [FIRST]) == 1
    assert migrate(empty, [FIRST]) == 0
    assert migrate(empty, [FIRST, SECOND]) == 1
    assert versions(empty) == [(1, FIRST.name), (2, "more")]
    assert empty.execute("SELECT a FROM more").fetchall() == [("x",)]


def test_failing_migration_leaves_nothing_of_itself(empty: sqlite3.Connection) -> None:
    """Those before it stay, and it can be tried again."""
    bad = Migration(
        2, "bad", "CREATE TABLE half (a TEXT) STRICT;\nINSERT INTO nowhere VALUES (1);\n"
    )
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(empty, [FIRST, bad])
    assert versions(empty) == [(1, FIRST.name)]
    assert not empty.in_transaction
    assert empty.execute("SELECT 1 FROM sqlite_schema WHERE name = 'half'").fetchall() == []
    assert migrate(empty, [FIRST, SECOND]) == 1


def test_newer_schema_is_refused(empty: sqlite3.Connection) -> None:
    """Going back is not guessed at."""
    migrate(empty, [FIRST, SECOND])
    for look in (migrate, check_schema):
        with pytest.raises(Broken, match="schema 2, this version knows 1"):
            look(empty, [FIRST])


def test_only_the_exact_schema_passes_the_check(empty: sqlite3.Connection) -> None:
    """Nothing is applied by looking."""
    with pytest.raises(Broken, match="schema 0, this version needs 1"):
        check_schema(empty, [FIRST])
    migrate(empty, [FIRST])
    check_schema(empty, [FIRST])
    with pytest.raises(Broken, match="schema 1, this version needs 2"):
        check_schema(empty, [FIRST, SECOND])


def test_database_of_another_program_is_refused(empty: sqlite3.Connection) -> None:
    """Told by what stands in its header, or by tables that are not ours."""
    empty.execute("CREATE TABLE other (a TEXT)")
    with pytest.raises(Broken, match="another program"):
        migrate(empty, [FIRST])
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as marked:
        marked.execute("PRAGMA application_id = 7")
        with pytest.raises(Broken, match="another program"):
            migrate(marked, [FIRST])


def test_package_has_its_migrations_in_a_row() -> None:
    """From 1 on without a gap, each named by its file."""
    found = load_migrations()
    assert [one.version for one in found] == list(range(1, len(found) + 1))
    assert found[0].name == "first"


def test_migrations_are_taken_by_their_number(tmp_path: Path) -> None:
    """Ten comes after nine whatever the folder says first; other files are passed over."""
    for number in range(12, 0, -1):
        (tmp_path / f"{number:04}_step.sql").write_text(f"SELECT {number};\n")
    (tmp_path / "0013_Step.sql~").write_text("")
    assert [one.version for one in load_migrations(tmp_path)] == list(range(1, 13))


@pytest.mark.parametrize("names", [[], ["0002_b.sql"], ["0001_a.sql", "0003_c.sql"]], ids=len)
def test_package_that_is_not_whole_is_refused(tmp_path: Path, names: list[str]) -> None:
    """A store is not brought half-way."""
    for name in names:
        (tmp_path / name).write_text("SELECT 1;\n")
    with pytest.raises(Broken, match="install it anew"):
        load_migrations(tmp_path)


@pytest.mark.parametrize("migration", load_migrations(), ids=lambda one: one.name)
def test_migration_leaves_transactions_to_the_runner(migration: Migration) -> None:
    """A COMMIT inside would make half a migration possible."""
    words = {statement.split()[0].upper() for statement in _bare(migration.script)}
    assert words <= {"CREATE", "PRAGMA", "INSERT", "UPDATE", "ALTER", "DROP", "DELETE"}


def _bare(script: str) -> list[str]:
    """Return the statements of a script without its comments."""
    lines = [line for line in script.splitlines(keepends=True) if not line.startswith("--")]
    return [one for one in statements_of("".join(lines)) if one.strip()]


def test_statements_end_where_they_end() -> None:
    """A semicolon in a text, a comment or a trigger ends nothing."""
    script = (
        "-- one; two\nINSERT INTO t VALUES ('a;\nb');\n"
        "CREATE TRIGGER x BEFORE UPDATE ON t\nBEGIN\n    SELECT 1;\nEND;\n"
    )
    first, second = statements_of(script)
    assert first.endswith("('a;\nb');\n")
    assert second.startswith("CREATE TRIGGER")


def test_store_of_the_first_schema_comes_through_whole(empty: sqlite3.Connection) -> None:
    """Authorizations lose a NOT NULL by being made anew: no row of theirs is lost or changed."""
    empty.execute("PRAGMA foreign_keys = ON")
    migrate(empty, [FIRST])
    empty.execute(
        "INSERT INTO accounts VALUES ('a1', 'default', 'valid', '{}', 't1', '[]', 1, NULL, 1)"
    )
    for number in range(50):
        empty.execute(
            "INSERT INTO orders (order_id, account_id, community, status, identifiers,"
            " authorization_ids, profile, is_profile_asked, created_at, expires_at, decision,"
            " upstream, cap_seconds, ask_not_after)"
            " VALUES (?, 'a1', 'default', 'pending', '[]', '[]', 'p', 0, 1, 2, '{}', 'ca', 9, 0)",
            (f"o{number}",),
        )
        empty.execute(
            "INSERT INTO authorizations VALUES (?, ?, 'a1', 'default', '[]', 0, 'valid', 2, ?)",
            (f"z{number}", f"o{number}", "challenge" if number % 2 else None),
        )
        for place in range(2):
            empty.execute(
                "INSERT INTO challenges VALUES (?, ?, ?, 'http-01', 'tok', 'pending', NULL, ?)",
                (f"z{number}", f"c{place}", place, '{"type":"x"}' if place else None),
            )

    def rows(table: str, columns: str) -> list[tuple[object, ...]]:
        return empty.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall()

    columns = {
        "accounts": "*",
        "orders": "order_id, account_id, status",
        "authorizations": "authorization_id, order_id, account_id, community, identifier,"
        " is_wildcard, status, expires_at, proof",
        "challenges": "*",
    }
    before = {table: rows(table, names) for table, names in columns.items()}
    columns["accounts"] = (
        "account_id, community, status, jwk_json, thumbprint, contacts, terms_agreed,"
        " eab_key_id, created_at"
    )
    migrate(empty, load_migrations())
    assert {table: rows(table, names) for table, names in columns.items()} == before
    assert empty.execute("PRAGMA foreign_key_check").fetchall() == []
    assert empty.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        empty.execute("DELETE FROM authorizations WHERE authorization_id = 'z1'")
    empty.execute(
        "INSERT INTO authorizations VALUES"
        " ('free', NULL, 'a1', 'default', '[]', 0, 'valid', 2, NULL, NULL)"
    )
