"""The file that a backup is: two members in a tar, the second one sealed.

``key.json`` holds the stream's key under the key passphrase, ``backup.tar.age`` an age stream of
a tar whose first member is ``manifest.json``.  Whoever has the passphrase and no Penstock opens
it with stock tools (docs/operations/backup.md).  Nothing of the second member is believed before
its hash has been compared with the manifest's, nor the manifest before the seal was opened.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final

from broker.issuance.errors import Broken
from broker.keys.envelope import SealBroken, new_stream_key, open_stream_key
from broker.protocol.encoding import format_timestamp, parse_timestamp
from broker.protocol.problems import Problem

__all__ = ["Manifest", "Member", "Source", "hash_of", "read_archive", "write_archive"]

FORMAT: Final = "penstock-backup/1"
"""Version of the archive; a file of another version is refused rather than guessed at."""

KEY_MEMBER: Final = "key.json"
BODY_MEMBER: Final = "backup.tar.age"
MANIFEST: Final = "manifest.json"

MAX_KEY_BYTES: Final = 16 * 1024
"""Largest sealed key that is read, in bytes; one takes 700."""

MAX_MANIFEST_BYTES: Final = 16 * 1024 * 1024
"""Largest manifest that is read, in bytes: 200 bytes a member, and a broker has dozens."""

CHUNK_BYTES: Final = 1024 * 1024
"""How much is read at once, in bytes."""

_PART: Final = r"[A-Za-z0-9][A-Za-z0-9._+@-]{0,200}"
MEMBER_NAME: Final = re.compile(rf"{_PART}(/{_PART}){{0,3}}", re.ASCII)
"""Paths below the state directory: no part is hidden, empty or leads upwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file of the state directory."""

    name: str
    """Its path below the state directory."""
    size: int
    sha256: str
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a backup holds, and of which moment."""

    backup_id: str
    made_at: datetime
    """When the copy of the store was begun: what was acknowledged later may be missing."""
    version: str
    schema: int
    counts: Mapping[str, int]
    last_event: int
    members: tuple[Member, ...]

    def to_json(self) -> dict[str, object]:
        """Return the manifest as it is written."""
        return {
            "format": FORMAT,
            "backup_id": self.backup_id,
            "made_at": format_timestamp(self.made_at),
            "version": self.version,
            "schema": self.schema,
            "counts": dict(self.counts),
            "last_event": self.last_event,
            "members": [
                {"name": one.name, "size": one.size, "sha256": one.sha256, "mode": one.mode}
                for one in self.members
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the bytes of a member come from."""

    member: Member
    content: bytes | Path


Receive = Callable[[Member, BinaryIO], None]
"""Takes one member, as it is read, and has to read it to its end."""


def hash_of(content: bytes | Path) -> tuple[int, str]:
    """Return size and SHA-256 of *content*."""
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


# ------------------------------------------------------------------------------------- writing


def write_archive(
    output: BinaryIO, manifest: Manifest, sources: Sequence[Source], passphrase: bytes
) -> None:
    """Write the archive to *output*, which can be sought in.

    Raises:
        OSError: Reading a source or writing failed.
    """
    key, sealed = new_stream_key(passphrase)
    _put(output, KEY_MEMBER, sealed)
    header_at = output.tell()
    output.write(_header(BODY_MEMBER, 0))
    begin = output.tell()
    with _pipe(lambda writing: _write_body(writing, manifest, sources)) as reading:
        key.encrypt(reading, output)
    size = output.tell() - begin
    output.write(b"\0" * (-size % tarfile.BLOCKSIZE) + b"\0" * 2 * tarfile.BLOCKSIZE)
    output.seek(header_at)
    output.write(_header(BODY_MEMBER, size))
    output.seek(0, os.SEEK_END)


def _write_body(writing: BinaryIO, manifest: Manifest, sources: Sequence[Source]) -> None:
    with tarfile.open(fileobj=writing, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        text = json.dumps(manifest.to_json(), indent=1).encode()
        tar.addfile(_info(MANIFEST, len(text), 0o600), io.BytesIO(text))
        for source in sources:
            member = source.member
            info = _info(member.name, member.size, member.mode)
            if isinstance(source.content, bytes):
                tar.addfile(info, io.BytesIO(source.content))
            else:
                with source.content.open("rb") as file:
                    tar.addfile(info, file)


def _put(output: BinaryIO, name: str, content: bytes) -> None:
    output.write(_header(name, len(content)) + content)
    output.write(b"\0" * (-len(content) % tarfile.BLOCKSIZE))


def _header(name: str, size: int) -> bytes:
    # GNU's form is one block whatever the size: it can be written again in its place.
    return _info(name, size, 0o600).tobuf(tarfile.GNU_FORMAT)


def _info(name: str, size: int, mode: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, mode
    return info


# ------------------------------------------------------------------------------------- reading


def read_archive(path: Path, passphrase: bytes, receive: Receive) -> Manifest:
    """Hand each member of the backup at *path* to *receive*, and return its manifest.

    Raises:
        Broken: It is no backup, is damaged or cut off, or another passphrase sealed it.  What
            was received until then must be thrown away.
    """
    try:
        with path.open("rb") as file:
            sealed, body = _open_outer(file)
            key = open_stream_key(sealed, passphrase)
            with _pipe(lambda writing: key.decrypt(body, writing)) as reading:
                manifest = _read_body(reading, receive)
                # To the very end, so that a stream that was cut off is seen.
                while reading.read(CHUNK_BYTES):
                    pass
            return manifest
    except SealBroken as error:
        raise Broken(f"backup {path} {error}") from error
    except tarfile.TarError as error:
        raise Broken(f"backup {path} is no backup of Penstock, or is cut off") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"backup {path} cannot be read: {reason}") from error


def _open_outer(file: BinaryIO) -> tuple[bytes, BinaryIO]:
    """Return the sealed key, and the stream of the body."""
    with tarfile.open(fileobj=file, mode="r:") as tar:
        first, second = tar.next(), tar.next()
        names = tuple(one.name for one in (first, second) if one is not None)
        if first is None or second is None or names != (KEY_MEMBER, BODY_MEMBER):
            raise tarfile.ReadError("other members than a backup has")
        sealed = _extract(tar, first).read(MAX_KEY_BYTES)
        body = _extract(tar, second)
    # The file stays open when the tar around it is closed, and so does what reads from it.
    return sealed, body


def _extract(tar: tarfile.TarFile, info: tarfile.TarInfo) -> BinaryIO:
    found = tar.extractfile(info)
    if found is None:
        raise tarfile.ReadError("a member that is no file")
    return found  # type: ignore[return-value]  # reads bytes, as BinaryIO does


def _read_body(reading: BinaryIO, receive: Receive) -> Manifest:
    with tarfile.open(fileobj=reading, mode="r|") as tar:
        first = tar.next()
        if first is None or first.name != MANIFEST or first.size > MAX_MANIFEST_BYTES:
            raise tarfile.ReadError("no manifest")
        manifest = _parse_manifest(_extract(tar, first).read())
        for member in manifest.members:
            info = tar.next()
            if (
                info is None
                or not info.isreg()
                or (info.name, info.size)
                != (
                    member.name,
                    member.size,
                )
            ):
                raise Broken(f"backup lacks '{member.name}' as its manifest names it")
            hashed = _Hashed(_extract(tar, info))
            receive(member, hashed)  # type: ignore[arg-type]  # all that a receiver needs of it
            if hashed.digest.hexdigest() != member.sha256 or hashed.size != member.size:
                raise Broken(f"'{member.name}' in the backup is not what its manifest says")
        if tar.next() is not None:
            raise Broken("backup holds more than its manifest names")
    return manifest


class _Hashed:
    """A reader that hashes what passes."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self.digest = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.digest.update(data)
        self.size += len(data)
        return data


def _parse_manifest(text: bytes) -> Manifest:
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise Broken(f"backup is no {FORMAT}: a newer version may read it")
        manifest = Manifest(
            backup_id=str(document["backup_id"]),
            made_at=parse_timestamp(document["made_at"]),
            version=str(document["version"]),
            schema=int(document["schema"]),
            counts={str(name): int(count) for name, count in document["counts"].items()},
            last_event=int(document["last_event"]),
            members=tuple(
                Member(
                    name=str(one["name"]),
                    size=int(one["size"]),
                    sha256=str(one["sha256"]),
                    mode=int(one["mode"]),
                )
                for one in document["members"]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError, Problem) as error:
        raise Broken("backup has an unreadable manifest") from error
    for member in manifest.members:
        if MEMBER_NAME.fullmatch(member.name) is None:
            raise Broken(f"backup names a member '{member.name[:100]}' that has no place here")
    return manifest


# ------------------------------------------------------------------------------------- plumbing


@contextmanager
def _pipe(feed: Callable[[BinaryIO], None]) -> Iterator[BinaryIO]:
    """Yield the reading end of a pipe that *feed* writes to on a thread of its own.

    What *feed* raises is raised here at the end, and before what its reader made of it.
    """
    reading, writing = os.pipe()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            with os.fdopen(writing, "wb", CHUNK_BYTES) as sink:
                feed(sink)
        except BrokenPipeError:
            return  # the reader gave up, and says itself why
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            failures.append(error)

    thread = threading.Thread(target=run, name="backup-stream", daemon=True)
    thread.start()
    try:
        with os.fdopen(reading, "rb", CHUNK_BYTES) as source:
            yield source
    except Exception:
        thread.join()
        if failures:
            raise failures[0] from None
        raise
    thread.join()
    if failures:
        raise failures[0]
