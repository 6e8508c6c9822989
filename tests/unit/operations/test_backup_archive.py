"""The file that a backup is: what was put in comes out, and nothing else is believed."""

import io
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import pytest

from broker.issuance.errors import Broken
from broker.operations.backup_archive import (
    Manifest,
    Member,
    Source,
    hash_of,
    read_archive,
    write_archive,
)

PASSPHRASE = b"a passphrase for tests"
FILES = {"penstock.db": b"the store" * 40_000, "keys/a@default.pem": b"a key", "empty": b""}


def source(name: str, content: bytes) -> Source:
    """Return a source of a member."""
    size, sha256 = hash_of(content)
    return Source(member=Member(name=name, size=size, sha256=sha256, mode=0o600), content=content)


def manifest(sources: list[Source]) -> Manifest:
    """Return the manifest of *sources*."""
    return Manifest(
        backup_id="b" * 32,
        made_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
        version="1.2.3",
        schema=2,
        counts={"orders": 7},
        last_event=9,
        members=tuple(one.member for one in sources),
    )


def written(path: Path, sources: list[Source], told: Manifest | None = None) -> Path:
    """Write an archive and return where."""
    with path.open("w+b") as file:
        write_archive(file, told or manifest(sources), sources, PASSPHRASE)
    return path


def read(path: Path, passphrase: bytes = PASSPHRASE) -> tuple[Manifest, dict[str, bytes]]:
    """Return the manifest and every member."""
    found: dict[str, bytes] = {}

    def receive(member: Member, content: BinaryIO) -> None:
        found[member.name] = content.read()

    return read_archive(path, passphrase, receive), found


def test_what_was_put_in_comes_out(tmp_path: Path) -> None:
    """With every word of its manifest."""
    sources = [source(name, content) for name, content in FILES.items()]
    told, found = read(written(tmp_path / "backup", sources))
    assert told == manifest(sources)
    assert found == FILES


def test_nothing_of_it_can_be_read_without_the_passphrase(tmp_path: Path) -> None:
    """Not even the names of its members."""
    path = written(tmp_path / "backup", [source(name, one) for name, one in FILES.items()])
    whole = path.read_bytes()
    assert b"the store" not in whole
    assert b"default.pem" not in whole
    with tarfile.open(path) as tar:
        assert tar.getnames() == ["key.json", "backup.tar.age"]
    with pytest.raises(Broken, match="passphrase"):
        read(path, b"another passphrase")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_cut_off_file_is_refused(tmp_path: Path, share: float) -> None:
    """As a copy over a broken line is."""
    path = written(tmp_path / "backup", [source(name, one) for name, one in FILES.items()])
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(Broken):
        read(path)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", ".hidden", "a//b", "a/../b", "a/b/c/d/e", "a b", ""]
)
def test_member_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    """Even where somebody who has the passphrase wrote it."""
    path = written(tmp_path / "backup", [source(name, b"x")])
    with pytest.raises(Broken, match=r"has no place here|lacks|no backup"):
        read(path)


def test_member_that_is_not_as_promised_is_refused(tmp_path: Path) -> None:
    """The manifest names another hash."""
    sources = [source("keys/a.pem", b"one")]
    other = manifest([source("keys/a.pem", b"two")])
    path = written(tmp_path / "backup", sources, other)
    with pytest.raises(Broken, match="not what its manifest says"):
        read(path)


def test_member_that_is_missing_or_too_many_is_refused(tmp_path: Path) -> None:
    """The manifest is the list."""
    one, two = source("keys/a.pem", b"one"), source("keys/b.pem", b"two")
    with pytest.raises(Broken, match=r"lacks 'keys/b\.pem'"):
        read(written(tmp_path / "few", [one], manifest([one, two])))
    with pytest.raises(Broken, match="more than its manifest names"):
        read(written(tmp_path / "many", [one, two], manifest([one])))


@pytest.mark.parametrize("content", [b"", b"no tar at all" * 100], ids=["empty", "nonsense"])
def test_file_that_is_no_backup_is_refused(tmp_path: Path, content: bytes) -> None:
    """With its name in the sentence."""
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(Broken, match=r"file is no backup of Penstock"):
        read(tmp_path / "file")


def test_tar_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """It has other members."""
    with tarfile.open(tmp_path / "file", "w") as tar:
        tar.addfile(tarfile.TarInfo("other"), io.BytesIO())
    with pytest.raises(Broken, match="no backup of Penstock"):
        read(tmp_path / "file")
