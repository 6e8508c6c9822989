"""Vault's own audit log held against our trail: each signature there has its event here, and the
other way round.

What is only there was signed for somebody else, or for us without our keeping it; what is only here
has no signature behind it, or belongs to another log.  Pure: lines and records come in, findings
stand ready at the end.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from broker.issuance.audit_chain import ChainedRecord
from broker.issuance.events import EventKind
from broker.protocol.encoding import parse_timestamp

__all__ = ["KeptSignature", "Reconciled", "VaultSignature", "read_signature", "signatures_of"]

_SIGN: Final = re.compile(r"(.+)/sign/([^/]+)(?:/[^/]+)?")

AROUND: Final = timedelta(seconds=5)
"""How far two clocks may be apart, and how long a request may take: nearer to the ends of the log
than this nothing is missed in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultSignature:
    """A signature as Vault's log tells of it."""

    request: str
    key: str
    """Mount and name."""
    at: datetime
    who: str
    """Vault's display name of the token; in clear in its log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptSignature:
    """A signature as our trail tells of it."""

    request: str | None
    key: str
    """Mount and name."""
    at: datetime
    purpose: str
    seq: int | None
    """The record; None for one of a checkpoint."""


@dataclass(slots=True)
class Reconciled:
    """Two lists of signatures, held against each other."""

    made: list[VaultSignature] = field(default_factory=list)
    """All that were read of the log, by whatever key: the trail, which tells the keys that are
    ours, is read after it."""
    signed: list[VaultSignature] = field(default_factory=list)
    """Those by keys of this broker."""
    others: dict[str, int] = field(default_factory=dict)
    """Keys that are not, and how often they signed."""
    first: datetime | None = None
    last: datetime | None = None
    matched: int = 0
    only_there: list[VaultSignature] = field(default_factory=list)
    only_here: list[KeptSignature] = field(default_factory=list)
    unanswered: int = 0
    """Requests without an answer, each with a signature in Vault's log that it may have been."""
    outside: int = 0
    """Signatures here that were made before the log begins or after it ends."""

    def read(self, line: str) -> None:
        """Take a line of Vault's log."""
        document = _document(line)
        at = None if document is None else _time(document)
        if document is None or at is None:
            return
        self.first = at if self.first is None else min(self.first, at)
        self.last = at if self.last is None else max(self.last, at)
        made = read_signature(document)
        if made is not None:
            self.made.append(made)

    def compare(self, kept: Collection[KeptSignature], own: Collection[str] = ()) -> None:
        """Hold what was read against *kept*; what an earlier comparison found is forgotten.

        Ours are the keys in *kept*, and those in *own*, as mount and name.
        """
        ours = {one.key for one in kept} | set(own)
        self.signed = [one for one in self.made if one.key in ours]
        self.others = dict(Counter(one.key for one in self.made if one.key not in ours))
        self.matched = 0
        self.only_here = []
        there = {one.request: one for one in self.signed}
        unanswered: list[KeptSignature] = []
        outside: list[KeptSignature] = []
        for one in kept:
            if one.request is None:
                unanswered.append(one)
            elif there.pop(one.request, None) is not None:
                self.matched += 1
            elif not self._is_within(one.at):
                outside.append(one)
            else:
                self.only_here.append(one)
        left = sorted(there.values(), key=lambda made: made.at)
        self.only_there, unused = self._explained(left, unanswered)
        outside += [one for one in unused if not self._is_within(one.at)]
        self.unanswered, self.outside = len(unanswered) - len(unused), len(outside)

    def has_made_since(self, since: datetime) -> bool:
        """Return whether one that is only there was made after *since*."""
        return any(one.at > since for one in self.only_there)

    def _is_within(self, at: datetime) -> bool:
        if self.first is None or self.last is None:
            return False
        return self.first + AROUND <= at <= self.last - AROUND

    def _explained(
        self, left: Sequence[VaultSignature], unanswered: Sequence[KeptSignature]
    ) -> tuple[list[VaultSignature], list[KeptSignature]]:
        """Return those that no request of ours without an answer can have been, and the requests
        that explain nothing.

        A request is given up seconds after it was made, so one that was made at the end of the log
        stands here after that end.
        """
        waiting = list(unanswered)
        found = []
        for made in left:
            fits = [one for one in waiting if one.key == made.key and _is_before(made, one)]
            if fits:
                waiting.remove(fits[0])
            else:
                found.append(made)
        return found, waiting


def read_signature(document: Mapping[str, Any]) -> VaultSignature | None:
    """Return the signature that an entry of Vault's log tells of; None for any other entry.

    Requests are logged before they are answered and once more after: only answers count, and only
    those without an error.
    """
    request = document.get("request")
    if document.get("type") != "response" or document.get("error") or not isinstance(request, dict):
        return None
    found = _SIGN.fullmatch(str(request.get("path", "")))
    at = _time(document)
    if found is None or at is None or request.get("operation") not in ("update", "create"):
        return None
    auth = document.get("auth")
    who = auth.get("display_name") if isinstance(auth, dict) else None
    return VaultSignature(
        request=str(request.get("id")), key=f"{found[1]}/{found[2]}", at=at, who=str(who or "?")
    )


def signatures_of(record: ChainedRecord) -> Sequence[KeptSignature]:
    """Return the signatures that a record tells of."""
    if record.kind != EventKind.SIGNATURES_MADE:
        return ()
    data = record.data
    purpose = " ".join(str(data[name]) for name in ("for", "subject") if name in data) or "-"
    return [
        KeptSignature(
            request=one.get("vault_request"),
            key=key_of(str(one.get("key"))),
            at=record.at,
            purpose=purpose,
            seq=record.seq,
        )
        for one in data.get("signatures", ())
        if isinstance(one, dict)
    ]


def key_of(key_id: str) -> str:
    """Return mount and name of a key in Vault, without its version."""
    return key_id.removeprefix("vault:").partition("#")[0]


def _is_before(made: VaultSignature, asked: KeptSignature) -> bool:
    """Return whether *made* can be what *asked* had no answer to: it was given up a while later."""
    return made.at - AROUND <= asked.at <= made.at + timedelta(minutes=2)


def _document(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _time(document: Mapping[str, Any]) -> datetime | None:
    """Return when an entry was written; Vault writes nanoseconds, which RFC 3339 allows."""
    text = str(document.get("time", ""))
    shorter = re.sub(r"(\.\d{6})\d+", r"\1", text)
    try:
        return parse_timestamp(shorter)
    except ValueError:
        return None
