"""The stores that the suite runs over; a second adapter is one more entry here."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from broker.issuance.ports import Store
from broker.storage.sqlite import SqliteStore
from tests.fakes.fresh_store import open_fresh


class OpenStore(Store, Protocol):
    """A store that the composition root has opened and will close."""

    async def close(self) -> None:
        """Let go of it."""
        ...


class Stores(Protocol):
    """Opens one and the same store again and again."""

    async def open(self) -> OpenStore:
        """Return the store, with all that was written before."""
        ...


class SqliteStores:
    """A SQLite file in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store" / "penstock.db"

    async def open(self) -> SqliteStore:
        """Open the file, empty the first time."""
        return await open_fresh(self.path)


@pytest.fixture(params=[SqliteStores], ids=["sqlite"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """One store of each kind, not open yet."""
    made: Stores = request.param(tmp_path)
    return made


@pytest.fixture
async def store(stores: Stores) -> AsyncIterator[OpenStore]:
    """One store of each kind, open and empty."""
    opened = await stores.open()
    yield opened
    await opened.close()


@pytest.fixture
async def sqlite(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """A SQLite store, open and empty, for what only SQLite does."""
    opened = await SqliteStores(tmp_path).open()
    yield opened
    await opened.close()
