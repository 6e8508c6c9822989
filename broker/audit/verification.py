"""Reading a chain from its beginning to its end, and finding what does not fit.

Pure: records come in one by one, from a store or from lines that a collector kept, and findings
stand ready at the end.  Lines of a collector may stand twice, since a sink sends again what it is
not certain of; records of a store may not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from broker.issuance.audit_chain import GENESIS, ChainedRecord, digest_of, earlier_text
from broker.issuance.checkpoints import Checkpoint
from broker.issuance.events import EventKind
from broker.protocol.encoding import format_timestamp

__all__ = ["ChainReading", "Finding", "Restoration"]

MAX_FINDINGS: Final = 100
"""Most findings that are kept; of a chain that was written anew each record would be one."""

DIGEST_BYTES: Final = 32
"""Length of a SHA-256, in bytes."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not fit."""

    seq: int | None
    """The record that it is about."""
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restoration:
    """A place where the chain goes on from a backup: what came after the backup is not in it."""

    seq: int
    """The record that tells of it."""
    at: datetime
    restoration_id: str
    backup_id: str


@dataclass(slots=True)
class ChainReading:
    """A chain as it is read."""

    may_repeat: bool = False
    """Whether records may stand twice, as in a file that a sink wrote."""
    first: int | None = None
    last: int = 0
    records: int = 0
    repeated: int = 0
    earlier: int = 0
    """Events from before the chain."""
    begins_after: bytes | None = None
    """What the first record names as its predecessor, where that is not here."""
    restorations: list[Restoration] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    left_out: int = 0
    """Findings that were not kept."""
    matched: list[Checkpoint] = field(default_factory=list)
    """Checkpoints that the chain bears out."""
    before: int = 0
    """Checkpoints of records that come before the first one here."""
    accepted: list[Checkpoint] = field(default_factory=list)
    """Checkpoints of records that a restoration, known to somebody, has left behind."""
    _digests: bytearray = field(default_factory=bytearray)
    _earlier: hashlib._Hash = field(default_factory=hashlib.sha256)

    # ------------------------------------------------------------------------------- reading

    def read(self, record: ChainedRecord) -> None:
        """Take the next record."""
        if record.digest is None:
            self._read_earlier(record)
            return
        if self.first is None:
            self._begin(record)
        elif record.seq <= self.last:
            if self._is_read_again(record):
                return
        elif record.seq > self.last + 1:
            self._tell_missing(record.seq)
        self._check(record, record.digest)
        self._keep(record, record.digest)

    def digest_at(self, seq: int) -> bytes | None:
        """Return the digest of a record that was read; None for any other."""
        if self.first is None or not self.first <= seq <= self.last:
            return None
        start = (seq - self.first) * DIGEST_BYTES
        found = bytes(self._digests[start : start + DIGEST_BYTES])
        return found if any(found) else None

    def tell(self, seq: int | None, sentence: str) -> None:
        """Add a finding."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(Finding(seq, sentence))
        else:
            self.left_out += 1

    def _read_earlier(self, record: ChainedRecord) -> None:
        if self.first is not None:
            self.tell(record.seq, f"record {record.seq} has no digest, and the chain holds there")
            return
        self.earlier += 1
        self._earlier.update(earlier_text(record.seq, record.columns))

    def _begin(self, record: ChainedRecord) -> None:
        self.first, self.last = record.seq, record.seq - 1
        if record.kind == EventKind.AUDIT_CHAIN_BEGUN:
            self._check_earlier(record)
        elif self.earlier:
            self.tell(record.seq, f"chain begins at record {record.seq}, which does not say so")
        elif record.seq > 1:
            self.begins_after = record.previous
        if not self.earlier and record.seq > 1 and not self.may_repeat:
            self.tell(1, f"records 1 to {record.seq - 1} are missing")

    def _check_earlier(self, record: ChainedRecord) -> None:
        told = record.data.get("earlier_records"), record.data.get("earlier_sha256")
        if self.earlier == 0 and self.may_repeat:
            return  # they were never sent anywhere
        if told != (self.earlier, self._earlier.hexdigest()):
            self.tell(
                record.seq,
                f"the {self.earlier} events from before the chain are not the {told[0]} that "
                f"record {record.seq} tells of: one was changed since the chain began",
            )

    def _is_read_again(self, record: ChainedRecord) -> bool:
        """Return whether the record is one that was read; another of that number is checked."""
        known = self.digest_at(record.seq)
        if known == record.digest and self.may_repeat:
            self.repeated += 1
            text = record.text(record.previous or GENESIS)
            if digest_of(text) != record.digest:
                self._tell_changed(record)
            return True
        is_restored = record.kind == EventKind.STORE_RESTORED
        if is_restored and record.previous == self.digest_at(record.seq - 1):
            # From here on it is another continuation; the earlier one is in the file before it.
            self._cut_to(record.seq - 1)
            return False
        self.tell(
            record.seq, f"record {record.seq} stands there twice, and not with the same content"
        )
        return True

    def _cut_to(self, seq: int) -> None:
        assert self.first is not None
        del self._digests[(seq - self.first + 1) * DIGEST_BYTES :]
        self.last = seq

    def _tell_missing(self, seq: int) -> None:
        first, last = self.last + 1, seq - 1
        which = f"record {first} is" if first == last else f"records {first} to {last} are"
        self.tell(first, f"{which} missing")
        self._digests.extend(bytes(DIGEST_BYTES * (last - first + 1)))

    def _check(self, record: ChainedRecord, digest: bytes) -> None:
        known = self.digest_at(record.seq - 1)
        previous = record.previous if record.previous is not None else known or GENESIS
        if digest_of(record.text(previous)) != digest:
            self._tell_changed(record)
        elif known is not None and previous != known:
            self.tell(
                record.seq,
                f"record {record.seq} names another predecessor than record {record.seq - 1}",
            )
        elif record.seq == 1 and previous != GENESIS:
            self.tell(1, "record 1 names a predecessor, and there is none")

    def _tell_changed(self, record: ChainedRecord) -> None:
        self.tell(
            record.seq,
            f"record {record.seq} ({record.kind}, {format_timestamp(record.at)}) does not fit its "
            "digest: it was changed, or the digest of the record before it was",
        )

    def _keep(self, record: ChainedRecord, digest: bytes) -> None:
        self.last = record.seq
        self.records += 1
        self._digests.extend(digest)
        if record.kind == EventKind.STORE_RESTORED:
            self.restorations.append(
                Restoration(
                    seq=record.seq,
                    at=record.at,
                    restoration_id=str(record.data.get("restoration_id")),
                    backup_id=str(record.data.get("backup_id")),
                )
            )

    # --------------------------------------------------------------------------- checkpoints

    def compare(
        self, checkpoints: Sequence[Checkpoint], accepted_restorations: Collection[str] = ()
    ) -> None:
        """Compare the chain, read whole, with checkpoints whose signatures were verified.

        One of a record that was left behind by a restoration contradicts the chain as a rewritten
        one would: only somebody who knows of the restoration can tell, and says so by its id.
        """
        for one in checkpoints:
            if self.first is not None and one.seq < self.first:
                self.before += 1
            elif self.digest_at(one.seq) == one.digest:
                self.matched.append(one)
            else:
                self._contradict(one, accepted_restorations)

    @property
    def covered(self) -> int:
        """Return the last record that a checkpoint covers, 0 where none does."""
        return max((one.seq for one in self.matched), default=0)

    def _contradict(self, one: Checkpoint, accepted: Collection[str]) -> None:
        left_by = [made for made in self.restorations if made.seq <= one.seq and made.at > one.at]
        if any(made.restoration_id in accepted for made in left_by):
            self.accepted.append(one)
            return
        at = format_timestamp(one.at)
        if one.seq > self.last:
            sentence = (
                f"records {self.last + 1} to {one.seq} are missing from the end: a checkpoint of "
                f"{at} covers them"
            )
        else:
            sentence = (
                f"record {one.seq} is not the one that the checkpoint of {at} covers: the chain "
                "was written anew"
            )
        if left_by:
            made = left_by[-1]
            sentence += (
                f", or restored from backup {made.backup_id} as record {made.seq} says; if you "
                f"know of that, --accept-restore {made.restoration_id}"
            )
        self.tell(one.seq, sentence)
