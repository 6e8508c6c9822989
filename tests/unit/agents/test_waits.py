"""What the agent waits for, in a line that another process reads."""

from collections.abc import Sequence
from pathlib import Path

from agents.state import Folder
from agents.waits import NOT_YET, Waits, await_nothing, read_wait


def test_the_line_is_what_was_told_last(tmp_path: Path) -> None:
    """Before anything was, the broker has not been reached; an empty line: it has."""
    folder = Folder(str(tmp_path))
    assert read_wait(folder) == read_wait(None) == NOT_YET
    waits = Waits(folder)
    waits.tell("the broker is away: no route")
    assert read_wait(folder) == "the broker is away: no route"
    waits.tell("")
    assert read_wait(folder) == ""


def test_what_stays_the_same_is_not_written_again(tmp_path: Path) -> None:
    """A broker that is away for a day costs the disk one write."""
    folder = Folder(str(tmp_path))
    waits = Waits(folder)
    waits.tell("away")
    folder.remove("waits")
    waits.tell("away")
    assert read_wait(folder) == NOT_YET
    waits.tell("refused")
    assert read_wait(folder) == "refused"


def test_a_line_is_short_whatever_was_said(tmp_path: Path) -> None:
    """An event has room for it, and for what stands around it."""
    folder = Folder(str(tmp_path))
    Waits(folder).tell("x" * 10_000)
    assert len(read_wait(folder)) == 300


def test_a_line_that_cannot_be_kept_is_no_fault(tmp_path: Path) -> None:
    """A full disk keeps nobody from connecting; it is told again when it can be."""
    folder = Folder(str(tmp_path / "state"))
    (tmp_path / "state").rmdir()
    waits = Waits(folder)
    waits.tell("away")
    (tmp_path / "state").mkdir()
    waits.tell("away")
    assert read_wait(folder) == "away"


def test_something_else_in_its_place_is_no_line(tmp_path: Path) -> None:
    """A number is not shown to people."""
    folder = Folder(str(tmp_path))
    folder.put("waits", {"reason": 5})
    assert read_wait(folder) == NOT_YET


class Time:
    """Seconds that pass by being waited for."""

    def __init__(self, *found: Sequence[str]) -> None:
        self.now = 0.0
        self.found = list(found)

    def look(self) -> Sequence[str]:
        """Return what is found next; the last stays."""
        return self.found.pop(0) if len(self.found) > 1 else self.found[0]

    def pause(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds > 0
        self.now += seconds

    def wait(self, seconds: float) -> Sequence[str]:
        """Wait for nothing to be found."""
        return await_nothing(self.look, seconds, pause=self.pause, monotonic=lambda: self.now)


def test_it_is_answered_as_soon_as_nothing_is_left() -> None:
    """And not later."""
    time = Time(["missing"], ["missing"], [])
    assert time.wait(8) == []
    assert round(time.now, 3) == 0.2


def test_after_the_time_it_is_told_what_is_left() -> None:
    """As it is then, not as it was at the beginning."""
    time = Time(["connecting"], *[["refused"]] * 200)
    assert time.wait(1) == ["refused"]
    assert round(time.now, 3) == 1.0


def test_without_a_time_it_is_looked_once() -> None:
    """As `ready` did before it could wait."""
    time = Time(["missing"], [])
    assert time.wait(0) == ["missing"]
    assert time.now == 0


def test_a_time_that_is_over_is_not_waited_for() -> None:
    """As for a process that took longer to start than it was to wait."""
    time = Time(["missing"], [])
    assert time.wait(-2.5) == ["missing"]
    assert time.now == 0
