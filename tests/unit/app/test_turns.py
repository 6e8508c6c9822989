"""One configuration after the other: which serves next, and what is served by if it does not."""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from broker.app import turns as app_turns
from broker.app.assembly import assembled
from broker.app.config_keeping import ReadConfig
from broker.app.kept_config import Beginning, KeptConfig, begin_with
from broker.app.operator_access import OperatorAccess
from broker.app.turns import Turns, addresses
from broker.clock import SystemClock
from broker.config import Config
from broker.config.load import parse_config
from broker.config.model import DATABASE
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event, EventKind
from broker.storage.faults import StoreLocked
from broker.storage.sqlite import SqliteStore
from tests.unit.app.test_config_keeping import JANE, reading
from tests.unit.config.conftest import parsed, write


@pytest.fixture(autouse=True)
def _keep_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave logging to the test run."""
    monkeypatch.setattr(app_turns, "set_up_log", lambda **_how: None)


class Site:
    """A state directory with its file; listeners are none of these tests' business."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "key.pass").write_text("a passphrase that is long enough")
        self.path = folder / "penstock.yaml"
        self.kept = KeptConfig(folder / "last-good.json")

    def reading(self, **changes: object) -> ReadConfig:
        """Return a configuration of this site."""
        given = {
            "state": str(self.folder / "state"),
            "keys.passphrase": f"file:{self.folder}/key.pass",
            **{name.replace("__", "."): value for name, value in changes.items()},
        }
        text = write(given)
        return ReadConfig(config=parse_config(text, "penstock.yaml"), text=text)

    def turns(self, first: ReadConfig) -> Turns:
        """Return turns that begin with *first*, and have what served kept."""
        self.path.write_text(first.text)
        return Turns(Beginning(reading=first, path=self.path, kept=self.kept))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A site."""
    return Site(tmp_path)


async def serve(turns: Turns, config: Config, then: Callable[[], object]) -> ReadConfig | None:
    """Serve by *config* as far as it matters, do *then*, and wait for what is found."""
    async with assembled(config, turns.lasting) as broker:
        watch = turns.watch(broker.outside)
        assert watch is not None
        OperatorAccess(config, SystemClock(), user_agent="a test", path=turns.path)
        await turns.opened()
        await turns.begun(broker.outside)
        stopping = asyncio.Event()
        if then() is None:
            await watch.look_now()
        else:
            stopping.set()
        return await turns.until(stopping)


async def test_changed_file_is_served_in_the_next_turn(site: Site) -> None:
    """By the same process, with an event, and kept."""
    first, second = site.reading(), site.reading(log__level="debug")
    turns = site.turns(first)
    served: list[Config] = []

    async def take_turn(config: Config) -> ReadConfig | None:
        served.append(config)
        if len(served) == 1:
            return await serve(turns, config, lambda: site.path.write_text(second.text) and None)
        return await serve(turns, config, lambda: "stop")

    await turns.run(take_turn)
    assert served == [first.config, second.config]
    assert turns.keeper.in_force == second
    found = site.kept.read()
    assert found is not None
    assert found.reading == second
    with contextlib.closing(sqlite3.connect(second.config.state / DATABASE)) as database:
        taken = database.execute(
            "SELECT data FROM events WHERE kind = ?", (EventKind.CONFIGURATION_TAKEN.value,)
        ).fetchall()
    assert [json.loads(data) for (data,) in taken] == [
        {"sha256": second.sha256, "before": first.sha256}
    ]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (Broken("no CA"), "no CA"),
        (Unreachable("Vault is away"), "Vault is away"),
        # What nobody foresaw may hold anything: only its name is shown.
        (RuntimeError("hunter2"), "it does not start: RuntimeError; the log has more"),
    ],
    ids=["broken", "unreachable", "bug"],
)
async def test_one_that_does_not_start_is_left_for_the_one_before(
    site: Site, error: Exception, told: str
) -> None:
    """With what people the file has now, and the reason."""
    first, second = site.reading(operators=JANE), site.reading(log__level="debug")
    turns = site.turns(first)
    served: list[Config] = []

    async def take_turn(config: Config) -> ReadConfig | None:
        served.append(config)
        if config.log.level == "debug":
            turns.lasting.people_read(second)
            raise error
        if len(served) == 1:
            return await serve(turns, config, lambda: site.path.write_text(second.text) and None)
        return await serve(turns, config, lambda: "stop")

    await turns.run(take_turn)
    assert [config.log.level for config in served] == ["info", "debug", "info"]
    assert served[0].operators is not None
    assert served[2].operators is None
    assert turns.keeper.in_force.text == first.text
    assert told in (turns.keeper.warning() or "")
    assert "hunter2" not in (turns.keeper.warning() or "")
    found = site.kept.read()
    assert found is not None
    assert found.reading.text == first.text
    assert found.reading.config.operators is None


async def test_first_that_does_not_start_is_left_for_what_was_kept(site: Site) -> None:
    """What served before this process; the twin, what may pass, ends it as ever."""
    kept, first = site.reading(), site.reading(log__level="debug")
    site.kept.write(kept, kept)
    served: list[str] = []

    async def take_turn(config: Config) -> ReadConfig | None:
        served.append(config.log.level)
        if config.log.level == "debug":
            raise Broken("cannot listen at x")
        return await serve(turns, config, lambda: "stop")

    turns = site.turns(first)
    await turns.run(take_turn)
    assert served == ["debug", "info"]
    assert turns.keeper.is_last_good
    assert "cannot listen at x" in (turns.keeper.warning() or "")

    async def be_away(_config: Config) -> None:
        raise Unreachable("Vault is away")

    with pytest.raises(Unreachable, match="Vault is away"):
        await site.turns(first).run(be_away)


async def test_without_anything_else_the_failure_ends_it(site: Site) -> None:
    """The first time as any other."""

    async def fail(_config: Config) -> None:
        raise Broken("cannot listen at x")

    with pytest.raises(Broken, match="cannot listen at x"):
        await site.turns(site.reading()).run(fail)


async def test_store_that_a_command_took_is_waited_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two turns a command may think that no broker runs."""
    monkeypatch.setattr(app_turns, "LOCK_PAUSE_SECONDS", 0)
    first, second = site.reading(), site.reading(log__level="debug")
    turns = site.turns(first)
    served: list[str] = []

    async def take_turn(config: Config) -> ReadConfig | None:
        served.append(config.log.level)
        if len(served) == 1:
            return await serve(turns, config, lambda: site.path.write_text(second.text) and None)
        if len(served) < 5:
            raise StoreLocked(site.folder / "state" / "penstock.db", 7)
        return await serve(turns, config, lambda: "stop")

    await turns.run(take_turn)
    assert served == ["info", *["debug"] * 4]
    assert turns.keeper.warning() is None


