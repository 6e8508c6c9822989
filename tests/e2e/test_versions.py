"""Up one version and back again: no order is lost, and nothing is done twice."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.deployments.penstock import secret
from tests.deployments.requester import Requester
from tests.deployments.restoring import EAB_KEY, MAC_KEY, ZONE, finish, ready_order
from tests.deployments.versions import GENTLE, HARSH, NEXT, Versioned, next_version
from tests.peers import process

pytestmark = pytest.mark.e2e


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Versioned]:
    """A broker that is its own CA, whose requester needs no proof."""
    trusted = {
        "eab": [EAB_KEY],
        "names": [f"**.{ZONE}"],
        "profiles": ["server"],
        "because": "hosts of the tests",
    }
    binding = {"key_id": EAB_KEY, "mac_key": secret(tmp_path, "eab.mac", MAC_KEY)}
    with ExitStack() as stack:
        made = Versioned(
            tmp_path / "penstock",
            validation_http_port=process.free_port(),
            policy={"trusted": [trusted]},
            more={"external_account_bindings": [binding]},
        )
        yield stack.enter_context(made)


@asynccontextmanager
async def requester_of(broker: Versioned) -> AsyncIterator[Requester]:
    """Yield a requester with a bound account."""
    async with Requester(broker.directory_url, broker.ca_bundle) as made:
        answer = await made.bind(EAB_KEY, MAC_KEY)
        assert answer.status == 201, answer.body
        yield made


async def become(broker: Versioned, requester: Requester, tree: Path) -> None:
    """Stop the broker in good order, and start it as the version in *tree*.

    The requester then takes a nonce of that process, as clients do when they are told to.
    """

    def change() -> None:
        broker.stop()
        broker.tree = tree
        broker.start()

    await asyncio.to_thread(change)
    requester.nonce = None


async def test_rollback_by_one_version_loses_no_order(broker: Versioned, tmp_path: Path) -> None:
    """An order of each version is finished under the other; every certificate stays to be had."""
    this, following = broker.tree, next_version(tmp_path / "next", GENTLE)
    async with requester_of(broker) as requester:
        before = await requester.request(f"before.{ZONE}")
        assert await before.settled() == "valid"
        going_up = await ready_order(requester, f"going-up.{ZONE}")
        assert broker.backups() == []
        await become(broker, requester, following)
        assert broker.migrations() == list(range(1, NEXT + 1))
        assert await (await finish(requester, going_up)).settled() == "valid"
        above = await requester.request(f"above.{ZONE}")
        assert await above.settled() == "valid"
        going_down = await ready_order(requester, f"going-down.{ZONE}")
        await become(broker, requester, this)
        assert await (await finish(requester, going_down)).settled() == "valid"
        after = await requester.request(f"after.{ZONE}")
        assert await after.settled() == "valid"
        chains = [await one.chain() for one in (before, above, after)]
    assert len({chain[0].serial_number for chain in chains}) == 3
    assert broker.migrations() == list(range(1, NEXT + 1))


async def test_way_up_again_migrates_nothing_twice(broker: Versioned, tmp_path: Path) -> None:
    """One backup, one migration, whatever the older version wrote meanwhile."""
    this, following = broker.tree, next_version(tmp_path / "next", GENTLE)
    async with requester_of(broker) as requester:
        await become(broker, requester, following)
        (backup,) = broker.backups()
        await become(broker, requester, this)
        assert await (await requester.request(f"between.{ZONE}")).settled() == "valid"
        await become(broker, requester, following)
        assert await (await requester.request(f"again.{ZONE}")).settled() == "valid"
    assert broker.backups() == [backup]
    assert broker.migrations() == list(range(1, NEXT + 1))
    assert set(broker.rows("SELECT of_the_next_version FROM orders")) == {("by default",)}
    verified = broker.json("backup", "verify", str(backup))
    assert verified["schema"] == NEXT - 1


async def test_store_that_was_changed_too_much_is_refused(
    broker: Versioned, tmp_path: Path
) -> None:
    """With what to do; the newer version goes on as if nothing had been tried."""
    this, following = broker.tree, next_version(tmp_path / "next", HARSH)
    await asyncio.to_thread(broker.stop)
    broker.tree = following
    assert (await asyncio.to_thread(broker.run, "prepare")).stdout == ""
    broker.tree = this
    refused = await asyncio.to_thread(broker.run, "prepare", status=2)
    assert f"store has schema {NEXT}, this version knows {NEXT - 1}" in refused.stderr
    assert "the way back is a backup of before" in refused.stderr
    broker.tree = following
    assert broker.migrations() == list(range(1, NEXT + 1))


async def test_backup_of_before_leads_back_where_nothing_else_does(
    broker: Versioned, tmp_path: Path
) -> None:
    """The state directory is emptied but for its backups, which are in nobody's way."""
    this, following = broker.tree, next_version(tmp_path / "next", HARSH)
    async with requester_of(broker) as requester:
        kept = await requester.request(f"kept.{ZONE}")
        assert await kept.settled() == "valid"
        await asyncio.to_thread(broker.stop)
        broker.tree = following
        await asyncio.to_thread(broker.run, "prepare")
        (backup,) = broker.backups()
        aside = tmp_path / "aside"
        aside.mkdir()
        for one in sorted(broker.state.iterdir()):
            if one.name != "backups":
                one.rename(aside / one.name)
        broker.tree = this
        await asyncio.to_thread(broker.run, "restore", str(backup))
        await asyncio.to_thread(broker.start)
        requester.nonce = None
        assert (await kept.read())["status"] == "valid"


async def test_preparing_twice_changes_nothing(broker: Versioned) -> None:
    """A pod that is started again runs it again."""
    await asyncio.to_thread(broker.stop)
    first = await asyncio.to_thread(broker.run, "prepare", "--make-ca", "local")
    events = broker.rows("SELECT count(*) FROM events")
    second = await asyncio.to_thread(broker.run, "prepare", "--make-ca", "local")
    assert (first.stdout, second.stdout) == ("", "")
    assert broker.rows("SELECT count(*) FROM events") == events


async def test_preparing_beside_a_broker_is_refused(broker: Versioned) -> None:
    """It holds the store."""
    refused = await asyncio.to_thread(broker.run, "prepare", status=1)
    assert "is in use by process" in refused.stderr
    assert "stop the broker first" in refused.stderr
