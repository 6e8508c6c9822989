"""What can be seen of a store without opening it."""

from pathlib import Path

import pytest

from broker.issuance.errors import Broken
from broker.storage.database import open_database
from broker.storage.faults import StoreLocked
from broker.storage.glance import Glance, glance, glance_alone
from broker.storage.lock import StoreLock
from broker.storage.migrate import load_migrations
from tests.unit.storage.test_database import older

LAST = len(load_migrations())


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A store that nobody has open."""
    made = tmp_path / "store.db"
    await (await open_database(made, exclusive=True)).close()
    return made


def test_where_nothing_is_nothing_is_seen(tmp_path: Path) -> None:
    """And nothing is made: no file, no lock."""
    path = tmp_path / "store.db"
    assert glance(path) is None
    assert glance_alone(path) is None
    assert list(tmp_path.iterdir()) == []


def test_empty_file_is_no_store_yet(tmp_path: Path) -> None:
    """As a start that was cut off may leave it."""
    path = tmp_path / "store.db"
    path.touch()
    assert glance(path) is None


async def test_store_of_before_waits_for_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as came since, which nobody applies by looking."""
    path = tmp_path / "store.db"
    with monkeypatch.context() as before:
        older(before, LAST - 2)
        await (await open_database(path, exclusive=True)).close()
    seen = Glance(present=LAST - 2, pending=2, authorities=frozenset())
    assert (glance(path), glance(path)) == (seen, seen)


def test_store_that_is_up_to_date_tells_its_cas(path: Path) -> None:
    """None so far; while somebody works on it, whoever has to be alone is refused."""
    seen = Glance(present=LAST, pending=0, authorities=frozenset())
    assert glance_alone(path) == seen
    lock = StoreLock.take(path)
    assert glance(path) == seen
    with pytest.raises(StoreLocked):
        glance_alone(path)
    lock.release()


def test_file_of_another_program_is_refused(tmp_path: Path) -> None:
    """It is not guessed at."""
    path = tmp_path / "store.db"
    path.write_bytes(b"something else entirely, and long enough to be no header" * 20)
    with pytest.raises(Broken):
        glance(path)
