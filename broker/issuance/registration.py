"""The registration authority: what people say to requests, and what follows (RFC 3647 §1.3.2).

Whoever answers for a request does not approve it, and two who approve are two people.  Every
answer is a compare-and-set with the event that tells of it: of two who answer at the same time
the second one's answer is given to what the first one left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

import structlog

from broker.issuance.approval_changes import ApprovalChange, by_time, changed, moved
from broker.issuance.approval_people import People, is_any_of
from broker.issuance.approval_ports import (
    AnswerWord,
    ApprovalAnswer,
    ApprovalLists,
    ApprovalRecord,
    ApprovalStatus,
    ApprovalStore,
)
from broker.issuance.approval_states import ApprovalEvent, is_allowed
from broker.issuance.approval_terms import Terms, missing_kinds, parse_evidence
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Conflict
from broker.issuance.events import Actor, EventKind
from broker.issuance.ports import Clock
from broker.issuance.records import Job, JobKind
from broker.protocol.problems import Problem, ProblemType

__all__ = ["RegistrationAuthority", "RegistrationStore", "Said"]

ATTEMPTS: Final = 5
"""How often an answer is given anew after somebody else's; people are not that fast."""

SWEPT: Final = 200
"""Most approvals whose time has come that one look takes."""

log = structlog.get_logger(__name__)


class RegistrationStore(ApprovalStore, ApprovalLists, Protocol):
    """Approvals, and what people said of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What one person says."""

    word: AnswerWord
    actor: Actor
    evidence: tuple[str, ...] = ()


_EVENTS: Final = {
    AnswerWord.APPROVE: ApprovalEvent.APPROVED,
    AnswerWord.DENY: ApprovalEvent.DENIED,
    AnswerWord.SUSPEND: ApprovalEvent.SUSPENDED,
    AnswerWord.RESUME: ApprovalEvent.RESUMED,
    AnswerWord.WITHDRAW: ApprovalEvent.WITHDRAWN,
    AnswerWord.RENEW: ApprovalEvent.RENEWED,
}

_BY_OTHERS: Final = frozenset(
    {AnswerWord.APPROVE, AnswerWord.DENY, AnswerWord.RENEW, AnswerWord.RESUME}
)
"""What nobody says of their own request; to take it back or to hold it up is everybody's."""

_OPENING: Final = frozenset({AnswerWord.APPROVE, AnswerWord.RENEW, AnswerWord.RESUME})
"""What only those say whom the policy names, where it does: no is everybody's to say."""

_COUNTED: Final = frozenset({AnswerWord.APPROVE, AnswerWord.RENEW})
"""What may take more than one person."""


