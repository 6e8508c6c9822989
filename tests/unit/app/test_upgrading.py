"""The store as this version needs it: a backup first, then the migrations."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from broker.app.assembly import assembled
from broker.app.upgrading import open_store
from broker.config import Config
from broker.issuance.errors import Broken, Unreachable
from broker.operations.backup import verify_backup
from broker.storage.migrate import load_migrations
from tests.fakes.clock import FakeClock
from tests.unit.app.test_assembly import config_in
from tests.unit.storage.test_database import older

PASSPHRASE = b"a passphrase that is long enough"
LAST = len(load_migrations())


@pytest.fixture
async def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A broker whose store the version before has made."""
    config = config_in(tmp_path)
    with monkeypatch.context() as before:
        older(before, LAST - 1)
        async with assembled(config):
            pass
    assert schema(config) == LAST - 1
    return config


def schema(config: Config) -> int:
    """Return the schema of the store, past the broker."""
    with closing(sqlite3.connect(config.state / "penstock.db")) as store:
        (version,) = store.execute("SELECT max(version) FROM schema_version").fetchone()
    return int(version)


def events(config: Config) -> list[dict[str, Any]]:
    """Return what the store says of backups that were made."""
    with closing(sqlite3.connect(config.state / "penstock.db")) as store:
        rows = store.execute("SELECT data FROM events WHERE kind = 'backup-made'").fetchall()
    return [json.loads(data) for (data,) in rows]


def backups(config: Config) -> list[Path]:
    """Return the backups that were made."""
    return sorted((config.state / "backups").glob("*")) if config.state.exists() else []


async def test_backup_of_before_is_there_after_a_migration(config: Config) -> None:
    """It can be read, holds the schema of before, and an event tells of it; once."""
    await (await open_store(config, FakeClock())).close()
    assert schema(config) == LAST
    (made,) = backups(config)
    assert made.name.startswith(f"penstock-schema-{LAST - 1}-")
    manifest = verify_backup(made, PASSPHRASE)
    assert manifest.schema == LAST - 1
    (told,) = events(config)
    assert told["backup_id"] == manifest.backup_id
    await (await open_store(config, FakeClock())).close()
    assert backups(config) == [made]


async def test_new_store_has_nothing_to_back_up(tmp_path: Path) -> None:
    """So nothing is made, and nobody asks for a passphrase."""
    config = config_in(tmp_path)
    await (await open_store(config, FakeClock())).close()
    assert schema(config) == LAST
    assert backups(config) == []


async def test_no_migration_without_its_backup(config: Config) -> None:
    """What cannot be written stops the start and leaves the store as it was."""
    (config.state / "backups").write_text("in the way")
    with pytest.raises(Broken, match="backups cannot be made"):
        await open_store(config, FakeClock())
    assert schema(config) == LAST - 1


async def test_site_that_backs_up_by_itself_says_so(tmp_path: Path, config: Config) -> None:
    """The twin: the migration goes on without."""
    alone = config_in(tmp_path, **{"upgrade.backup": "never"})
    (config.state / "backups").write_text("in the way")
    await (await open_store(alone, FakeClock())).close()
    assert schema(config) == LAST


async def test_backups_go_where_the_configuration_says(tmp_path: Path, config: Config) -> None:
    """As to another volume, whose directory is made."""
    elsewhere = tmp_path / "other" / "volume"
    alone = config_in(tmp_path, **{"upgrade.backups": str(elsewhere)})
    await (await open_store(alone, FakeClock())).close()
    assert [one.suffix for one in elsewhere.iterdir()] == [".backup"]
    assert backups(config) == []


async def test_second_start_in_the_same_second_has_a_file_of_its_own(config: Config) -> None:
    """A start that was killed after the backup leaves it there; none is written over."""
    clock = FakeClock()
    taken = (
        config.state / "backups" / f"penstock-schema-{LAST - 1}-{clock.now():%Y%m%dT%H%M%SZ}.backup"
    )
    taken.parent.mkdir()
    taken.write_text("of a start that was killed")
    await (await open_store(config, clock)).close()
    assert taken.read_text() == "of a start that was killed"
    assert len(backups(config)) == 2


async def test_passphrase_behind_a_login_that_works_once_is_left_alone(
    tmp_path: Path, config: Config
) -> None:
    """It is the broker's own; the sentence says what to do."""
    role_id, secret_id = tmp_path / "role", tmp_path / "secret"
    role_id.write_text("role")
    secret_id.write_text("wrapped")
    serve = {"method": "approle", "role_id": f"file:{role_id}", "secret_id": f"file:{secret_id}"}
    vaulted = config_in(
        tmp_path,
        **{
            "keys.passphrase": "vault:kv/penstock#passphrase",
            "vault": {"addresses": ["https://vault.example:8200"], "serve": serve},
        },
    )
    with pytest.raises(Broken, match="works once: make the backup with the version before"):
        await open_store(vaulted, FakeClock())
    assert schema(config) == LAST - 1
    assert secret_id.read_text() == "wrapped"


async def test_vault_that_is_away_leaves_the_store_as_it_was(
    tmp_path: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever supervises the broker starts it again."""

    async def away(_config: Config) -> bytes:
        raise Unreachable("vault does not answer")

    monkeypatch.setattr("broker.app.upgrading.read_passphrase", away)
    with pytest.raises(Unreachable, match="cannot be backed up: vault does not answer"):
        await open_store(config, FakeClock())
    assert schema(config) == LAST - 1
