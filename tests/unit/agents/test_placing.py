"""A small file is put in place whole, and only where the node allows it."""

import os
from pathlib import Path

import pytest

from agents.placing import PlacingFault, place, read_placed, remove_placed


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """The folder that the node allows."""
    made = tmp_path / "allowed"
    made.mkdir()
    return made


def test_file_is_written_read_and_removed(allowed: Path) -> None:
    """Folders on the way are made, and nothing else is left beside the file."""
    path, below = str(allowed / "a" / "b.pem"), [f"{allowed}/"]
    assert read_placed(path, below=below, most_bytes=10) is None
    place(path, b"one", below=below)
    place(path, b"two", below=below)
    assert read_placed(path, below=below, most_bytes=10) == b"two"
    assert os.listdir(allowed / "a") == ["b.pem"]
    assert (allowed / "a" / "b.pem").stat().st_mode & 0o777 == 0o644
    remove_placed(path, below=below)
    remove_placed(path, below=below)
    assert os.listdir(allowed / "a") == []


@pytest.mark.parametrize(
    "path", ["../x.pem", "a/../../x.pem", "/etc/x.pem", "a/..", ".", "", "x\0.pem"]
)
def test_path_outside_is_refused(allowed: Path, tmp_path: Path, path: str) -> None:
    """A path that leads out of the folder, or names no file, is refused."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PlacingFault):
        place(path if path.startswith("/etc") else f"{allowed}/{path}", b"x", below=[str(allowed)])
    assert [one for one in sorted(tmp_path.rglob("*")) if one.is_file()] == []
    assert len(sorted(tmp_path.rglob("*"))) <= len(before) + 1


def test_folder_whose_name_begins_alike_is_outside(allowed: Path, tmp_path: Path) -> None:
    """``/allowed-not`` does not lie below ``/allowed``."""
    (tmp_path / "allowed-not").mkdir()
    with pytest.raises(PlacingFault, match="none of the folders"):
        place(str(tmp_path / "allowed-not" / "x"), b"x", below=[str(allowed)])


@pytest.mark.parametrize("what", ["file", "folder"])
def test_link_is_not_followed(allowed: Path, tmp_path: Path, what: str) -> None:
    """A link in the place of the file, or of a folder on the way, leads nowhere."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "x.pem").write_text("victim")
    if what == "file":
        (allowed / "a").mkdir()
        (allowed / "a" / "x.pem").symlink_to(victim / "x.pem")
    else:
        (allowed / "a").symlink_to(victim)
    path = str(allowed / "a" / "x.pem")
    with pytest.raises(PlacingFault):
        place(path, b"ours", below=[str(allowed)])
    with pytest.raises(PlacingFault):
        read_placed(path, below=[str(allowed)], most_bytes=10)
    assert (victim / "x.pem").read_text() == "victim"


def test_file_past_the_limit_or_no_file_is_refused(allowed: Path) -> None:
    """Reading is bounded, and a pipe is not waited for."""
    (allowed / "long").write_bytes(b"x" * 11)
    os.mkfifo(allowed / "pipe")
    for name in ("long", "pipe"):
        with pytest.raises(PlacingFault):
            read_placed(str(allowed / name), below=[str(allowed)], most_bytes=10)


def test_owner_of_the_file_before_is_kept(allowed: Path) -> None:
    """Whoever the file belonged to keeps it."""
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    path = allowed / "x.pem"
    path.write_text("old")
    os.chown(path, 4242, 4243)
    place(str(path), b"new", below=[str(allowed)])
    assert (path.stat().st_uid, path.stat().st_gid, path.read_text()) == (4242, 4243, "new")
