"""One delivery from the wish for a CSR to the server that serves the certificate.

Check, install, reload, look; tell the broker after each; put the old one back where the new one
does not come to be served.  Each step is written down before it is told, and can be done again: a
delivery that was cut off is begun anew from the message that is still in the inbox.  Generations of
a certificate never go back.  How keys, files and servers are dealt with is for ``agents.hands``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agents.clock import Clock
from agents.config import Absent, AgentConfig, CertificateSection
from agents.log import Log
from agents.mailbox import Outbox
from agents.records import Record, Records
from agents.steps import Checked, HandFault, Hands, Installation
from agents.wire import ENDS, Message, encode_bytes

__all__ = ["Renewals"]

FIRST: Final = "not looked at: the server is started once its first certificate is there"
"""What is told of a first certificate that nobody can serve yet."""


@dataclass(slots=True)
class _Placed:
    """A certificate that lies in its place and is not yet known to be served."""

    message: Message
    section: CertificateSection
    record: Record
    checked: Checked
    installation: Installation

    @property
    def delivery(self) -> str:
        return str(self.message.body["delivery"])


class Renewals:
    """Does what the broker asks about certificates."""

    def __init__(
        self,
        *,
        config: Callable[[], AgentConfig],
        records: Records,
        outbox: Outbox,
        hands: Hands,
        done: Callable[[Message], None],
        clock: Clock,
        log: Log,
    ) -> None:
        self._config = config
        self._records = records
        self._outbox = outbox
        self._hands = hands
        self._done = done
        self._clock = clock
        self._log = log
        self._locks: dict[str, threading.Lock] = {}
        self._locks_lock = threading.Lock()
        self.counts: dict[str, int] = {}
        self.reloads: dict[str, int] = {"done": 0, "failed": 0}

    def key_of(self, message: Message) -> str:
        """Return what *message* has to be done in turn with: its server, or its certificate."""
        name = str(message.body.get("certificate", ""))
        if message.kind != "certificate":
            return f"key {name}"
        section = self._config().certificate(name)
        target = section.reload.target if section is not None else None
        return f"reload {target}" if target else f"certificate {name}"

    def work(self, messages: Sequence[Message]) -> None:
        """Do *messages*, which share a key."""
        deliveries = []
        for message in messages:
            if message.kind == "certificate":
                deliveries.append(message)
            elif message.kind == "want-csr":
                self._answer_csr(message)
            else:
                self._take_back(message)
        for message in self._superseded(deliveries):
            deliveries.remove(message)
            self._end(message, "refused", "", "a newer certificate came with it")
        placed = [one for one in map(self._place, deliveries) if one is not None]
        if placed:
            self._bring(placed)

    # ------------------------------------------------------------------------------- CSRs

    def _answer_csr(self, message: Message) -> None:
        body = message.body
        name, delivery = str(body["certificate"]), str(body["delivery"])
        section = self._config().certificate(name)
        why = _why_not_asked(section, body)
        if section is None or why is not None:
            self._unable(message, why or "", is_final=True)
            return
        with self._lock(name):
            record = self._records.get(name)
            try:
                if record.asked_delivery != delivery or record.asked_csr is None:
                    self._make_csr(section, record, body)
            except HandFault as fault:
                self._unable(message, str(fault), is_final=fault.is_final)
                return
            answer = {"delivery": delivery, "certificate": name, "csr_der": record.asked_csr}
            self._outbox.put("csr", answer, re=message.id)
        self._log.info("CSR sent", certificate=name, delivery=delivery)
        self._done(message)

    def _make_csr(self, section: CertificateSection, record: Record, body: Any) -> None:
        made = self._hands.make_csr(section, is_new_key=bool(body["is_new_key"]))
        record.asked_delivery = str(body["delivery"])
        record.asked_csr = encode_bytes(made.csr_der)
        record.asked_spki, record.asked_key = made.spki_sha256, made.key
        self._records.put(record)

    def _unable(self, message: Message, reason: str, *, is_final: bool) -> None:
        body = {
            "delivery": message.body["delivery"],
            "reason": reason[:500],
            "is_final": is_final,
            "certificate": message.body["certificate"],
        }
        self._log.error("no CSR was made", certificate=message.body["certificate"], reason=reason)
        self._outbox.put("unable", body, re=message.id)
        self._done(message)

    def _take_back(self, message: Message) -> None:
        """The broker refuses, so that a key that waits is of no use; or says what it waits for."""
        is_refused = message.kind == "refused"
        name, reason = str(message.body["certificate"]), str(message.body["reason"])[:500]
        if is_refused:
            self._log.error("the broker refuses a certificate", certificate=name, reason=reason)
        if (section := self._config().certificate(name)) is not None:
            with self._lock(name):
                record = self._records.get(name)
                # What lies in its place and is not known to be served yet may be of that very key.
                if is_refused and record.stage not in _PLACED:
                    if record.asked_key and record.asked_key != record.key:
                        self._hands.forget_key(section, record.asked_key)
                    record.forget_asked()
                if is_refused or record.asked_delivery is not None:  # else it is served by now
                    record.fault = reason
                self._records.put(record)
        self._done(message)

    # ------------------------------------------------------------------------- deliveries

    def _superseded(self, messages: Sequence[Message]) -> list[Message]:
        newest: dict[str, int] = {}
        for one in messages:
            name = one.body["certificate"]
            newest[name] = max(newest.get(name, 0), one.body["generation"])
        passed = [m for m in messages if m.body["generation"] < newest[m.body["certificate"]]]
        seen: set[str] = set()
        for one in reversed([m for m in messages if m not in passed]):
            if one.body["certificate"] in seen:
                passed.append(one)
            seen.add(one.body["certificate"])
        return passed

    def _place(self, message: Message) -> _Placed | None:
        """Check and install; None when that ended the delivery."""
        body = dict(message.body)
        name, generation = str(body["certificate"]), int(body["generation"])
        section = self._config().certificate(name)
        if section is None:
            self._end(message, "refused", "", f"certificate {name!r} is not configured here")
            return None
        with self._lock(name):
            record = self._records.get(name)
            if record.delivery == body["delivery"] and record.stage in ENDS:
                self._tell(message, record.stage, record.delivered, record.note)
                self._done(message)
                return None
            if generation <= record.generation:
                said = f"generation {generation} is not newer than {record.generation}"
                self._end(message, "refused", "", f"{said}, which is installed", record)
                return None
            return self._check_and_install(message, section, record, body)

    def _check_and_install(
        self, message: Message, section: CertificateSection, record: Record, body: dict[str, Any]
    ) -> _Placed | None:
        try:
            checked = self._hands.check(section, body, record)
        except HandFault as fault:
            self._end(message, "refused", "", str(fault), record)
            return None
        try:
            installation = self._put_in_place(message, section, record, checked)
        except HandFault as fault:
            self._end(message, "failed", checked.fingerprint, str(fault), record)
            return None
        record.stage = "installed"
        self._records.put(record)
        self._tell(message, "installed", checked.fingerprint)
        return _Placed(message, section, record, checked, installation)

    def _put_in_place(
        self, message: Message, section: CertificateSection, record: Record, checked: Checked
    ) -> Installation:
        """Install, or take up what was installed before the agent was cut off."""
        delivery = str(message.body["delivery"])
        if record.delivery == delivery and record.stage in _PLACED:
            installation = self._hands.unfinished(section, checked.fingerprint)
            if installation is not None:
                return installation
        self._tell(message, "checked", checked.fingerprint)
        record.begin(delivery, "installing", checked.fingerprint)
        self._records.put(record)
        return self._hands.install(section, checked, _kept_seconds(message))

    def _bring(self, placed: list[_Placed]) -> None:
        """Reload once for all of them and look at each."""
        try:
            self._reload(placed)
        except HandFault as fault:
            if len(placed) == 1:
                self._restore(placed, {placed[0].delivery: f"reload failed: {fault}"})
            else:
                self._bring_apart(placed)
            return
        for one in placed:
            one.record.stage = "reloaded"
            self._records.put(one.record)
            self._tell(one.message, "reloaded", one.checked.fingerprint)
        failed: dict[str, str] = {}
        for one in placed:
            try:
                note = self._look(one)
            except HandFault as fault:
                failed[one.delivery] = f"not seen: {fault}"
            else:
                self._seen(one, note)
        if failed:
            self._restore([one for one in placed if one.delivery in failed], failed)

    def _look(self, one: _Placed) -> str | None:
        look = one.section.look
        if look is not None and look.first is Absent.PASS and one.record.fingerprint is None:
            return FIRST
        return self._hands.look(one.section, one.checked.fingerprint)

    def _bring_apart(self, placed: list[_Placed]) -> None:
        """One of several kept all from being reloaded: take all back, then try each half."""
        for one in placed:
            self._undo(one)
        middle = len(placed) // 2
        for half in (placed[:middle], placed[middle:]):
            again = []
            for one in half:
                try:
                    kept = _kept_seconds(one.message)
                    one.installation = self._hands.install(one.section, one.checked, kept)
                except HandFault as fault:
                    self._end(
                        one.message, "failed", one.checked.fingerprint, str(fault), one.record
                    )
                else:
                    again.append(one)
            if again:
                self._bring(again)

    def _reload(self, placed: Sequence[_Placed]) -> None:
        try:
            self._hands.reload([one.section for one in placed])
        except HandFault:
            self.reloads["failed"] += 1
            raise
        if placed[0].section.reload.target is not None:
            self.reloads["done"] += 1

    def _seen(self, one: _Placed, note: str | None) -> None:
        with self._lock(one.section.name):
            record, checked = one.record, one.checked
            try:
                one.installation.settle()
            except HandFault as fault:
                # What was there before lies about for longer; what is served is the new one.
                self._log.warning("not tidied up", certificate=record.name, reason=fault)
            record.generation = int(one.message.body["generation"])
            record.fingerprint = checked.fingerprint
            record.not_before, record.not_after = checked.not_before, checked.not_after
            record.spki_sha256, record.key = checked.spki_sha256, checked.key
            record.is_seen = note is None and bool(one.section.look or one.section.driver)
            record.fault = None
            if record.asked_spki == checked.spki_sha256:
                record.forget_asked(keep_csr=True)
            self._end(one.message, "seen", checked.fingerprint, note, record)

    def _restore(self, placed: Sequence[_Placed], reasons: dict[str, str]) -> None:
        """Put the old ones back, reload once, and tell."""
        stages = dict.fromkeys(reasons, "restored")
        for one in placed:
            undone = self._undo(one)
            if undone is not None:
                stages[one.delivery] = "failed"
                reasons[one.delivery] += f"; {undone}"
        again = ""
        try:
            self._reload(placed)
        except HandFault as fault:
            again = f"; and the reload after putting the old one back failed: {fault}"
            self._log.error("the old certificate is back, its reload failed", reason=fault)
        for one in placed:
            with self._lock(one.section.name):
                one.record.fault = reasons[one.delivery]
                fingerprint = one.checked.fingerprint
                note = reasons[one.delivery] + again
                self._end(one.message, stages[one.delivery], fingerprint, note, one.record)

    def _undo(self, one: _Placed) -> str | None:
        try:
            one.installation.undo()
        except HandFault as fault:
            self._log.error("the old one is not back", certificate=one.section.name, reason=fault)
            return f"the old one could not be put back: {fault}"
        return None

    # ----------------------------------------------------------------------------- telling

    def _end(
        self,
        message: Message,
        stage: str,
        fingerprint: str,
        note: str | None,
        record: Record | None = None,
    ) -> None:
        if record is not None:
            record.begin(str(message.body["delivery"]), stage, fingerprint, note)
            if stage != "seen":
                record.fault = note
            self._records.put(record)
        self.counts[stage] = self.counts.get(stage, 0) + 1
        self._tell(message, stage, fingerprint, note)
        self._done(message)

    def _tell(
        self, message: Message, stage: str, fingerprint: str, note: str | None = None
    ) -> None:
        body = message.body
        receipt = {
            "delivery": body["delivery"],
            "certificate": body["certificate"],
            "generation": body["generation"],
            "stage": stage,
            "fingerprint": fingerprint,
            "at": int(self._clock.now().timestamp()),
        }
        if note:
            receipt["note"] = note[:500]
        tell = self._log.error if stage in ENDS - {"seen"} else self._log.info
        tell(
            "delivery",
            certificate=body["certificate"],
            delivery=body["delivery"],
            generation=body["generation"],
            stage=stage,
            fingerprint=fingerprint or None,
            note=note,
        )
        self._outbox.put("receipt", receipt, re=message.id)

    def _lock(self, name: str) -> threading.Lock:
        with self._locks_lock:
            return self._locks.setdefault(name, threading.Lock())


_PLACED: Final = frozenset({"installing", "installed", "reloaded"})
"""Stages in which files may have been changed."""


def _kept_seconds(message: Message) -> int:
    return max(int(message.body["keep_previous_seconds"]), 0)


def _why_not_asked(section: CertificateSection | None, body: Any) -> str | None:
    """Return why a CSR is not made for this wish, or None."""
    if section is None:
        return f"certificate {str(body['certificate'])[:80]!r} is not configured here"
    if set(body["names"]) != set(section.names):
        return "the names asked for are not those configured here"
    if body["key_kind"] != section.key.kind:
        return f"a key of kind {str(body['key_kind'])[:20]!r}, configured is {section.key.kind}"
    return None
