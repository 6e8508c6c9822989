"""Files inside allowed folders, by descriptors and without following anything."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from agents.owners import Ownership
from agents.paths import (
    MAX_READ_BYTES,
    PathFault,
    entry_kind,
    link_text,
    new_name,
    open_folder,
    put_link,
    read_regular,
    remove,
    write_new,
)

OURS = Ownership()


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    """A folder that the node allows."""
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder


def open_at(path: Path | str, allowed: Path, *, is_made: bool = False) -> None:
    """Open a folder and close it."""
    with open_folder(str(path), [str(allowed)], is_made=is_made) as folder:
        assert stat.S_ISDIR(os.fstat(folder).st_mode)


def test_a_folder_below_an_allowed_one(allowed: Path) -> None:
    """It is opened; missing ones are made where that is asked, for everybody to enter."""
    open_at(allowed, allowed)
    with pytest.raises(PathFault, match="cannot be opened"):
        open_at(allowed / "a" / "b", allowed)
    was = os.umask(0o077)
    try:
        open_at(allowed / "a" / "b", allowed, is_made=True)
    finally:
        os.umask(was)
    assert stat.S_IMODE((allowed / "a" / "b").stat().st_mode) == 0o755
    open_at(allowed / "a" / "b", allowed)


@pytest.mark.parametrize("path", ["/etc", "{0}x", "{0}/../x", "{0}/a/..", "{0}/./a"])
def test_a_folder_elsewhere(allowed: Path, path: str) -> None:
    """Beside, above and through dots is refused, and nothing is made there."""
    with pytest.raises(PathFault):
        open_at(path.format(allowed), allowed, is_made=True)
    assert list(allowed.iterdir()) == []


def test_a_symlink_on_the_way(allowed: Path, tmp_path: Path) -> None:
    """It is refused even where it leads inside."""
    (allowed / "real").mkdir()
    (allowed / "link").symlink_to("real")
    with pytest.raises(PathFault, match="symlink or no folder"):
        open_at(allowed / "link", allowed)
    open_at(allowed / "real", allowed)


def test_a_file_is_written_whole_or_not_at_all(allowed: Path) -> None:
    """Its mode does not depend on the umask, and a name that is taken is left alone."""
    with open_folder(str(allowed), [str(allowed)]) as folder:
        write_new(folder, "new", b"octets", owner=OURS, mode=0o640)
        with pytest.raises(FileExistsError):
            write_new(folder, "new", b"others", owner=OURS, mode=0o640)
        os.symlink("elsewhere", "link", dir_fd=folder)
        with pytest.raises(FileExistsError):
            write_new(folder, "link", b"others", owner=OURS, mode=0o640)
        found = read_regular(folder, "new")
    assert found is not None
    assert (found.octets, found.mode) == (b"octets", 0o640)
    assert not (allowed / "elsewhere").exists()


def test_nobody_else_can_read_a_key_before_it_is_given(
    allowed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its creation on it is its writer's alone; owner and mode come when it is whole."""
    seen = []
    write = os.write

    def look(descriptor: int, octets: bytes) -> int:
        seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return write(descriptor, octets)

    monkeypatch.setattr(os, "write", look)
    was = os.umask(0)
    try:
        with open_folder(str(allowed), [str(allowed)]) as folder:
            write_new(folder, "key", b"secret", owner=OURS, mode=0o640)
    finally:
        os.umask(was)
    assert seen == [0o600]


