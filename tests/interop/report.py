"""What a run of the matrix is remembered by: versions, date, and a row for each verb."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.interop.matrix import CLIENTS, Row
from tests.peers import authority
from tests.peers.installation import listing
from tests.peers.stock import CHALLENGES, Verb

REPORT: Final = Path(__file__).with_name("report.json")

KEPT_NOTE_CHARS: Final = 300
"""How much of a failure's text is kept; the whole of it is in the test's own output."""


CAS: Final = ("Pebble", "step-ca", "built-in", "Vault PKI")


def place_of(row: Row) -> tuple[int, ...]:
    """Return where a row stands in the report."""
    return (
        CAS.index(row.ca),
        list(CLIENTS).index(row.client),
        list(Verb).index(Verb(row.verb)),
        CHALLENGES.index(row.challenge),
    )


def write_report(path: Path, rows: Sequence[Row]) -> None:
    """Write the report of a run, sorted, so that two runs can be compared line by line."""
    versions = {name: entry["version"] for name, entry in listing().items() if entry["path"]}
    lines = [dataclasses.asdict(row) for row in sorted(rows, key=place_of)]
    for line in lines:
        line["note"] = line["note"][:KEPT_NOTE_CHARS]
    document = {
        "date": authority.real_now().date().isoformat(),
        "versions": versions,
        "rows": lines,
    }
    text = json.dumps(document, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", "utf-8")
