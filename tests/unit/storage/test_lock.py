"""One process works on a store."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from broker.storage.faults import StoreLocked
from broker.storage.lock import StoreLock


def test_lock_is_held_once(tmp_path: Path) -> None:
    """A second taker is told who holds it; after the release it passes."""
    store = tmp_path / "store.db"
    lock = StoreLock.take(store)
    with pytest.raises(StoreLocked) as refusal:
        StoreLock.take(store)
    assert refusal.value.pid == os.getpid()
    lock.release()
    lock.release()
    StoreLock.take(store).release()


def test_lock_of_one_store_is_not_that_of_another(tmp_path: Path) -> None:
    """Two stores in one folder are two locks."""
    first = StoreLock.take(tmp_path / "one.db")
    second = StoreLock.take(tmp_path / "two.db")
    first.release()
    second.release()


def test_lock_file_stays_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    """It is not removed, since a second process could then lock a file that is gone."""
    StoreLock.take(tmp_path / "store.db").release()
    assert (tmp_path / "store.db.lock").stat().st_mode & 0o777 == 0o600


def test_unreadable_holder_is_another_process(tmp_path: Path) -> None:
    """A lock file with other text in it still refuses."""
    lock = StoreLock.take(tmp_path / "store.db")
    (tmp_path / "store.db.lock").write_text("who knows")
    with pytest.raises(StoreLocked, match="another process"):
        StoreLock.take(tmp_path / "store.db")
    lock.release()


def test_refusal_leaves_no_descriptor_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is held, or cannot be locked at all, which is no refusal but a fault."""
    lock = StoreLock.take(tmp_path / "store.db")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StoreLocked):
        StoreLock.take(tmp_path / "store.db")
    assert len(os.listdir("/proc/self/fd")) == before

    def fail(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match="no locks"):
        StoreLock.take(tmp_path / "other.db")
    assert len(os.listdir("/proc/self/fd")) == before
    lock.release()


def test_longer_process_id_before_leaves_no_digits(tmp_path: Path) -> None:
    """The holder's id replaces whatever stood there."""
    (tmp_path / "store.db.lock").write_text("9" * 30)
    StoreLock.take(tmp_path / "store.db").release()
    assert (tmp_path / "store.db.lock").read_text() == f"{os.getpid()}\n"
