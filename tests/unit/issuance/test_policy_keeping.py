"""Which policies are in force: taken whole, or not at all."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.config.policies import made_of
from broker.issuance import policy_keeping
from broker.issuance.errors import Unreachable
from broker.issuance.events import Actor, EventKind
from broker.issuance.policy_keeping import PolicyKeeper, check_version, refusal_of
from broker.issuance.policy_ports import PolicyChange, PolicyOutcome
from broker.policy.manifest import Seal
from broker.policy.yamlfile import Fault, Faults
from broker.storage.sqlite import SqliteStore
from tests.fakes.clock import FakeClock
from tests.fakes.fresh_store import open_fresh
from tests.fakes.policy_folder import MakerHere, PolicyFolder, cases, policy
from tests.unit.config.conftest import parsed

ANNA = Actor("operator:anna", "ticket 7")


class Keeping:
    """A keeper over a folder in memory and a real store."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.clock = FakeClock()
        self.folder = PolicyFolder({"default.yaml": policy()})
        self.pauses: list[float] = []
        self.rests_after: int | None = None
        """How many pauses the folder's files go on changing for."""
        self.maker = MakerHere(parsed())
        self.keeper = self.make()

    def make(self) -> PolicyKeeper:
        """Return a keeper as after a start with what lies there."""
        loaded = made_of(self.maker.config, self.folder.texts())
        return PolicyKeeper(
            loaded,
            source=self.folder,
            maker=self.maker,
            history=self.store,
            clock=self.clock,
            pause=self.pause,
        )

    async def pause(self, seconds: float) -> None:
        """Wait in no time; files may come to rest meanwhile."""
        self.pauses.append(seconds)
        if len(self.pauses) == self.rests_after:
            self.folder.error = None

    async def settle(self) -> None:
        """Look twice, a second apart: files count once they have stayed the same."""
        for _ in range(2):
            self.clock.advance(timedelta(seconds=1))
            await self.keeper.look()

    @property
    def cap(self) -> timedelta:
        """The cap that is in force."""
        return self.keeper.current("default").cap

    async def outcomes(self) -> list[str]:
        """Return what became of sets, the oldest first."""
        return [change.outcome.value for change in await self.store.policy_changes(limit=99)][::-1]

    async def events(self) -> list[tuple[EventKind, dict[str, Any]]]:
        """Return the events about policies."""
        rows = await self.store.read_events(after=0, limit=99, order_id=None)
        kinds = {EventKind.POLICY_ACTIVATED, EventKind.POLICY_REFUSED}
        return [(event.kind, dict(event.data)) for _, event in rows if event.kind in kinds]


@pytest.fixture
async def keeping(tmp_path: Path) -> AsyncIterator[Keeping]:
    """A keeper that has begun."""
    store = await open_fresh(tmp_path / "store.db")
    made = Keeping(store)
    await made.keeper.begin()
    yield made
    await store.close()


async def test_changed_set_comes_into_force_with_its_event(keeping: Keeping) -> None:
    """After two looks that saw the same; the event says what changed."""
    keeping.folder.files["default.yaml"] = policy("30d")
    await keeping.settle()
    assert keeping.cap == timedelta(days=30)
    assert keeping.keeper.since == keeping.clock.now()
    assert await keeping.outcomes() == ["activated", "activated"]
    kind, data = (await keeping.events())[-1]
    assert kind is EventKind.POLICY_ACTIVATED
    assert data["sha256"] == keeping.folder.texts().sha256
    assert data["changed"] == ["default.yaml"]
    assert keeping.keeper.warning() is None


async def test_files_that_are_still_being_written_are_left_alone(keeping: Keeping) -> None:
    """Each look sees something else, so that nothing is read."""
    keeping.folder.files["default.yaml"] = b"half of a polic"
    for _ in range(5):
        keeping.folder.stirred += 1
        await keeping.keeper.look()
    assert keeping.folder.reads == 0
    assert keeping.keeper.warning() is None


async def test_files_that_never_rest_are_told(keeping: Keeping) -> None:
    """After a minute; and no more once they rest."""
    for _ in range(70):
        keeping.folder.stirred += 1
        keeping.clock.advance(timedelta(seconds=1))
        await keeping.keeper.look()
    assert "changing all the time since" in str(keeping.keeper.warning())
    await keeping.settle()
    assert keeping.keeper.warning() is None