class RegistrationAuthority:
    """Takes answers, and does what the clock does to approvals."""

    def __init__(
        self, store: RegistrationStore, people: People, dispatcher: Dispatcher, clock: Clock
    ) -> None:
        self._store = store
        self._people = people
        self._dispatcher = dispatcher
        self._clock = clock

    async def answer(
        self,
        approval_id: str,
        word: AnswerWord,
        *,
        actor: Actor,
        evidence: Sequence[str] = (),
        also: Callable[[ApprovalRecord], Awaitable[ApprovalRecord]] | None = None,
    ) -> ApprovalRecord:
        """Return the approval after what *actor* said of it.

        *also* may add to a record that is approved by this.

        Raises:
            Problem: It is not theirs to say, not possible now, or evidence is missing.
            Conflict: Others were faster, again and again.
        """
        said = Said(word=word, actor=actor, evidence=parse_evidence(evidence))
        for _ in range(ATTEMPTS):
            record = await self.read(approval_id)
            change, is_final = await self._said(record, said)
            after = change.record
            if is_final and also is not None:
                after = await also(after)
            jobs = self._follows(record, after)
            try:
                await self._store.change_approval(
                    after,
                    expected=record.revision,
                    events=change.events,
                    answer=self._kept(after, record, said),
                    jobs=jobs,
                )
            except Conflict:
                continue
            for job in jobs:
                self._dispatcher.kick(job)
            # What goes on may have fallen due before it was held up.
            return await self.read(approval_id) if word is AnswerWord.RESUME else after
        raise Conflict(f"approval {approval_id} is being answered by others, look again")

    async def read(self, approval_id: str) -> ApprovalRecord:
        """Return the approval as it stands now.

        Raises:
            Problem: There is none.
        """
        found = await self._store.find_approval(approval_id)
        if found is None:
            raise Problem(ProblemType.MALFORMED, "there is no such approval", status=404)
        change = by_time(found, self._clock.now())
        if change is None:
            return found
        await self._keep_timed(found, change)
        return await self.read(approval_id)

    async def sweep(self) -> int:
        """Do what the clock does to those whose time has come; returns how many there were."""
        due = await self._store.due_approvals(self._clock.now(), SWEPT)
        for record in due:
            change = by_time(record, self._clock.now())
            if change is not None:
                await self._keep_timed(record, change)
        return len(due)

    # ----------------------------------------------------------------------------------- within

    async def _keep_timed(self, record: ApprovalRecord, change: ApprovalChange) -> None:
        try:
            await self._store.change_approval(
                change.record, expected=record.revision, events=change.events
            )
        except Conflict:
            return
        log.info(
            "approval moved by time",
            approval=record.approval_id,
            before=str(record.status),
            after=str(change.record.status),
        )

    async def _said(self, record: ApprovalRecord, said: Said) -> tuple[ApprovalChange, bool]:
        """Return what the answer makes of *record*, and whether that is more than one of several
        that it takes."""
        event = _EVENTS[said.word]
        if not is_allowed(record.status, event):
            raise Problem(
                ProblemType.MALFORMED,
                f"approval {record.approval_id} is {record.status}, so that it cannot be"
                f" {_DONE[said.word]}",
                status=409,
            )
        if record.status is ApprovalStatus.EXPIRED and record.decided_at is None:
            raise Problem(
                ProblemType.MALFORMED,
                f"approval {record.approval_id} was never given, so that nothing rests on it",
                status=409,
            )
        if said.word in _BY_OTHERS:
            people = await self._people.of(record)
            if is_any_of(said.actor.name, people):
                raise Problem(
                    ProblemType.UNAUTHORIZED,
                    f"{said.actor.name} answers for this request, somebody else has to decide"
                    " on it",
                )
        terms = Terms.read(record.terms)
        if said.word in _OPENING and not terms.is_open_to(said.actor.name):
            raise _left_to_others(record, terms, said.actor.name)
        if said.word in _COUNTED:
            return await self._counted(record, said, event)
        return self._moved(record, said, event), True

    def _moved(self, record: ApprovalRecord, said: Said, event: ApprovalEvent) -> ApprovalChange:
        now = self._clock.now()
        told = replace(record, reason=said.actor.reason)
        if said.word in (AnswerWord.DENY, AnswerWord.WITHDRAW):
            # Whoever says yes after that says it anew.
            told = replace(told, decided_at=now, round=record.round + 1)
        if said.word is AnswerWord.RESUME:
            told = replace(told, reason=None)
        return changed(told, event, at=now, actor=said.actor, evidence=list(said.evidence))

    async def _counted(
        self, record: ApprovalRecord, said: Said, event: ApprovalEvent
    ) -> tuple[ApprovalChange, bool]:
        """Count an approval or a renewal; the last one that it takes moves the record."""
        terms = Terms.read(record.terms)
        now = self._clock.now()
        answers = await self._store.answers_of(record.approval_id)
        said_too = [one for one in answers if one.round == record.round and one.word is said.word]
        # Whom policy does not name any more has said nothing that counts, and shown nothing.
        open_to = [one for one in said_too if terms.is_open_to(one.person)]
        before = [one for one in open_to if terms.is_fresh(one.at, now)]
        if is_any_of(said.actor.name, [one.person for one in before]):
            raise Problem(
                ProblemType.UNAUTHORIZED,
                f"{said.actor.name} has said so already, another person has to say so too",
            )
        shown = [*said.evidence, *(text for one in before for text in one.evidence)]
        if len(before) + 1 < terms.people:
            noted = replace(record, revision=record.revision + 1)
            change = moved(
                noted, EventKind.APPROVAL_SUPPORTED, at=now, actor=said.actor,
                people=len(before) + 1, of=terms.people, evidence=list(said.evidence),
            )  # fmt: skip
            return change, False
        missing = missing_kinds(terms.evidence, shown)
        is_proofed = not missing and (bool(shown) or not terms.evidence)
        if missing and (said.word is AnswerWord.APPROVE or record.status is ApprovalStatus.DUE):
            raise Problem(
                ProblemType.MALFORMED,
                f"evidence of kind {', '.join(map(repr, missing))} is missing, refer to it with"
                f" --evidence {missing[0]}=REFERENCE",
            )
        opened = _opened(record, terms, now, is_proofed=is_proofed)
        change = changed(
            opened, event, at=now, actor=said.actor,
            people=len(before) + 1, evidence=shown, holds_until=_text(opened.holds_until),
            reproof_at=_text(opened.reproof_at),
        )  # fmt: skip
        return change, True

    def _kept(self, after: ApprovalRecord, before: ApprovalRecord, said: Said) -> ApprovalAnswer:
        return ApprovalAnswer(
            approval_id=after.approval_id,
            revision=after.revision,
            round=before.round,
            person=said.actor.name,
            word=said.word,
            at=self._clock.now(),
            reason=said.actor.reason,
            evidence=said.evidence,
        )

    def _follows(self, before: ApprovalRecord, after: ApprovalRecord) -> tuple[Job, ...]:
        """Return the job that revokes what rested on it, where policy says so."""
        is_withdrawn = after.status is ApprovalStatus.WITHDRAWN
        if not is_withdrawn or before.decided_at is None:
            return ()
        return (Job(kind=JobKind.WITHDRAW, subject=after.approval_id, due_at=self._clock.now()),)


