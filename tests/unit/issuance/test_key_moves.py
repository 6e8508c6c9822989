"""Keys that move between files and Vault: by a new key, or as they are, cut off at every step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.events import Actor, EventKind
from broker.issuance.key_moves import FILE, Move, Moved, place_of
from broker.storage.sqlite import SqliteStore
from tests.fakes.interruptions import Cut, Cutting
from tests.unit.issuance.test_adoption import NO_CHANGE, URL, VERSION, Office, bring_for, record

ACTOR = Actor("operator:anna", "ticket 7")
OLD = "account-ca@default"
VAULT = "vault:transit"


class Mover(Office):
    """An account of ours whose key lies in a file."""

    async def begin(self) -> None:
        """Make the account."""
        await self.transit.signer.create_key(OLD, "ec-p256")
        await self.have(record(OLD))
        self.ca.key_id = OLD

    async def move(
        self, to: str = VAULT, *, imports: bool = False, destroys: bool = False
    ) -> Moved:
        """Move the key."""
        wish = Move(
            upstream="ca",
            community="default",
            to=to,
            kind="ec-p256",
            imports_existing=imports,
            destroys_old=destroys,
        )
        return await self.moves.move(wish, actor=ACTOR)

    def is_imported(self) -> None:
        """Have a version in Vault be the very key, as far as the CA can tell."""
        self.ca.thumbprints = {VERSION: f"thumbprint of {OLD}"}
        self.foreign.bring = bring_for(self)  # type: ignore[method-assign]
        self.start()


@pytest.fixture
async def mover(tmp_path: Path) -> AsyncIterator[Mover]:
    """An account of ours."""
    store = await SqliteStore.open(tmp_path / "store.db")
    made = Mover(store)
    await made.begin()
    yield made
    await store.close()


@pytest.mark.parametrize(
    ("key_id", "place"),
    [
        ("account-ca@default", FILE),
        ("vault:transit/penstock.default.ca#1", "vault:transit"),
        ("vault:team/transit/penstock.default.ca#12", "vault:team/transit"),
    ],
    ids=["file", "vault", "deep-mount"],
)
def test_place_is_known_by_the_id(key_id: str, place: str) -> None:
    """As configuration writes it."""
    assert place_of(key_id) == place


async def test_move_gives_the_account_a_new_key(mover: Mover) -> None:
    """The old one stays in its file and signs no more."""
    made = await mover.move()
    assert (made.account.key_id, made.account.account_url) == (VERSION, URL)
    assert (made.old_key_id, made.old_key_destroyed, made.is_same_key) == (OLD, False, False)
    assert mover.ca.key_id == VERSION
    assert mover.files() == [OLD]


async def test_old_file_goes_when_told_to(mover: Mover) -> None:
    """At once, or when the same move is asked for again."""
    await mover.move()
    made = await mover.move(destroys=True)
    assert made.old_key_destroyed
    assert mover.files() == []
    with pytest.raises(Broken, match=r"is in vault:transit already; .*rotate-key ca"):
        await mover.move(destroys=True)
    assert (await mover.kinds())[-1] is EventKind.UPSTREAM_KEY_DESTROYED


async def test_configuration_comes_first(mover: Mover) -> None:
    """A move against it is refused, and nothing is done."""
    mover.foreign.configured = FILE
    with pytest.raises(
        Broken, match=r"in file, not in vault:transit; first set account_key\.store"
    ):
        await mover.move()
    assert mover.ca.changes == 0


async def test_refused_move_leaves_everything(mover: Mover) -> None:
    """The CA's words come back."""
    mover.ca.refusal = NO_CHANGE
    with pytest.raises(Refused, match="not implemented"):
        await mover.move(destroys=True)
    assert (found := await mover.found())
    assert found.key_id == OLD
    assert mover.files() == [OLD]


async def test_very_key_is_brought_and_its_file_removed(mover: Mover) -> None:
    """The CA is asked for no change."""
    mover.is_imported()
    made = await mover.move(imports=True)
    assert (made.account.key_id, made.is_same_key, made.old_key_destroyed) == (VERSION, True, True)
    assert mover.ca.changes == 0
    assert mover.files() == []
    assert (await mover.kinds())[-2:] == [
        EventKind.UPSTREAM_KEY_IMPORTED,
        EventKind.UPSTREAM_KEY_DESTROYED,
    ]


async def test_nothing_is_brought_out_of_vault(mover: Mover) -> None:
    """A key there never leaves it; a new one is the way back."""
    await mover.move()
    mover.foreign.configured = FILE
    with pytest.raises(Broken, match="never leaves Vault"):
        await mover.move(FILE, imports=True)


async def test_sealed_vault_leaves_the_file(mover: Mover) -> None:
    """Until Vault has signed the only copy that signs is the file's."""
    mover.transit.is_sealed = True
    with pytest.raises(Unreachable, match="sealed"):
        await mover.move(imports=True)
    assert mover.files() == [OLD]


async def test_without_an_account_nothing_moves(mover: Mover) -> None:
    """There is nothing to move."""
    wish = Move(upstream="ca", community="lab", to=VAULT, kind="ec-p256")
    with pytest.raises(Broken, match="has no account for community 'lab'"):
        await mover.moves.move(wish, actor=ACTOR)


STEPS = (
    "foreign.destination",
    "store.begin_upstream_key_change",
    "foreign.bring",
    "ring.has_key",
    "ca.account_of",
    "store.end_upstream_key_change",
    "ring.destroy_key",
    "store.append",
)
"""The steps of an import that change something, or whose loss could."""


@pytest.mark.parametrize("side", list(Cut))
@pytest.mark.parametrize("step", STEPS)
async def test_import_that_is_cut_off_ends_by_itself_or_when_asked_again(
    mover: Mover, step: str, side: Cut
) -> None:
    """The key is never in neither place, and the file goes last."""
    mover.is_imported()
    mover.traffic.cutting = Cutting(step, 1, side)
    dying = asyncio.ensure_future(mover.move(imports=True))
    await mover.traffic.is_cut.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)

    mover.traffic.revive()
    mover.ca.is_certain = True
    mover.start()
    await mover.keys.load()
    await mover.keys.settle()
    found = await mover.found()
    assert found is not None
    assert await mover.ring.has_key(found.key_id)
    assert found.key_id == OLD or VERSION in mover.transit.signer.keys
    await mover.moves.tidy()
    await mover.moves.tidy()
    if found.key_id == OLD:
        await mover.move(imports=True)
    found = await mover.found()
    assert found is not None
    assert found.key_id == VERSION
    assert mover.files() == []


async def test_tidying_leaves_the_old_file_of_a_move(mover: Mover) -> None:
    """It was not asked to go (docs/adr/0017)."""
    await mover.move()
    await mover.moves.tidy()
    assert mover.files() == [OLD]


async def test_tidying_waits_for_vault(mover: Mover) -> None:
    """What cannot be looked at now stays, and is looked at again."""
    mover.is_imported()
    mover.traffic.cutting = Cutting("ring.destroy_key", 1, Cut.BEFORE)
    dying = asyncio.ensure_future(mover.move(imports=True))
    await mover.traffic.is_cut.wait()
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    mover.traffic.revive()
    mover.start()
    mover.transit.is_sealed = True
    await mover.moves.tidy()
    assert mover.files() == [OLD]
    mover.transit.is_sealed = False
    await mover.moves.tidy()
    assert mover.files() == []
