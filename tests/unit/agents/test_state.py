"""What the agent must not forget."""

import os
import stat
from pathlib import Path

import pytest

from agents.state import Folder, State, StateFault, write_durably


def test_what_was_put_is_there_again(tmp_path: Path) -> None:
    """Also for another process that opens the same folder."""
    Folder(str(tmp_path)).put("www", {"generation": 3})
    assert Folder(str(tmp_path)).get("www") == {"generation": 3}
    assert Folder(str(tmp_path)).names() == ["www"]


def test_a_file_is_its_owners_alone(tmp_path: Path) -> None:
    """From its first moment."""
    write_durably(str(tmp_path / "file"), b"x")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o600


def test_what_cannot_be_read_is_put_aside_and_counts_as_nothing(tmp_path: Path) -> None:
    """A spoilt file keeps no agent from starting, and is kept for people to look at."""
    (tmp_path / "www.json").write_text('{"generation": ')
    assert Folder(str(tmp_path)).get("www") is None
    assert (tmp_path / "www.json.unreadable").exists()


def test_a_write_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    """Here the folder is gone; nothing half-written lies about."""
    folder = Folder(str(tmp_path / "deep"))
    os.rmdir(tmp_path / "deep")
    with pytest.raises(StateFault, match="cannot be written"):
        folder.put("www", {})
    assert list(tmp_path.iterdir()) == []


def test_a_state_is_held_by_one_agent_alone(tmp_path: Path) -> None:
    """Two agents on one state would send each other's receipts; the holder can be told."""
    first, second = State(str(tmp_path)), State(str(tmp_path))
    assert second.holder() is None
    first.hold()
    assert second.holder() == os.getpid()
    with pytest.raises(StateFault, match="another agent runs"):
        second.hold()
    first.release()
    second.hold()
    second.release()
