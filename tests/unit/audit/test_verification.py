"""A chain read from its beginning to its end: what fits, and every way in which it does not."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from broker.audit.verification import MAX_FINDINGS, ChainReading
from broker.issuance.audit_chain import (
    GENESIS,
    ChainedRecord,
    EventColumns,
    canonical,
    digest_of,
    earlier_text,
    record_text,
)
from broker.issuance.checkpoints import Checkpoint

HOUR_MICROSECONDS = 3_600_000_000
"""Time between two records here, in microseconds."""


def columns(kind: str = "order-created", n: int = 0, **data: object) -> EventColumns:
    """Return an event's columns."""
    at = n * HOUR_MICROSECONDS
    return (kind, at, "system", None, None, None, None, None, canonical({"n": n, **data}))


def chain(length: int, *, salt: str = "", start: int = 0) -> list[ChainedRecord]:
    """Return a whole chain."""
    return continued([], [columns(n=n, salt=salt) for n in range(start + 1, start + length + 1)])


def continued(
    before: Sequence[ChainedRecord], events: Sequence[EventColumns]
) -> list[ChainedRecord]:
    """Return *before* and further records."""
    made = list(before)
    for event in events:
        previous = made[-1].digest if made else GENESIS
        assert previous is not None
        seq = made[-1].seq + 1 if made else 1
        digest = digest_of(record_text(seq, event, previous))
        made.append(ChainedRecord(seq, event, digest, previous))
    return made


def checkpoint(record: ChainedRecord, at: datetime | None = None) -> Checkpoint:
    """Return a checkpoint of that record."""
    assert record.digest is not None
    return Checkpoint(
        seq=record.seq,
        digest=record.digest,
        at=at or record.at + timedelta(minutes=1),
        broker="https://acme.example",
        key_id="k",
    )


def read(records: Sequence[ChainedRecord], *, may_repeat: bool = False) -> ChainReading:
    """Return the chain as it is read."""
    reading = ChainReading(may_repeat=may_repeat)
    for record in records:
        reading.read(record)
    return reading


def sentences(reading: ChainReading) -> list[str]:
    """Return what was found."""
    return [one.sentence for one in reading.findings]


def test_untouched_chain_fits() -> None:
    """With its checkpoints."""
    records = chain(5)
    reading = read(records)
    reading.compare([checkpoint(records[2]), checkpoint(records[4])])
    assert sentences(reading) == []
    assert (reading.records, reading.covered, len(reading.matched)) == (5, 5, 2)


def test_edited_record_is_named() -> None:
    """The one whose content does not bear its digest out, and no other."""
    records = chain(5)
    records[2] = replace(records[2], columns=columns(n=3, salt="other"))
    assert [one.seq for one in read(records).findings] == [3]


def test_record_that_was_edited_with_its_digest_breaks_the_next() -> None:
    """As the owner of a database would do it who does not go on to the end."""
    records = chain(5)
    changed = columns(n=3, salt="other")
    assert records[1].digest is not None
    forged = digest_of(record_text(3, changed, records[1].digest))
    records[2] = replace(records[2], columns=changed, digest=forged)
    records[3] = replace(records[3], previous=forged)  # as the store would read it
    assert [one.seq for one in read(records).findings] == [4]


def test_removed_record_is_named() -> None:
    """By its number, in a store and in a file."""
    records = chain(5)
    del records[2]
    in_store = [*records[:2], replace(records[2], previous=None), records[3]]
    assert sentences(read(in_store))[0] == "record 3 is missing"
    assert sentences(read(records, may_repeat=True)) == ["record 3 is missing"]


def test_missing_beginning_is_named() -> None:
    """A store begins at 1; a file may begin anywhere, and says where."""
    records = chain(5)[2:]
    assert sentences(read(records)) == ["records 1 to 2 are missing"]
    reading = read(records, may_repeat=True)
    assert sentences(reading) == []
    assert reading.begins_after == chain(2)[1].digest


def test_cut_off_end_is_found_by_a_checkpoint() -> None:
    """Without one it fits, since it is a chain."""
    records = chain(5)
    reading = read(records[:3])
    assert sentences(reading) == []
    reading.compare([checkpoint(records[4])])
    assert sentences(reading)[0].startswith("records 4 to 5 are missing from the end")


def test_rewritten_chain_is_found_by_a_checkpoint() -> None:
    """Every digest of it fits, and it is not the chain that was signed."""
    reading = read(chain(5, salt="rewritten"))
    reading.compare([checkpoint(chain(5)[3])])
    assert "the chain was written anew" in sentences(reading)[0]


def test_lines_that_stand_again_are_counted_in_a_file_alone() -> None:
    """A sink sends again what it is not certain of; a store never holds a record twice."""
    records = chain(4)
    again = [*records[:3], *records[1:]]
    reading = read(again, may_repeat=True)
    assert (reading.repeated, reading.records, sentences(reading)) == (2, 4, [])
    assert sentences(read(again)) != []


def test_repeated_line_with_other_content_is_found() -> None:
    """The same number and the same digest are not enough."""
    records = chain(3)
    forged = replace(records[1], columns=columns(n=2, salt="other"))
    assert [one.seq for one in read([*records, forged], may_repeat=True).findings] == [2]
    other = continued(records[:1], [columns(n=2, salt="other")])[1]
    assert [one.seq for one in read([*records, other], may_repeat=True).findings] == [2]


