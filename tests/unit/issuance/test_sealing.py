"""Secrets of the store come under the key that they are to be under, whatever they were before."""

import sqlite3
from contextlib import closing

import pytest

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import EventKind
from broker.issuance.key_ports import Sealed
from broker.issuance.records import EabKeyRecord
from broker.issuance.sealing import PORTION, SecretSealing, context_of
from tests.contract.storage import given
from tests.fakes.world import World


@pytest.fixture
def sealing(world: World) -> SecretSealing:
    """The job, over a world's store and sealer."""
    return SecretSealing(world.store, world.sealer, world.clock)


async def keep(world: World, *, count: int, is_sealed: bool) -> list[tuple[EabKeyRecord, bytes]]:
    """Keep binding keys, and return each with its MAC key."""
    made = []
    for number in range(count):
        secret = f"mac key {number:05} of a test ".encode()
        row = given.eab_key(mac_key=secret)
        if is_sealed:
            sealed = await world.sealer.seal(secret, context_of(row.community, row.key_id))
            row = given.eab_key(key_id=row.key_id, mac_key=sealed.octets, sealed_by=sealed.by)
        await world.store.add_eab_key(row, given.event())
        made.append((row, secret))
    return made


async def opened(world: World, row: EabKeyRecord) -> tuple[str | None, bytes]:
    """Return under which key the row's secret is now, and the secret."""
    now = await world.store.find_eab_key(row.community, row.key_id)
    assert now is not None
    assert now.sealed_by is not None
    sealed = Sealed(now.sealed_by, now.mac_key)
    return now.sealed_by, await world.sealer.unseal(sealed, context_of(now.community, now.key_id))


async def test_what_lay_in_the_clear_is_sealed_and_gone(
    world: World, sealing: SecretSealing
) -> None:
    """The rows open as before, and the files hold nothing of them."""
    kept = await keep(world, count=20, is_sealed=False)
    await sealing.run()
    for row, secret in kept:
        assert await opened(world, row) == ("file:1", secret)
    files = b"".join(path.read_bytes() for path in world.path.parent.glob("penstock.db*"))
    assert [secret for _, secret in kept if secret in files] == []
    (event,) = await world.events(EventKind.SECRETS_SEALED)
    assert event.data == {"secrets": 20, "under": ["file:1"], "was_in_the_clear": True}


async def test_nothing_happens_where_all_is_as_it_should_be(
    world: World, sealing: SecretSealing
) -> None:
    """Declared keys, which have no secret here, are nothing to seal."""
    kept = await keep(world, count=3, is_sealed=True)
    before = world.dump()
    await sealing.run()
    await sealing.run()
    assert world.dump() == before
    assert await opened(world, kept[0][0]) == ("file:1", kept[0][1])


async def test_rotated_key_takes_over_what_the_old_one_sealed(
    world: World, sealing: SecretSealing
) -> None:
    """In portions, each kept when it is done, so that the old version can be retired."""
    kept = await keep(world, count=PORTION + 5, is_sealed=True)
    key = world.sealer.rotate()
    await sealing.run()
    for row, secret in kept:
        assert await opened(world, row) == (key, secret)
    events = await world.events(EventKind.SECRETS_SEALED)
    assert [event.data["secrets"] for event in events] == [PORTION, 5]
    assert [event.data["was_in_the_clear"] for event in events] == [False, False]


async def test_row_that_does_not_open_stays_and_is_told(
    world: World, sealing: SecretSealing
) -> None:
    """The others are sealed anew all the same."""
    kept = await keep(world, count=3, is_sealed=True)
    with closing(sqlite3.connect(world.path)) as connection, connection:
        connection.execute(
            "UPDATE eab_keys SET sealed_by = 'file:gone' WHERE key_id = ?", (kept[1][0].key_id,)
        )
    key = world.sealer.rotate()
    with pytest.raises(Broken, match=kept[1][0].key_id):
        await sealing.run()
    assert await opened(world, kept[0][0]) == (key, kept[0][1])
    assert await opened(world, kept[2][0]) == (key, kept[2][1])
    stays = await world.store.find_eab_key("default", kept[1][0].key_id)
    assert stays is not None
    assert stays.sealed_by == "file:gone"


async def test_sealer_that_is_away_is_waited_for(world: World, sealing: SecretSealing) -> None:
    """Nothing is half done, and the next turn does it."""
    kept = await keep(world, count=2, is_sealed=False)
    before = world.dump()
    world.sealer.is_away = True
    with pytest.raises(Unreachable):
        await sealing.run()
    assert world.dump() == before
    world.sealer.is_away = False
    await sealing.run()
    assert await opened(world, kept[1][0]) == ("file:1", kept[1][1])


async def test_log_is_folded_once_after_each_start(
    world: World, sealing: SecretSealing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may have ended between sealing and folding; a reader in the way is come back to."""
    calls = 0

    async def fold_log() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Unreachable("store is being read")

    monkeypatch.setattr(world.store, "fold_log", fold_log)
    for _ in range(4):
        await sealing.run()
    assert calls == 2


def test_no_two_rows_have_one_context() -> None:
    """Neither a key id nor a community can be made to look like another's."""
    pairs = [("a", "b:c"), ("a", "b"), ("lab", "a"), ("a", "lab"), ("a", "b c"), ("ab", "c")]
    assert len({context_of(*pair) for pair in pairs}) == len(pairs)