def test_a_write_that_fails_leaves_nothing(allowed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a key is taken away."""

    def full(descriptor: int, octets: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with open_folder(str(allowed), [str(allowed)]) as folder, pytest.raises(OSError, match="space"):
        write_new(folder, "key", b"secret", owner=OURS, mode=0o600)
    assert list(allowed.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_is_given_to_its_owner(allowed: Path) -> None:
    """To any number, before anybody else may read it."""
    with open_folder(str(allowed), [str(allowed)]) as folder:
        write_new(folder, "key", b"", owner=Ownership(123456, 654321), mode=0o640)
    status = (allowed / "key").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (123456, 654321, 0o640)


def test_who_may_not_give_says_so(allowed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that is not root cannot serve others."""

    def refuse(*_: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    with (
        open_folder(str(allowed), [str(allowed)]) as folder,
        pytest.raises(PathFault, match="root"),
    ):
        write_new(folder, "key", b"", owner=Ownership(1, 1), mode=0o600)
    assert list(allowed.iterdir()) == []


def test_the_label_goes_with_the_file(allowed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files have SELinux labels, the new one has that of the old one; where they cannot be
    set, the file is written all the same."""
    labels: dict[int, bytes] = {}

    def get(descriptor: int, name: str) -> bytes:
        assert name == "security.selinux"
        return labels[os.fstat(descriptor).st_ino]

    def put(descriptor: int, name: str, label: bytes) -> None:
        labels[os.fstat(descriptor).st_ino] = label

    monkeypatch.setattr(os, "getxattr", get)
    monkeypatch.setattr(os, "setxattr", put)
    label = b"system_u:object_r:cert_t:s0\0"
    with open_folder(str(allowed), [str(allowed)]) as folder:
        write_new(folder, "key", b"", owner=OURS, mode=0o600, label=label)
        found = read_regular(folder, "key")
        assert found is not None
        assert found.label == label

        def unsupported(*_: object) -> None:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

        monkeypatch.setattr(os, "setxattr", unsupported)
        write_new(folder, "other", b"", owner=OURS, mode=0o600, label=label)


def test_only_ordinary_files_are_read(allowed: Path) -> None:
    """Nothing there is nothing; a symlink, a folder, a pipe and a second name are refused."""
    (allowed / "file").write_bytes(b"x")
    (allowed / "link").symlink_to("file")
    (allowed / "folder").mkdir()
    os.mkfifo(allowed / "pipe")
    with open_folder(str(allowed), [str(allowed)]) as folder:
        assert read_regular(folder, "absent") is None
        for name in ("link", "folder", "pipe"):
            with pytest.raises(PathFault, match=name):
                read_regular(folder, name)
        assert read_regular(folder, "file", is_sole=True) is not None
        os.link(allowed / "file", allowed / "second")
        with pytest.raises(PathFault, match="2 names"):
            read_regular(folder, "file", is_sole=True)
        assert read_regular(folder, "file") is not None
        (allowed / "file").write_bytes(b"x" * (MAX_READ_BYTES + 1))
        with pytest.raises(PathFault, match="larger"):
            read_regular(folder, "file")


def test_a_link_is_put_in_one_step(allowed: Path) -> None:
    """In the place of another, of nothing, and not of a folder."""
    (allowed / "folder").mkdir()
    with open_folder(str(allowed), [str(allowed)]) as folder:
        put_link(folder, "current", "one")
        put_link(folder, "current", "two")
        assert link_text(folder, "current") == "two"
        with pytest.raises(OSError, match="directory"):
            put_link(folder, "folder", "two")
        assert link_text(folder, "folder") is None
        assert entry_kind(folder, "current") == stat.S_IFLNK
        assert entry_kind(folder, "absent") is None
    assert sorted(one.name for one in allowed.iterdir()) == ["current", "folder"]


def test_removing_follows_nothing(allowed: Path, tmp_path: Path) -> None:
    """A folder goes with its files, a symlink alone, and what is not there is no error."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"")
    (allowed / "folder").mkdir()
    (allowed / "folder" / "file").write_bytes(b"")
    (allowed / "link").symlink_to(outside)
    (allowed / "file").write_bytes(b"")
    with open_folder(str(allowed), [str(allowed)]) as folder:
        for name in ("folder", "link", "file", "absent"):
            remove(folder, name)
    assert list(allowed.iterdir()) == []
    assert (outside / "file").exists()


def test_names_cannot_be_foreseen() -> None:
    """Each is another, and known as ours by its beginning."""
    names = {new_name() for _ in range(100)} | {new_name("..")}
    assert len(names) == 101
    assert all(one.lstrip(".").startswith("penstock-") for one in names)
