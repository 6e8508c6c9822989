"""Files of secrets are made whole, and those that others can read are refused."""

import os
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Conflict
from broker.keys.private_files import (
    MAX_KEY_FILE_BYTES,
    check_directory,
    read_private_file,
    remove_file,
    write_new_file,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a file may be made."""
    tmp_path.chmod(0o700)
    return tmp_path / "secret.key"


def test_file_is_its_owners_alone(path: Path) -> None:
    """Whatever the umask is; and nothing is left beside it."""
    before = os.umask(0)
    try:
        write_new_file(path, b"secret")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_private_file(path) == b"secret"
    assert [one.name for one in path.parent.iterdir()] == ["secret.key"]


def test_file_that_is_there_is_left_alone(path: Path) -> None:
    """The other's secret may be in use."""
    write_new_file(path, b"first")
    with pytest.raises(Conflict, match="is there already"):
        write_new_file(path, b"second")
    assert read_private_file(path) == b"first"
    assert [one.name for one in path.parent.iterdir()] == ["secret.key"]


def test_what_others_can_read_is_refused(path: Path) -> None:
    """It is known to somebody, perhaps; made private again it is taken."""
    write_new_file(path, b"secret")
    path.chmod(0o640)
    with pytest.raises(Broken, match=r"can be read by others \(mode 0640\)"):
        read_private_file(path)
    path.chmod(0o600)
    assert read_private_file(path) == b"secret"
    path.parent.chmod(0o750)
    with pytest.raises(Broken, match="open to others"):
        check_directory(path.parent)
    path.parent.chmod(0o700)
    check_directory(path.parent)


@pytest.mark.parametrize("what", ["missing", "link", "directory", "pipe", "large"])
def test_what_is_no_file_of_ours_is_refused(path: Path, what: str) -> None:
    """Nothing waits for a pipe, and no link leads elsewhere."""
    if what == "link":
        (path.parent / "target").write_bytes(b"secret")
        path.symlink_to(path.parent / "target")
    elif what == "directory":
        path.mkdir(mode=0o700)
    elif what == "pipe":
        os.mkfifo(path, 0o600)
    elif what == "large":
        write_new_file(path, b"x" * (MAX_KEY_FILE_BYTES + 1))
    with pytest.raises(Broken):
        read_private_file(path)


def test_file_is_removed_once(path: Path) -> None:
    """A second time there is nothing to do."""
    write_new_file(path, b"secret")
    remove_file(path)
    remove_file(path)
    assert not path.exists()
    path.mkdir()
    with pytest.raises(Broken, match="cannot be removed"):
        remove_file(path)
