"""A store whose schema is there already, so that a test does not pay for making it.

The migrations have tests of their own; what a thousand others need is their outcome.  It is made
once in a process, by the store itself, and copied.
"""

import shutil
import tempfile
from pathlib import Path

from broker.storage.sqlite import SqliteStore

EMPTY = "empty.db"

_made: list[tempfile.TemporaryDirectory[str]] = []


async def open_fresh(path: Path) -> SqliteStore:
    """Return the store at *path*, which begins as an empty one where nothing is yet."""
    if not _made:
        folder = tempfile.TemporaryDirectory(prefix="penstock-store-")
        await (await SqliteStore.open(Path(folder.name) / EMPTY)).close()
        _made.append(folder)
    _begin(path)
    return await SqliteStore.open(path)


def _begin(path: Path) -> None:
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(Path(_made[0].name) / EMPTY, path)