_DONE: Final = {
    AnswerWord.APPROVE: "approved",
    AnswerWord.DENY: "denied",
    AnswerWord.SUSPEND: "suspended",
    AnswerWord.RESUME: "resumed",
    AnswerWord.WITHDRAW: "withdrawn",
    AnswerWord.RENEW: "renewed",
}


def _left_to_others(record: ApprovalRecord, terms: Terms, who: str) -> Problem:
    """Return the refusal of what *who* says where the *terms* name others.

    Those are kept with the record, and may be a former policy's; what to do then is said too, with
    what it does besides.
    """
    is_given = record.decided_at is not None
    when = "it was asked for or fell due" if is_given else "it was asked for"
    then = "withdraw it and have it asked for anew"
    if record.status is ApprovalStatus.DENIED:
        denied_at = record.decided_at or record.asked_at
        then = f"have it asked for anew after {_text(denied_at + terms.answer_within)}"
    elif is_given and terms.revokes:
        then = "withdraw it, which revokes what rests on it, and have it asked for anew"
    return Problem(
        ProblemType.UNAUTHORIZED,
        f"{who} may not decide on this request: policy left that to"
        f" {' and '.join(sorted(terms.by or ()))} when {when}; if that has changed, {then}",
    )


def _opened(
    record: ApprovalRecord, terms: Terms, now: datetime, *, is_proofed: bool
) -> ApprovalRecord:
    """Return *record* as it is once people have said yes, its times counted from now."""
    proofed_at = now if is_proofed else record.proofed_at or now
    return replace(
        record,
        round=record.round + 1,
        decided_at=now,
        proofed_at=proofed_at,
        holds_until=now + terms.holds,
        reproof_at=None if terms.reproof is None else proofed_at + terms.reproof,
        reason=None,
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
