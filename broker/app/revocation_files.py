"""Files of revocation lists, read anew when they change; one that cannot be read vouches for
nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broker.protocol.revocation_lists import (
    RevocationList,
    RevocationUnknown,
    parse_revocation_lists,
)

__all__ = ["RevocationFiles"]

MAX_FILE_BYTES: Final = 32 * 1024 * 1024
"""Largest file that is read, in bytes: a list of half a million certificates has 20 MB."""

Stamp = tuple[int, int, int]


class RevocationFiles:
    """The port ``issuance.vouching.RevocationLists``, by files."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._read: dict[Path, tuple[Stamp, tuple[RevocationList, ...]]] = {}

    async def current(self) -> Sequence[RevocationList]:
        """Return what the files hold now.

        Raises:
            RevocationUnknown: One of them cannot be read.
        """
        return await asyncio.to_thread(self._all)

    def _all(self) -> list[RevocationList]:
        return [one for path in self._paths for one in self._of(path)]

    def _of(self, path: Path) -> tuple[RevocationList, ...]:
        try:
            status = path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            known = self._read.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            with path.open("rb") as file:
                octets = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise RevocationUnknown(f"revocation lists {path} cannot be read: {reason}") from error
        if len(octets) > MAX_FILE_BYTES:
            raise RevocationUnknown(f"revocation lists {path} are past {MAX_FILE_BYTES} bytes")
        try:
            found = parse_revocation_lists(octets)
        except RevocationUnknown as error:
            raise RevocationUnknown(f"{path}: {error}") from error
        self._read[path] = stamp, found
        return found
