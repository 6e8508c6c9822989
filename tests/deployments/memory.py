"""Everything that a process has in its memory, read from outside and searched."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from io import RawIOBase
from pathlib import Path
from typing import Final

__all__ = ["scalar_forms", "search_files", "search_memory", "windows"]

WINDOW_BYTES: Final = 8 * 1024 * 1024
"""How much is read at a time, in bytes."""

OVERLAP_BYTES: Final = 8 * 1024
"""How much of the last window is searched again, in bytes: more than anything that is sought."""

_MAPPING: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (r\S+) \S+ \S+ \S+\s*(.*)")


def scalar_forms(scalar: int, octets: int = 32) -> dict[str, bytes]:
    """Return every form that the private scalar of a key may lie in memory or in a file in."""
    big = scalar.to_bytes(octets, "big")
    encodings = {
        "big-endian": big,
        "little-endian": big[::-1],  # bignums of OpenSSL and of Go
        "decimal": str(scalar).encode("ascii"),
        "hex": big.hex().encode("ascii"),
        "HEX": big.hex().upper().encode("ascii"),
    }
    return encodings | _base64_forms(big)


def _base64_forms(big: bytes) -> dict[str, bytes]:
    """Return the characters that stand for these octets at each of the three offsets that base64
    knows, without those at the ends which depend on what is beside them."""
    found = {}
    for offset in range(3):
        text = base64.b64encode(bytes(offset) + big)
        inner = text[4 if offset else 0 : -4]
        found[f"base64 at {offset}"] = inner
        found[f"base64url at {offset}"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    return found


def windows(pid: int) -> Iterator[bytes]:
    """Yield all that the process can read of its own memory, in pieces that overlap."""
    maps = Path(f"/proc/{pid}/maps").read_text("ascii", errors="replace")
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps.splitlines():
            found = _MAPPING.match(line)
            if found is None or found[4] in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
                continue
            start, end = int(found[1], 16), int(found[2], 16)
            yield from _pieces(memory, start, end)


def _pieces(memory: RawIOBase, start: int, end: int) -> Iterator[bytes]:
    position = start
    while position < end:
        try:
            memory.seek(position)
            piece = memory.read(min(WINDOW_BYTES, end - position))
        except (OSError, OverflowError, ValueError):
            return  # a guard page, or a mapping that has gone meanwhile
        if not piece:
            return
        yield piece
        position += len(piece)
        if position < end:
            position -= min(OVERLAP_BYTES, len(piece) - 1)


def search_memory(pid: int, sought: Mapping[str, bytes]) -> set[str]:
    """Return the names of those that occur in the process's memory."""
    found: set[str] = set()
    for piece in windows(pid):
        found |= {name for name, octets in sought.items() if octets in piece}
    return found


def search_files(directory: Path, sought: Mapping[str, bytes]) -> set[str]:
    """Return the names of those that occur in a file below *directory*."""
    found: set[str] = set()
    for path in directory.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            found |= {name for name, octets in sought.items() if octets in content}
    return found