async def test_what_a_turn_has_left_ends_before_the_next(site: Site) -> None:
    """A job that was under way would work on a store that is closed."""
    first, second = site.reading(), site.reading(log__level="debug")
    turns = site.turns(first)
    left: list[asyncio.Task[None]] = []

    async def wait() -> None:
        await asyncio.Event().wait()

    async def take_turn(config: Config) -> ReadConfig | None:
        if not left:
            left.append(asyncio.create_task(wait()))
            return await serve(turns, config, lambda: site.path.write_text(second.text) and None)
        assert left[0].cancelled()
        return None

    await turns.run(take_turn)


async def test_broker_that_lingers_closes_its_sockets_only_then(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is still led here is served; without a time for it, they close at once."""
    closed: list[timedelta] = []
    stopping = asyncio.Event()
    stopping.set()
    for linger in (timedelta(days=1), timedelta(0)):
        turns = Turns(Beginning(reading=site.reading(), linger=linger))
        said = asyncio.Event()
        monkeypatch.setattr(turns.sockets, "close", partial(closed.append, linger))
        monkeypatch.setattr(turns.lasting.health, "say", lambda *_, **__: said.set())  # noqa: B023
        ending = asyncio.create_task(turns.until(stopping))
        await said.wait()
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)
    assert closed == [timedelta(0)]


NO_ANCHORS = {"anchors": "/nowhere/anchors.pem", "people": {}}
"""People whom nobody can believe."""


@pytest.mark.parametrize("changes", [{}, {"log__level": "debug"}], ids=["people", "more"])
async def test_broken_anchors_do_not_keep_a_process_from_starting(
    site: Site, changes: dict[str, object]
) -> None:
    """What served last does, with the people it had; the twin has good ones."""
    first, broken = site.reading(), site.reading(operators=NO_ANCHORS, **changes)
    site.kept.write(first, first)
    site.path.write_text(broken.text)
    turns = Turns(begin_with(site.path, last_good=site.kept.path))
    served: list[Config] = []

    async def take_turn(config: Config) -> ReadConfig | None:
        served.append(config)
        return await serve(turns, config, lambda: "stop")

    await turns.run(take_turn)
    assert [one.operators is None for one in served] == [False, True]
    assert "anchors.pem cannot be read" in (turns.keeper.warning() or "")
    found = site.kept.read()
    assert found is not None
    assert (found.reading.text, found.people.text) == (first.text, first.text)
    site.path.write_text(site.reading(operators={"people": {}}, **changes).text)
    turns = Turns(begin_with(site.path, last_good=site.kept.path))
    await turns.run(take_turn)
    assert turns.keeper.warning() is None


async def test_turn_that_cannot_be_recorded_is_left_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that nobody finds among the events is not in force, and the process goes on."""
    first, second = site.reading(), site.reading(log__level="debug")
    turns = site.turns(first)
    served: list[str] = []
    append = SqliteStore.append

    async def refuse(store: SqliteStore, event: Event, *, durable: bool) -> object:
        if event.kind is EventKind.CONFIGURATION_TAKEN:
            raise Unreachable("the disk is full")
        return await append(store, event, durable=durable)

    monkeypatch.setattr(SqliteStore, "append", refuse)

    async def take_turn(config: Config) -> ReadConfig | None:
        served.append(config.log.level)
        if len(served) == 1:
            return await serve(turns, config, lambda: site.path.write_text(second.text) and None)
        return await serve(turns, config, lambda: "stop")

    await turns.run(take_turn)
    assert served == ["info", "debug", "info"]
    assert "the disk is full" in (turns.keeper.warning() or "")
    found = site.kept.read()
    assert found is not None
    assert found.reading.text == first.text


async def test_what_never_listened_for_acme_is_not_kept(site: Site) -> None:
    """It is waited for by the first turn alone; a later one has another to go back to."""
    turns = site.turns(site.reading())
    async with assembled(turns.keeper.in_force.config, turns.lasting) as broker:
        watch = turns.watch(broker.outside)
        assert watch is not None
        await turns.begun(broker.outside)
        assert site.kept.read() is None
        assert not turns.has_way_back
        await turns.opened()
        assert site.kept.read() is not None
        site.path.write_text(site.reading(log__level="debug").text)
        await watch.look_now()
        await turns.until(asyncio.Event())
        assert turns.has_way_back


def test_every_listener_is_among_the_addresses() -> None:
    """One that is missed would refuse clients between two turns; the health port never closes."""
    listen = {
        "acme": {"from": "local"},
        **{name: {} for name in ("agents", "plain", "tls_alpn")},
    }
    given = {
        "listen": listen,
        "agents": {"identity": {"upstream": "local"}},
        "upstreams.local.profiles": {
            "node": {"usages": ["client-auth", "server-auth"], "lifetime": "7d"}
        },
    }
    config = parsed(given)
    found = addresses(config)
    assert {("0.0.0.0", port) for port in (8443, 8444, 8445)} < set(found)
    assert config.listen.health.address.port not in {one[1] for one in found if type(one) is tuple}
    assert config.operator_socket in found
    sections = {name for name in type(config.listen).model_fields if name != "operator"}
    assert sections == {"acme", "agents", "plain", "tls_alpn", "health", "operators"}
    assert reading().config.operator_socket in addresses(reading().config)
