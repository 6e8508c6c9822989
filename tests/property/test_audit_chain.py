"""Whatever is done to a chain of records is found; untouched it fits, in a store and in a file."""

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from broker.audit.verification import ChainReading
from broker.issuance.audit_chain import (
    GENESIS,
    ChainedRecord,
    EventColumns,
    canonical,
    digest_of,
    parse_line,
    record_text,
)

TEXTS = st.text(max_size=12)
OPTIONAL = st.none() | TEXTS
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
COLUMNS: st.SearchStrategy[EventColumns] = st.tuples(
    TEXTS,
    st.integers(0, 4_000_000_000_000_000),
    TEXTS,
    OPTIONAL,
    OPTIONAL,
    OPTIONAL,
    OPTIONAL,
    OPTIONAL,
    st.dictionaries(TEXTS, JSON, max_size=3).map(canonical),
)


def chained(events: list[EventColumns]) -> list[ChainedRecord]:
    """Return the events as a chain."""
    records: list[ChainedRecord] = []
    previous = GENESIS
    for seq, columns in enumerate(events, 1):
        digest = digest_of(record_text(seq, columns, previous))
        records.append(ChainedRecord(seq, columns, digest, previous))
        previous = digest
    return records


CHAINS = st.lists(COLUMNS, min_size=3, max_size=8).map(chained)


def findings(records: list[ChainedRecord], *, may_repeat: bool) -> int:
    """Return how many things do not fit."""
    reading = ChainReading(may_repeat=may_repeat)
    for record in records:
        reading.read(record)
    return len(reading.findings)


def without(records: list[ChainedRecord], place: int) -> list[ChainedRecord]:
    """Return the chain without a record that is not its last."""
    return [*records[:place], *records[place + 1 :]]


def edited(records: list[ChainedRecord], place: int) -> list[ChainedRecord]:
    """Return the chain with another actor in a record."""
    columns = records[place].columns
    changed: EventColumns = (*columns[:2], columns[2] + "x", *columns[3:])
    return [*records[:place], replace(records[place], columns=changed), *records[place + 1 :]]


def flipped(records: list[ChainedRecord], place: int) -> list[ChainedRecord]:
    """Return the chain with one bit of a digest flipped."""
    digest = records[place].digest or GENESIS
    other = bytes([digest[0] ^ 1]) + digest[1:]
    return [*records[:place], replace(records[place], digest=other), *records[place + 1 :]]


def swapped(records: list[ChainedRecord], place: int) -> list[ChainedRecord]:
    """Return the chain with the contents of a record and the next one exchanged."""
    one, two = records[place], records[place + 1]
    made = list(records)
    made[place] = replace(one, columns=two.columns)
    made[place + 1] = replace(two, columns=one.columns)
    return made if one.columns != two.columns else flipped(records, place)


@given(CHAINS)
def test_untouched_chain_fits_and_its_lines_are_read_back(records: list[ChainedRecord]) -> None:
    """Whatever text stands in it."""
    assert findings(records, may_repeat=False) == 0
    lines = [parse_line(one.line(one.previous or GENESIS)) for one in records]
    assert lines == records
    assert findings([*lines, *lines], may_repeat=True) == 0


@given(CHAINS, st.sampled_from([without, edited, flipped, swapped]), st.data())
def test_any_change_is_found(
    records: list[ChainedRecord],
    change: Callable[[list[ChainedRecord], int], list[ChainedRecord]],
    data: st.DataObject,
) -> None:
    """Wherever it is done, but at the very end, which a checkpoint covers."""
    place = data.draw(st.integers(0, len(records) - 2))
    made = change(records, place)
    assert findings(made, may_repeat=False) > 0
    if change is not without or place > 0:
        assert findings(made, may_repeat=True) > 0