async def test_broken_set_changes_nothing_and_is_told_once(keeping: Keeping) -> None:
    """However often it is looked at; the old policy decides."""
    before = keeping.keeper.loaded
    keeping.folder.files["default.yaml"] = b"kind: Policy\n"
    await keeping.settle()
    since = keeping.clock.now()
    await keeping.settle()
    assert keeping.keeper.loaded is before
    assert await keeping.outcomes() == ["activated", "refused"]
    kind, data = (await keeping.events())[-1]
    assert kind is EventKind.POLICY_REFUSED
    assert data["in_force"] == before.texts.sha256
    assert "default.yaml:1" in str(data["faults"])
    assert keeping.keeper.refusal is not None
    assert keeping.keeper.refusal.since == since
    assert "stay in force: default.yaml:1" in str(keeping.keeper.warning())
    assert keeping.folder.reads == 1


async def test_set_whose_case_fails_is_refused(keeping: Keeping) -> None:
    """A policy that stops doing what it is for is not taken."""
    keeping.folder.files["cases/default.yaml"] = cases("30d")
    await keeping.settle()
    assert keeping.keeper.refusal is not None
    assert "expected cap 30d, got 90d" in keeping.keeper.refusal.faults[0]
    keeping.folder.files["default.yaml"] = policy("30d")
    await keeping.settle()
    assert keeping.cap == timedelta(days=30)
    assert keeping.keeper.loaded.cases == 1


async def test_files_put_back_end_the_refusal(keeping: Keeping) -> None:
    """What is in force is not activated again for it."""
    good = keeping.folder.files["default.yaml"]
    keeping.folder.files["default.yaml"] = b""
    await keeping.settle()
    assert keeping.keeper.warning() is not None
    keeping.folder.files["default.yaml"] = good
    await keeping.settle()
    assert keeping.keeper.warning() is None
    assert await keeping.outcomes() == ["activated", "refused"]


async def test_directory_that_is_gone_changes_nothing(keeping: Keeping) -> None:
    """Empty is not allow-all, and gone is not empty."""
    keeping.folder.is_gone = True
    await keeping.settle()
    await keeping.settle()
    assert "policy directory /policies is not there" in str(keeping.keeper.warning())
    assert await keeping.outcomes() == ["activated", "refused"]
    keeping.folder.is_gone = False
    await keeping.settle()
    assert keeping.keeper.warning() is None


async def test_unreadable_file_is_a_fault_of_the_set(keeping: Keeping) -> None:
    """It is told like any other."""
    keeping.folder.stirred += 1
    keeping.folder.error = Faults([Fault("/p/x.yaml", 1, "", "is no regular file")])
    await keeping.settle()
    assert "/p/x.yaml:1: is no regular file" in str(keeping.keeper.warning())


async def test_set_that_changes_while_it_is_read_is_read_again(keeping: Keeping) -> None:
    """With the next look that sees it at rest."""
    keeping.folder.files["default.yaml"] = policy("30d")
    keeping.folder.error = Unreachable("policy files are being changed")
    await keeping.settle()
    assert keeping.keeper.warning() is None
    keeping.folder.error = None
    await keeping.settle()
    assert keeping.cap == timedelta(days=30)


async def test_reload_of_files_that_come_to_rest_takes_them(keeping: Keeping) -> None:
    """It reads them again after a moment, and nobody has to ask twice."""
    keeping.folder.files["default.yaml"] = policy("30d")
    keeping.folder.error = Unreachable("policy files are being changed")
    keeping.rests_after = 2
    await keeping.keeper.reload(ANNA)
    assert keeping.cap == timedelta(days=30)
    assert keeping.pauses == list(policy_keeping.RELOAD_PAUSES[:2])
    assert (await keeping.store.policy_changes(limit=1))[0].actor == "operator:anna"


async def test_reload_of_files_that_go_on_changing_is_told(keeping: Keeping) -> None:
    """Whoever asked is not left to think that they are in force; nothing else is told of it."""
    keeping.folder.files["default.yaml"] = policy("30d")
    keeping.folder.error = Unreachable("policy files are being changed")
    with pytest.raises(Unreachable, match="policy files are being changed"):
        await keeping.keeper.reload(ANNA)
    assert keeping.pauses == list(policy_keeping.RELOAD_PAUSES)
    assert keeping.folder.reads == len(policy_keeping.RELOAD_PAUSES) + 1
    assert keeping.cap == timedelta(days=90)
    assert keeping.keeper.warning() is None
    assert await keeping.outcomes() == ["activated"]
    keeping.folder.error = None
    await keeping.settle()
    assert keeping.cap == timedelta(days=30)


async def test_what_failed_for_another_reason_is_tried_again(keeping: Keeping) -> None:
    """A child process that was killed says nothing about the files."""
    keeping.folder.files["default.yaml"] = policy("30d")
    keeping.maker.error = Unreachable("policy files were not parsed within 60 s, the limit")
    await keeping.settle()
    assert "not parsed within 60 s" in str(keeping.keeper.warning())
    keeping.maker.error = None
    await keeping.settle()
    assert keeping.cap == timedelta(days=90), "not at once"
    keeping.clock.advance(policy_keeping.RETRY_AFTER)
    await keeping.settle()
    assert keeping.cap == timedelta(days=30)


