"""A file that is looked at: what is good is for the next turn, what is broken changes nothing."""

import asyncio
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.app import config_watch
from broker.app.config_keeping import ConfigKeeper, ConfigOutcome, ReadConfig
from broker.app.config_watch import RETRY_AFTER, ConfigWatch
from broker.config import Config
from broker.config.load import parse_config
from broker.issuance.errors import Broken, Unreachable
from broker.policy.yamlfile import Lines
from tests.fakes.clock import FakeClock
from tests.peers import authority
from tests.unit.app.test_config_keeping import JANE
from tests.unit.config.conftest import write

FIRST = write({})
OTHER = write({"log.level": "debug"})


class Judge:
    """Judges as it is told, and counts."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.judged: list[Config] = []
        self.begun = asyncio.Event()
        self.wait: asyncio.Event | None = None
        """Waited for before anything is said."""

    async def judge(self, config: Config, _lines: Lines) -> None:
        """Say what it was told to."""
        self.judged.append(config)
        self.begun.set()
        if self.wait is not None:
            await self.wait.wait()
        if self.error is not None:
            raise self.error


class Watched:
    """A file with its watch."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "penstock.yaml"
        self.path.write_text(FIRST)
        self.clock = FakeClock()
        first = ReadConfig(config=parse_config(FIRST, "penstock.yaml"), text=FIRST)
        self.keeper = ConfigKeeper(first, self.clock)
        self.judge = Judge()
        self.taken: list[str] = []
        self.unrecorded: Unreachable | None = None
        self.watch = ConfigWatch(
            self.keeper,
            self.path,
            judge=self.judge.judge,
            taken=self.take,
            clock=self.clock,
        )

    async def take(self, reading: ReadConfig) -> None:
        """Put it in force, as a turn does once that is recorded."""
        if self.unrecorded is not None:
            raise self.unrecorded
        self.taken.append(reading.text)
        self.keeper.take(reading)

    async def looks(self, count: int = 3) -> None:
        """Look a few times: two looks have to see the same."""
        for _ in range(count):
            await self.watch.look()

    @property
    def found(self) -> str | None:
        """Return the text that the next turn is to serve by."""
        following = self.watch.following
        assert self.watch.found.is_set() == (following is not None)
        return None if following is None else following.text


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """A file with the configuration that is in force."""
    return Watched(tmp_path)


async def test_good_change_is_for_the_next_turn(watched: Watched) -> None:
    """Once two looks have seen the same; this turn keeps what it has."""
    await watched.looks()
    watched.path.write_text(OTHER)
    await watched.watch.look()
    assert watched.found is None
    await watched.watch.look()
    assert watched.found == OTHER
    assert watched.keeper.in_force.text == FIRST
    await watched.looks()
    assert len(watched.judge.judged) == 1


async def test_link_that_is_swapped_is_a_change(watched: Watched, tmp_path: Path) -> None:
    """As Kubernetes does it, whatever the time and size of the new file."""
    await watched.looks()
    before = watched.path.stat()
    release = tmp_path / "..release"
    release.mkdir()
    same_size = FIRST.replace("acme.corp", "acmf.corp")
    (release / "penstock.yaml").write_text(same_size)
    os.utime(release / "penstock.yaml", ns=(before.st_atime_ns, before.st_mtime_ns))
    (tmp_path / "..data").symlink_to("..release")
    (tmp_path / "next").symlink_to("..data/penstock.yaml")
    (tmp_path / "next").rename(watched.path)
    await watched.looks()
    assert watched.found == same_size


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.touch(),
        lambda path: path.write_text(FIRST),
        lambda path: path.write_text(f"# nothing\n{FIRST}"),
        lambda path: path.write_text(write({"operators": JANE})),
    ],
    ids=["touched", "written-again", "comment", "people"],
)
async def test_what_serves_alike_begins_no_turn(
    watched: Watched, change: Callable[[Path], object]
) -> None:
    """Nothing is judged for it; the digest and the people that are told are the new ones."""
    await watched.looks()
    change(watched.path)
    await watched.looks()
    assert watched.found is None
    assert watched.judge.judged == []
    assert watched.keeper.in_force.text == watched.path.read_text()
    assert len(watched.taken) == (watched.path.read_text() != FIRST)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the file is empty"),
        ("a: [1, 2\nb", "is not YAML"),
        (write({"colour": "red"}), "colour"),
        (write({"listen.acme.from": "locale"}), "no upstream is called 'locale'"),
        ("\udcff", "is not UTF-8"),
        (None, "cannot be read"),
    ],
    ids=["empty", "no-yaml", "unknown-key", "contradiction", "no-text", "gone"],
)
async def test_broken_file_changes_nothing_but_what_is_told(
    watched: Watched, text: str | None, words: str
) -> None:
    """It is read once, and a mended one is fine again."""
    if text is None:
        watched.path.unlink()
    else:
        watched.path.write_bytes(text.encode(errors="surrogateescape"))
    await watched.looks()
    assert watched.found is None
    assert words in (watched.keeper.warning() or "")
    assert watched.keeper.in_force.text == FIRST
    watched.path.write_text(FIRST)
    await watched.looks()
    assert watched.keeper.warning() is None
    watched.path.write_text(OTHER)
    await watched.looks()
    assert watched.found == OTHER


