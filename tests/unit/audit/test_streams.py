"""Files that others rotate, and standard output."""

import os
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.audit import streams
from broker.audit.feeding import Entry
from broker.audit.streams import FileSink, StdoutSink
from broker.issuance.errors import Unreachable


def entries(*numbers: int) -> list[Entry]:
    """Return lines with these numbers."""
    return [Entry(f"line {n}", n, "k", datetime(2026, 3, 1, tzinfo=UTC)) for n in numbers]


def test_lines_are_appended(tmp_path: Path) -> None:
    """What was there stays, and a confirmation has it on the disk."""
    path = tmp_path / "audit.jsonl"
    path.write_text("before\n")
    sink = FileSink(path)
    sink.send(entries(1, 2))
    sink.confirm()
    sink.abort()
    assert path.read_text() == "before\nline 1\nline 2\n"


def test_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    """Rotation needs no word to the broker."""
    path = tmp_path / "audit.jsonl"
    sink = FileSink(path)
    sink.send(entries(1))
    path.rename(tmp_path / "audit.jsonl.1")
    sink.send(entries(2))
    sink.abort()
    assert (tmp_path / "audit.jsonl.1").read_text() == "line 1\n"
    assert path.read_text() == "line 2\n"
    assert path.stat().st_mode & 0o777 == 0o640 & ~os.umask(os.umask(0o022))


def test_line_that_was_begun_is_ended_first(tmp_path: Path) -> None:
    """After a crash in the middle of one, no record is glued to its rest."""
    path = tmp_path / "audit.jsonl"
    path.write_text("half a li")
    sink = FileSink(path)
    sink.send(entries(1))
    sink.abort()
    assert path.read_text() == "half a li\nline 1\n"


def test_file_that_cannot_be_written_is_away(tmp_path: Path) -> None:
    """And so is one that is a link to elsewhere."""
    with pytest.raises(Unreachable, match="cannot be written"):
        FileSink(tmp_path / "absent" / "audit.jsonl").send(entries(1))
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(Unreachable):
        FileSink(tmp_path / "link").send(entries(1))


def test_confirming_what_was_never_opened_does_nothing(tmp_path: Path) -> None:
    """There is nothing to be certain of."""
    FileSink(tmp_path / "x").confirm()


def test_standard_output_has_lines() -> None:
    """As they are."""
    reading, writing = os.pipe()
    sink = StdoutSink(writing)
    sink.send(entries(1, 2))
    sink.confirm()
    os.close(writing)
    with os.fdopen(reading) as file:
        assert file.read() == "line 1\nline 2\n"


def test_standard_output_that_nobody_reads_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never holds the broker; a line that was begun is ended before any is sent again."""
    monkeypatch.setattr(streams, "PIPE_SECONDS", 0.0)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    sink = StdoutSink(writing)
    many = [Entry("x" * 1000, n, "k", datetime(2026, 3, 1, tzinfo=UTC)) for n in range(200)]
    with pytest.raises(Unreachable, match="not being read"):
        sink.send(many)
    taken = os.read(reading, 1 << 20)
    sink.send(entries(1))
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        taken += file.read()
    lines = taken.decode().splitlines()
    assert set(lines) == {"x" * 1000, "line 1"}
    assert lines[-1] == "line 1"


def test_line_that_was_begun_is_not_forgotten_while_nobody_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often it is tried: else the first line that goes again is glued to its half."""
    monkeypatch.setattr(streams, "PIPE_SECONDS", 0.0)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    sink = StdoutSink(writing)
    many = [Entry("x" * 1000, n, "k", datetime(2026, 3, 1, tzinfo=UTC)) for n in range(200)]
    for _ in range(3):
        with pytest.raises(Unreachable, match="not being read"):
            sink.send(many)
    taken = os.read(reading, 1 << 20)
    sink.send(entries(1))
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        taken += file.read()
    assert set(taken.decode().splitlines()) == {"x" * 1000, "line 1"}


def test_write_that_waits_gives_up_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """At once, and not after the longest wait for a reader: a broker that ends is not held up."""
    monkeypatch.setattr(streams, "PIPE_SECONDS", 3600.0)
    reading, writing = os.pipe()
    sink = StdoutSink(writing)
    many = [Entry("x" * 1000, n, "k", datetime(2026, 3, 1, tzinfo=UTC)) for n in range(2000)]
    told: list[str] = []

    def send() -> None:
        try:
            sink.send(many)
        except Unreachable as error:
            told.append(error.reason)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    os.read(reading, 1)  # it has begun
    sink.abort()
    thread.join(10 * streams.SLICE_SECONDS + 10)
    assert told == ["standard output is not being read"]
    os.close(reading)
    os.close(writing)