async def test_reload_by_hand_waits_for_nothing(keeping: Keeping) -> None:
    """It is done at once, by whoever asked, and what was refused is judged again."""
    keeping.folder.files["default.yaml"] = policy("30d")
    await keeping.keeper.reload(ANNA)
    assert keeping.cap == timedelta(days=30)
    latest = (await keeping.store.policy_changes(limit=1))[0]
    assert (latest.actor, latest.reason) == ("operator:anna", "ticket 7")
    keeping.folder.files["default.yaml"] = b""
    await keeping.keeper.reload(ANNA)
    made = keeping.maker.made
    await keeping.keeper.reload(ANNA)
    assert keeping.maker.made == made + 1
    assert await keeping.outcomes() == ["activated", "activated", "refused"]


async def test_restart_with_the_same_files_tells_nothing_anew(keeping: Keeping) -> None:
    """What is in force is so since it came into force, and not since the start."""
    since = keeping.keeper.since
    keeping.clock.advance(timedelta(days=3))
    keeping.keeper = keeping.make()
    await keeping.keeper.begin()
    assert keeping.keeper.since == since
    assert await keeping.outcomes() == ["activated"]


async def test_restart_beside_broken_files_tells_them_once(keeping: Keeping) -> None:
    """Not at each of a hundred restarts; and since when they were told first."""
    broken = Faults([Fault("default.yaml", 1, "", "the file is empty")])
    texts = replace(keeping.folder.texts(), files={"default.yaml": b""})
    told = []
    for _ in range(3):
        keeping.clock.advance(timedelta(hours=1))
        keeping.keeper = keeping.make()
        keeping.keeper.resume(refusal_of(broken, texts, keeping.clock.now()))
        await keeping.keeper.begin()
        assert keeping.keeper.is_last_good
        assert keeping.keeper.refusal is not None
        told.append(keeping.keeper.refusal.since)
    assert await keeping.outcomes() == ["activated", "refused"]
    assert len(set(told)) == 1


async def test_store_that_is_away_keeps_the_old_set(
    keeping: Keeping, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No set comes into force that is not kept: a restart would not know it."""

    async def fail(*_: object) -> None:
        raise Unreachable("the disk is full")

    keeping.folder.files["default.yaml"] = policy("30d")
    with monkeypatch.context() as patch:
        patch.setattr(keeping.store, "keep_policy_change", fail)
        await keeping.settle()
        assert keeping.cap == timedelta(days=90)
        assert "the disk is full" in str(keeping.keeper.warning())
    keeping.clock.advance(policy_keeping.RETRY_AFTER)
    await keeping.settle()
    assert keeping.cap == timedelta(days=30)


async def test_one_look_at_a_time(keeping: Keeping) -> None:
    """A slow one is not overtaken by the next."""
    async with keeping.keeper._lock:
        await keeping.keeper.look()
    assert keeping.folder.reads == 0


async def test_facts_are_those_in_force(keeping: Keeping) -> None:
    """Whoever keeps the mapping sees the new ones."""
    upstream = {"kind": "acme", "directory": "https://ca.example/d"}
    facts = keeping.keeper.facts
    assert len(facts) == 0
    keeping.maker.config = parsed({"upstreams.ca": upstream})
    keeping.folder.files["default.yaml"] = policy("30d")
    await keeping.settle()
    assert list(facts) == ["ca"]
    assert facts["ca"].name == "ca"


def activated(version: int, sha256: str = "0" * 64) -> PolicyChange:
    """Return the activation of a signed set."""
    return PolicyChange(
        outcome=PolicyOutcome.ACTIVATED,
        set_id="x",
        sha256=sha256,
        at=FakeClock().now(),
        actor="system",
        version=version,
    )


@pytest.mark.parametrize(
    ("version", "words"),
    [(6, "version 7 was in force on"), (7, "another set of that version"), (8, None)],
    ids=["older", "another of the same", "newer"],
)
def test_version_only_rises(keeping_less: Any, version: int, words: str | None) -> None:
    """An old set that was signed once does not come back."""
    made = replace(keeping_less, seal=Seal(version=version, signers=("anna",)))
    if words is None:
        check_version(made, activated(7))
        return
    with pytest.raises(Faults, match=words):
        check_version(made, activated(7))


def test_the_same_set_may_be_signed_by_more(keeping_less: Any) -> None:
    """Under its version."""
    made = replace(keeping_less, seal=Seal(version=7, signers=("anna", "ben")))
    check_version(made, activated(7, made.texts.sha256))
    check_version(made, None)


@pytest.fixture
def keeping_less() -> Any:
    """Policies without a keeper."""
    return made_of(parsed(), PolicyFolder({"default.yaml": policy()}).texts())
