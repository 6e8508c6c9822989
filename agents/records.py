"""What is known of each certificate of the node, as it is kept."""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass, fields
from typing import Any

from agents.state import Folder

__all__ = ["Record", "Records"]


@dataclass(slots=True)
class Record:
    """One certificate; changed by whoever holds its lock, and then put back."""

    name: str
    generation: int = 0
    """Of what is installed; 0: nothing that came from the broker."""
    fingerprint: str | None = None
    not_before: int | None = None
    not_after: int | None = None
    """Both in seconds since 1970."""
    spki_sha256: str | None = None
    key: str | None = None
    """By which the key in use is found again."""
    is_seen: bool = False
    """Whether the server was last seen to serve it."""
    fault: str | None = None
    asked_delivery: str | None = None
    asked_csr: str | None = None
    asked_spki: str | None = None
    asked_key: str | None = None
    """The newest CSR and its key, which waits beside the one in use."""
    delivery: str | None = None
    stage: str = ""
    delivered: str = ""
    note: str | None = None
    """The newest delivery, how far it has come, its certificate and what was told of it."""

    def begin(self, delivery: str, stage: str, fingerprint: str, note: str | None = None) -> None:
        """Note how far a delivery has come."""
        self.delivery, self.stage, self.delivered, self.note = delivery, stage, fingerprint, note

    def forget_asked(self, *, keep_csr: bool = False) -> None:
        """No key waits any more; its CSR may be used again."""
        self.asked_delivery = None
        if not keep_csr:
            self.asked_csr = self.asked_spki = self.asked_key = None


class Records:
    """The records of all certificates, in memory and on disk."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._records = {name: _read(name, found) for name, found in folder.all()}

    def get(self, name: str) -> Record:
        """Return the record of *name*, an empty one when there is none."""
        with self._lock:
            return self._records.setdefault(name, Record(name))

    def put(self, record: Record) -> None:
        """Keep *record*; raises StateFault."""
        document = {
            name: value for name, value in asdict(record).items() if value not in ("", None)
        }
        self._folder.put(record.name, document)

    def forget_generations(self) -> None:
        """Count generations from the beginning: the broker takes this for another node now."""
        with self._lock:
            records = list(self._records.values())
        for record in records:
            record.generation = 0
            record.begin("", "", "")
            self.put(record)


_KINDS: dict[str, Any] = {
    "generation": int,
    "not_before": int,
    "not_after": int,
    "is_seen": bool,
}


def _read(name: str, document: dict[str, Any]) -> Record:
    made = Record(name)
    for field in fields(Record):
        value = document.get(field.name)
        if field.name != "name" and type(value) is _KINDS.get(field.name, str):
            setattr(made, field.name, value)
    return made