async def test_refused_for_something_beside_it_is_tried_again(watched: Watched) -> None:
    """A file that it names may come later; nobody has to touch the text for it."""
    watched.judge.error = Broken("secret file:/x cannot be read")
    watched.path.write_text(OTHER)
    await watched.looks(5)
    assert len(watched.judge.judged) == 1
    assert watched.keeper.refusal is not None
    assert not watched.keeper.refusal.is_final
    watched.clock.advance(RETRY_AFTER)
    await watched.looks(5)
    assert len(watched.judge.judged) == 2
    watched.judge.error = None
    watched.clock.advance(RETRY_AFTER - timedelta(seconds=1))
    await watched.looks()
    assert watched.found is None
    watched.clock.advance(timedelta(seconds=1))
    await watched.looks()
    assert watched.found == OTHER


async def test_text_that_did_not_start_is_tried_when_somebody_asks(watched: Watched) -> None:
    """Not by itself: each try is a pause for clients."""
    config = parse_config(OTHER, "penstock.yaml")
    digest = ReadConfig(config=config, text=OTHER).sha256
    watched.keeper.refuse(ConfigOutcome.FAILED, ("cannot listen at x",), digest)
    watched.path.write_text(OTHER)
    watched.clock.advance(2 * RETRY_AFTER)
    await watched.looks(5)
    assert watched.judge.judged == []
    await watched.watch.look_now()
    assert watched.found == OTHER


async def test_who_asks_waits_for_no_second_look(watched: Watched) -> None:
    """A person says that the file is ready."""
    watched.path.write_text(OTHER)
    await watched.watch.look_now()
    assert watched.found == OTHER


async def test_people_with_anchors_that_are_no_use_are_not_in_force(
    watched: Watched, tmp_path: Path
) -> None:
    """The next start would read them, and end there; the twin with good ones is."""
    anchors = tmp_path / "anchors.pem"
    text = write({"operators": {**JANE, "anchors": str(anchors)}})
    watched.path.write_text(text)
    await watched.watch.look_now()
    assert watched.keeper.in_force.text == FIRST
    assert "anchors.pem cannot be read" in (watched.keeper.warning() or "")
    anchors.write_bytes(authority.make_root("people").certificate_pem)
    await watched.watch.look_now()
    assert watched.keeper.in_force.text == text
    assert watched.keeper.warning() is None


async def test_what_cannot_be_recorded_is_not_in_force(watched: Watched) -> None:
    """Nobody would find it among the events; it is tried again."""
    text = write({"operators": JANE})
    watched.path.write_text(text)
    watched.unrecorded = Unreachable("the disk is full")
    await watched.looks()
    assert watched.keeper.in_force.text == FIRST
    assert "the disk is full" in (watched.keeper.warning() or "")
    watched.unrecorded = None
    watched.clock.advance(RETRY_AFTER)
    await watched.looks()
    assert watched.keeper.in_force.text == text


async def test_fault_of_ours_is_a_refusal_and_ends_no_looking(watched: Watched) -> None:
    """Its text is for the log alone; once it is gone the same file is taken."""
    watched.judge.error = NotADirectoryError("/etc/secret-name")
    watched.path.write_text(OTHER)
    await watched.looks()
    assert watched.found is None
    assert "cannot be judged: NotADirectoryError" in (watched.keeper.warning() or "")
    assert "secret-name" not in (watched.keeper.warning() or "")
    watched.judge.error = None
    watched.clock.advance(RETRY_AFTER)
    await watched.looks()
    assert watched.found == OTHER


async def test_look_that_is_asked_for_while_another_judges_is_not_forgotten(
    watched: Watched,
) -> None:
    """What was found may not be what is meant; the twin, nobody asked meanwhile."""
    watched.path.write_text(OTHER)
    watched.judge.wait = asyncio.Event()
    first = asyncio.create_task(watched.watch.look_now())
    await watched.judge.begun.wait()
    watched.path.write_text(write({"log.level": "error"}))
    second = asyncio.create_task(watched.watch.look_now())
    assert not watched.watch.is_overtaken
    watched.judge.wait.set()
    await asyncio.gather(first, second)
    assert watched.found == OTHER
    assert watched.watch.is_overtaken


async def test_following_goes_on_whatever_a_look_meets(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody would notice that a file is followed no more."""
    for pause in ("REST", "LOOK_EVERY"):
        monkeypatch.setattr(config_watch, pause, timedelta(0))
    looks, done = list[str](), asyncio.Event()

    async def look() -> None:
        looks.append("look")
        if len(looks) == 1:
            raise RuntimeError("a bug")
        done.set()

    following = asyncio.create_task(watched.watch.run(look))
    with capture_logs() as logs:
        await done.wait()
    following.cancel()
    assert [line["event"] for line in logs] == ["configuration cannot be looked at"]