def test_record_without_a_digest_inside_the_chain_is_found() -> None:
    """Nobody takes a record out of the chain by emptying a column."""
    records = chain(3)
    records[1] = replace(records[1], digest=None)
    assert "has no digest" in sentences(read(records))[0]


def test_first_record_that_names_a_predecessor_is_found() -> None:
    """What came before it was taken away and the rest numbered anew."""
    previous = bytes([7]) * 32
    digest = digest_of(record_text(1, columns(n=1), previous))
    assert sentences(read([ChainedRecord(1, columns(n=1), digest, previous)]))


# --------------------------------------------------------------------- from before the chain


def earlier(count: int) -> list[ChainedRecord]:
    """Return events from before the chain."""
    return [ChainedRecord(n, columns(n=n), None) for n in range(1, count + 1)]


def begun(before: Sequence[ChainedRecord]) -> list[ChainedRecord]:
    """Return *before*, the first record of the chain and one more."""
    import hashlib

    digest = hashlib.sha256(b"".join(earlier_text(one.seq, one.columns) for one in before))
    first = columns(
        "audit-chain-begun",
        n=9,
        earlier_records=len(before),
        earlier_last=len(before),
        earlier_sha256=digest.hexdigest(),
    )
    made = list(before)
    for event in (first, columns(n=10)):
        previous = made[-1].digest or GENESIS
        seq = made[-1].seq + 1
        made.append(
            ChainedRecord(seq, event, digest_of(record_text(seq, event, previous)), previous)
        )
    return made


def test_earlier_events_are_held_to_what_the_first_record_says() -> None:
    """Nobody can tell what was changed before; what is changed since is found."""
    records = begun(earlier(3))
    reading = read(records)
    assert (reading.earlier, reading.first, sentences(reading)) == (3, 4, [])
    records[1] = replace(records[1], columns=columns(n=2, salt="other"))
    assert "one was changed since the chain began" in sentences(read(records))[0]


def test_chain_that_begins_unsaid_is_found() -> None:
    """The first record cannot be taken away with all before it made harmless."""
    records = begun(earlier(3))
    del records[3]
    assert "does not say so" in " ".join(sentences(read(records)))


# -------------------------------------------------------------------------------- restorations


def restored(records: Sequence[ChainedRecord], keep: int, at: int) -> list[ChainedRecord]:
    """Return the chain of a store that was restored to its first *keep* records."""
    told = columns("store-restored", n=at, restoration_id="r1", backup_id="b1")
    return continued(records[:keep], [told, *(columns(n=at + n, salt="new") for n in (1, 2, 3))])


def test_restoration_is_explained_and_not_hidden() -> None:
    """Checkpoints of what it left behind contradict the chain until somebody knows of it."""
    records = chain(6)
    after = restored(records, 4, at=20)
    left = [checkpoint(records[3]), checkpoint(records[5])]
    reading = read(after)
    reading.compare(left)
    assert [one.restoration_id for one in reading.restorations] == ["r1"]
    assert "--accept-restore r1" in sentences(reading)[0]
    reading = read(after)
    reading.compare(left, ["r1"])
    assert (sentences(reading), len(reading.accepted), len(reading.matched)) == ([], 1, 1)


def test_made_up_restoration_excuses_nothing_signed_after_it() -> None:
    """A checkpoint that is younger than the restoration has to fit."""
    records = chain(6)
    reading = read(restored(records, 4, at=20))
    late = checkpoint(records[5], at=datetime(1970, 1, 3, tzinfo=UTC))
    reading.compare([late], ["r1"])
    assert "written anew" in sentences(reading)[0]


def test_file_holds_both_continuations() -> None:
    """What a collector took before the restoration stays; the chain goes on from the backup."""
    records = chain(6)
    after = restored(records, 4, at=20)
    reading = read([*records, *after[4:]], may_repeat=True)
    assert sentences(reading) == []
    assert reading.last == 8
    assert len(reading.restorations) == 1


def test_findings_are_bounded() -> None:
    """Of a long chain that does not fit at all the first are told, and how many more there are."""
    records = [replace(one, digest=bytes([1]) * 32) for one in chain(MAX_FINDINGS + 20)]
    reading = read(records)
    assert len(reading.findings) == MAX_FINDINGS
    assert reading.left_out >= 20


def test_checkpoint_of_records_that_are_not_here_is_counted() -> None:
    """An export that begins later neither bears it out nor contradicts it."""
    records = chain(6)
    reading = read(records[3:], may_repeat=True)
    reading.compare([checkpoint(records[1])])
    assert (reading.before, sentences(reading)) == (1, [])


@pytest.mark.parametrize("at", [2**62, -(2**62)], ids=["after all years", "before all years"])
def test_time_that_is_none_is_a_record_that_was_changed(at: int) -> None:
    """Whoever writes one into the table stops neither this reading nor a sink."""
    records = chain(3)
    kind, _, *rest = records[1].columns
    records[1] = replace(records[1], columns=(kind, at, *rest))  # type: ignore[arg-type]
    assert records[1].line(GENESIS)
    assert ["record 2 " in one for one in sentences(read(records))] == [True]
