"""A file that is looked at: what is good is for the next turn, what is broken changes nothing."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from broker.app.config_keeping import ConfigKeeper, ConfigOutcome, ReadConfig
from broker.app.config_watch import RETRY_AFTER, ConfigWatch
from broker.config import Config
from broker.config.load import parse_config
from broker.issuance.errors import Broken
from broker.policy.yamlfile import Lines
from tests.fakes.clock import FakeClock
from tests.unit.app.test_config_keeping import JANE
from tests.unit.config.conftest import write

FIRST = write({})
OTHER = write({"log.level": "debug"})


class Judge:
    """Judges as it is told, and counts."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.judged: list[Config] = []

    async def judge(self, config: Config, _lines: Lines) -> None:
        """Say what it was told to."""
        self.judged.append(config)
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
        self.watch = ConfigWatch(
            self.keeper,
            self.path,
            judge=self.judge.judge,
            taken=self.take,
            clock=self.clock,
        )

    async def take(self, before: str) -> None:
        """Note what was in force before."""
        self.taken.append(before)

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
