"""Migrations: in order, each whole, never back."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.issuance.errors import Broken
from broker.storage.migrate import (
    Migration,
    check_schema,
    due_migrations,
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


def gentle(version: int, *, works_with: int) -> Migration:
    """Return a migration that programs which know *works_with* can live with."""
    table = f"CREATE TABLE more_{version} (a TEXT) STRICT;\n"
    return Migration(version, f"more_{version}", f"-- works with: {works_with}\n{table}")


def test_store_of_a_newer_version_is_opened_where_that_says_so(empty: sqlite3.Connection) -> None:
    """Which is what a rollback by one version is: nothing is applied, and nothing undone."""
    migrate(empty, [FIRST, gentle(2, works_with=1)])
    before = versions(empty)
    assert migrate(empty, [FIRST]) == 0
    check_schema(empty, [FIRST])
    assert versions(empty) == before
    assert list(due_migrations(empty, [FIRST, gentle(2, works_with=1)])) == []


def test_what_is_applied_after_a_rollback_is_what_is_new(empty: sqlite3.Connection) -> None:
    """Forward, back, and forward again: each migration ran once."""
    second, third = gentle(2, works_with=1), gentle(3, works_with=2)
    assert migrate(empty, [FIRST, second]) == 1 + 1
    assert migrate(empty, [FIRST]) == 0
    assert migrate(empty, [FIRST, second, third]) == 1
    assert [version for version, _ in versions(empty)] == [1, 2, 3]


def test_one_step_that_is_not_gentle_is_enough(empty: sqlite3.Connection) -> None:
    """A gentle one after it takes nothing of that back; who knows the hard one goes on."""
    hard, after = SECOND, gentle(3, works_with=1)
    migrate(empty, [FIRST, hard, after])
    with pytest.raises(Broken, match="schema 3, this version knows 1: run the version that wrote"):
        migrate(empty, [FIRST])
    assert migrate(empty, [FIRST, hard]) == 0


def test_store_that_says_nothing_of_older_programs_is_for_none(empty: sqlite3.Connection) -> None:
    """As those have nothing there that were written before the header was."""
    migrate(empty, [FIRST, gentle(2, works_with=1)])
    empty.execute("PRAGMA user_version = 0")
    with pytest.raises(Broken, match="this version knows 1"):
        migrate(empty, [FIRST])


def test_header_is_written_with_the_migration_or_not_at_all(empty: sqlite3.Connection) -> None:
    """A migration that fails leaves the header of before."""
    migrate(empty, [FIRST])
    bad = Migration(2, "bad", "-- works with: 1\nINSERT INTO nowhere VALUES (1);\n")
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(empty, [FIRST, bad])
    assert empty.execute("PRAGMA user_version").fetchone() == (1,)


GENTLE = (
    r"CREATE TABLE \w+ \(",
    r"CREATE INDEX \w+ ON ",
    r"ALTER TABLE \w+ ADD COLUMN (?!.*\b(UNIQUE|PRIMARY KEY|CHECK)\b)",
)
"""What an older program does not notice.  A column that may not be NULL has a default, or SQLite
refuses it; a unique index or a trigger could refuse what that program writes."""


def harsh_statements(migration: Migration) -> list[str]:
    """Return the statements that an older program might notice."""
    return [
        statement
        for statement in _bare(migration.script)
        if not any(re.match(one, statement.strip(), re.DOTALL) for one in GENTLE)
    ]


@pytest.mark.parametrize("migration", load_migrations(), ids=lambda one: one.name)
def test_migration_that_is_called_gentle_is(migration: Migration) -> None:
    """It only adds; and it names a schema before its own."""
    if migration.works_with != migration.version:
        assert 0 < migration.works_with < migration.version
        assert harsh_statements(migration) == []


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE accounts;",
        "UPDATE orders SET status = 'x';",
        "CREATE UNIQUE INDEX one ON orders (status);",
        "CREATE TRIGGER t BEFORE INSERT ON orders BEGIN SELECT 1; END;",
        "ALTER TABLE orders RENAME COLUMN status TO state;",
        "ALTER TABLE orders ADD COLUMN a TEXT CHECK (a != '');",
    ],
)
def test_what_an_older_program_would_notice_is_not_gentle(statement: str) -> None:
    """The twin: each of these would be found."""
    harsh = Migration(9, "harsh", f"-- works with: 8\n{statement}\n")
    assert harsh_statements(harsh) == [statement + "\n"]
    assert harsh_statements(gentle(9, works_with=8)) == []


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


def test_store_of_the_second_schema_comes_through_whole(empty: sqlite3.Connection) -> None:
    """The journal of key changes is made anew, and orders learn which account they are of."""
    empty.execute("PRAGMA foreign_keys = ON")
    migrate(empty, load_migrations()[:2])
    _fill_second_schema(empty)
    kept = ("upstream_accounts", "upstream_key_changes", "ca_members", "ca_certificates")
    before = {table: empty.execute(f"SELECT * FROM {table}").fetchall() for table in kept}
    migrate(empty, load_migrations())
    assert {table: empty.execute(f"SELECT * FROM {table}").fetchall() for table in kept} == before
    assert empty.execute("SELECT key_id, mac_key, sealed_by FROM eab_keys").fetchall() == [
        ("eab-1", b"in the clear", None)
    ]
    works = dict(empty.execute("SELECT work_id, account_url FROM work").fetchall())
    present = "https://ca.example/acct/2"
    assert works == {"before": None, "after": present, "unsent": None, "lab": None}
    certificates = empty.execute("SELECT certificate_id, upstream_account FROM certificates")
    assert dict(certificates.fetchall()) == {"c-before": None, "c-after": present}
    assert empty.execute("PRAGMA foreign_key_check").fetchall() == []
    assert empty.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    _check_journal(empty)


def _fill_second_schema(store: sqlite3.Connection) -> None:
    """Have an account that was registered anew at 100, and what was ordered before and after."""
    for community, key in (("default", "account-ca@default.2"), ("lab", "account-ca@lab")):
        store.execute(
            "INSERT INTO upstream_accounts VALUES"
            " ('ca', ?, 'https://ca.example/d', 'https://ca.example/acct/2', ?, 't', ?)",
            (community, key, 100 if community == "default" else 900),
        )
    for number, status in enumerate(("changed", "undone", "begun"), start=2):
        store.execute(
            "INSERT INTO upstream_key_changes VALUES"
            " ('ca', 'default', 'https://ca.example/acct/2', 'account-ca@default', ?, ?, ?, ?)",
            (f"account-ca@default.{number}", status, number, None if status == "begun" else 9),
        )
    store.execute(
        "INSERT INTO eab_keys VALUES ('eab-1', 'default', 'l', ?, '[]', '[]', 0, 1, NULL, NULL,"
        " NULL)",
        (b"in the clear",),
    )
    store.execute(
        "INSERT INTO ca_members VALUES (1, 'local', 'current', 'ca-local-issuing-1', 'CN', ?, 1,"
        " NULL)",
        (b"der",),
    )
    store.execute(
        "INSERT INTO ca_certificates VALUES"
        " ('local', 'w', '01', ?, 'ca-local-issuing-1', 9, 1, NULL, NULL)",
        (b"der",),
    )
    works = (("before", "default", 50), ("after", "default", 150), ("lab", "lab", 150))
    for work, community, at in works:
        store.execute(
            "INSERT INTO work (work_id, upstream, community, work_key, identifiers, status,"
            " order_url, is_sent, created_at) VALUES (?, 'ca', ?, 'k', '[]', 'opened', ?, 0, ?)",
            (work, community, f"https://ca.example/order/{work}", at),
        )
    store.execute(
        "INSERT INTO work (work_id, upstream, community, work_key, identifiers, status, is_sent,"
        " created_at) VALUES ('unsent', 'ca', 'default', 'k', '[]', 'intended', 0, 150)"
    )
    store.execute(
        "INSERT INTO accounts (account_id, community, status, jwk_json, thumbprint, contacts,"
        " terms_agreed, created_at) VALUES ('a1', 'default', 'valid', '{}', 't1', '[]', 1, 1)"
    )
    for name, at in (("before", 50), ("after", 150)):
        store.execute(
            "INSERT INTO orders (order_id, account_id, community, status, identifiers,"
            " authorization_ids, profile, is_profile_asked, created_at, expires_at, decision,"
            " upstream, cap_seconds, ask_not_after)"
            " VALUES (?, 'a1', 'default', 'valid', '[]', '[]', 'p', 0, 1, 2, '{}', 'ca', 9, 0)",
            (f"o-{name}",),
        )
        store.execute(
            "INSERT INTO certificates (certificate_id, order_id, account_id, community, upstream,"
            " fingerprint, serial, chain_pem, leaf_der, identifiers, spki_sha256, not_before,"
            " not_after, received_at, is_released)"
            " VALUES (?, ?, 'a1', 'default', 'ca', ?, '01', ?, ?, '[]', 's', 1, 999, ?, 1)",
            (f"c-{name}", f"o-{name}", name, b"pem", b"der", at),
        )


def _check_journal(store: sqlite3.Connection) -> None:
    """See that a key may have several changes that were undone, and one that was not."""
    begin = (
        "INSERT INTO upstream_key_changes (upstream, community, account_url, old_key_id,"
        " new_key_id, status, begun_at) VALUES ('ca', ?, 'u', 'old', ?, 'begun', 10)"
    )
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        store.execute(begin, ("default", "account-ca@default.5"))
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        store.execute(begin, ("lab", "account-ca@default.2"))
    store.execute(begin, ("lab", "account-ca@default.3"))
