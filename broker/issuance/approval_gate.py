"""The gate before an order that needs a person: it passes, or is refused at once and filed.

Clients give up in minutes and people take hours, so nobody is kept waiting.  The refusal says
where the request stands; an identical retry joins it; after the approval the client's next
ordinary run passes.  The request stays although its client may never come back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.accounts import new_id
from broker.issuance.approval_changes import by_time, moved, past_its_policy
from broker.issuance.approval_people import People
from broker.issuance.approval_ports import (
    MINTED_PREFIX,
    ApprovalKind,
    ApprovalRecord,
    ApprovalStatus,
    ApprovalStore,
    QueueFull,
    QueueLimits,
)
from broker.issuance.approval_resting import Resting, approvals_of_order
from broker.issuance.approval_terms import Terms
from broker.issuance.errors import Conflict
from broker.issuance.events import Actor, EventKind
from broker.issuance.ports import Clock
from broker.issuance.records import AccountRecord, OrderRecord
from broker.policy.decisions import NewOrderDecision, Requester
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = ["LIMITS", "ApprovalGate", "ApprovalUrl", "is_recent", "subject_of"]

LIMITS: Final = QueueLimits(of_asker=20, in_all=2000)
"""How many requests may wait: one account asks for a handful of hosts at a time, and a list of
two thousand is a week of reading for ten people."""

RETRY_WHEN_FULL: Final = timedelta(hours=1)
"""When a requester may ask again whose queue is full: people answer in hours."""

JOIN_NOTED: Final = timedelta(minutes=1)
"""How often a retry that joined is written down: a client in a loop must not fill the disk."""

SHOWN_NAMES: Final = 3
"""Names that a refusal tells; the page tells all."""

_SHOWN: Final = (
    "node", "cluster", "namespace", "service_account", "attestation", "address", "owner",
)  # fmt: skip
"""What is shown of a requester as it stands there."""

ApprovalUrl = Callable[[str, str], str]
"""From community and approval id to the URL that a person may visit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    account: AccountRecord
    profile: str
    names: frozenset[Identifier]
    """Those that nothing opens yet."""
    terms: Terms
    requester: Requester
    policy: str


class ApprovalGate:
    """Lets orders pass that need nobody, or that somebody approved."""

    def __init__(
        self,
        store: ApprovalStore,
        people: People,
        clock: Clock,
        url: ApprovalUrl,
        *,
        limits: QueueLimits = LIMITS,
    ) -> None:
        self._store = store
        self._people = people
        self._clock = clock
        self._url = url
        self._limits = limits

    async def require(
        self,
        account: AccountRecord,
        decision: NewOrderDecision,
        requester: Requester,
        *,
        unexempted: NewOrderDecision | None = None,
        line: Sequence[str] = (),
    ) -> Resting:
        """Return the approvals that an order rests on: none where policy asks for none.

        *unexempted* is what policy would say of a renewal if it were none, and *line* are the
        approvals that what it renews goes back to.  A rule may exempt renewals; what people took
        back is not renewed all the same, and what they take back later is found by its line.

        Raises:
            Problem: userActionRequired with the URL of the request; unauthorized where a person
                said no; rateLimited where too many requests wait.
        """
        found = await self._of_key(account)
        behind = await self._about(line, decision)
        if unexempted is not None and await self._is_taken_back(account, unexempted, behind):
            decision = unexempted
        back = tuple(one.approval_id for one in behind if one.status not in _TAKEN_BACK)
        demand = decision.approval
        if demand is None:
            return Resting(on=tuple(one.approval_id for one in found), goes_back_to=back)
        terms = Terms.of(demand)
        records = await self._known(account, decision.profile or "")
        # A demand that names nothing is about the whole order.
        wanted = frozenset(demand.identifiers or decision.requirements)
        resting, names = [one.approval_id for one in found], set(wanted)
        overlapping = [one for one in records if wanted & frozenset(one.identifiers)]
        for record in await self.standing(overlapping, terms):
            if names & set(record.identifiers):
                names -= set(record.identifiers)
                resting.append(record.approval_id)
        if names or not wanted:
            ask = _Ask(
                account=account,
                profile=decision.profile or "",
                names=frozenset(names),
                terms=terms,
                requester=requester,
                policy=decision.policy_sha256,
            )
            raise await self._refusal(ask, records)
        back = tuple(one for one in back if one not in resting)
        return Resting(on=tuple(resting), goes_back_to=back)

    async def _about(
        self, approval_ids: Sequence[str], decision: NewOrderDecision
    ) -> list[ApprovalRecord]:
        """Return those approvals that are about names for which *decision* wants nobody."""
        demanded = () if decision.approval is None else decision.approval.identifiers
        spared = frozenset(decision.requirements) - frozenset(demanded)
        found = [await self._store.find_approval(one) for one in approval_ids]
        records = [one for one in found if one is not None and spared & set(one.identifiers)]
        return [await self.current(one) for one in records]

    async def _is_taken_back(
        self,
        account: AccountRecord,
        decision: NewOrderDecision,
        behind: Sequence[ApprovalRecord],
    ) -> bool:
        """Return whether the last word on one of the names was to take its approval back, or no
        to whoever asked for it anew."""
        if decision.approval is None:
            return False
        if any(one.status in _TAKEN_BACK for one in behind):
            return True
        last: dict[Identifier, ApprovalRecord] = {}
        records = await self._known(account, decision.profile or "")
        for record in sorted(records, key=lambda one: one.decided_at or one.asked_at):
            if record.decided_at is not None:
                last.update(dict.fromkeys(record.identifiers, record))
        found = [last[name] for name in decision.approval.identifiers if name in last]
        return any(one.status in _TAKEN_BACK for one in found)

    async def stand(self, order: OrderRecord) -> None:
        """See that what an order was made under still stands; raises Problem where it does not."""
        for approval_id in approvals_of_order(order).on:
            record = await self._store.find_approval(approval_id)
            if record is None:
                raise Problem(ProblemType.UNAUTHORIZED, "its approval is not known any more")
            record = await self.current(record)
            if record.status is not ApprovalStatus.APPROVED:
                raise self.told(record)

    # ---------------------------------------------------------------------------------- looking

    async def _of_key(self, account: AccountRecord) -> Sequence[ApprovalRecord]:
        """Return the approval that the account's binding key came of, if it came of one.

        Raises:
            Problem: It does not stand.
        """
        key_id = account.eab_key_id
        if key_id is None or not key_id.startswith(MINTED_PREFIX):
            return ()
        found = await self._store.approval_of_key(account.community, key_id)
        if found is None:
            return ()
        found = await self.current(found)
        if found.status is not ApprovalStatus.APPROVED:
            raise self.told(found)
        return (found,)

    async def _known(self, account: AccountRecord, profile: str) -> Sequence[ApprovalRecord]:
        kept = await self._store.approvals_of(account.community, account.account_id, profile)
        return [await self.current(one) for one in kept]

    async def current(self, record: ApprovalRecord) -> ApprovalRecord:
        """Return the record as it stands now, whether or not the sweep came by."""
        change = by_time(record, self._clock.now())
        if change is None:
            return record
        try:
            await self._store.change_approval(
                change.record, expected=record.revision, events=change.events
            )
        except Conflict:
            found = await self._store.find_approval(record.approval_id)
            return record if found is None else await self.current(found)
        return change.record

    async def standing(
        self, records: Iterable[ApprovalRecord], terms: Terms
    ) -> list[ApprovalRecord]:
        """Return those that are enough; what policy asks more for now becomes due."""
        enough = []
        for record in records:
            if record.status is not ApprovalStatus.APPROVED:
                continue
            change = past_its_policy(record, terms, self._clock.now())
            if change is None:
                enough.append(record)
                continue
            try:
                await self._store.change_approval(
                    change.record, expected=record.revision, events=change.events
                )
            except Conflict:
                continue
            raise self.told(change.record)
        return enough

    # --------------------------------------------------------------------------------- refusing

    async def _refusal(self, ask: _Ask, records: Sequence[ApprovalRecord]) -> Problem:
        subject = subject_of(ask.account.account_id, ask.names, ask.profile)
        for record in records:
            if _speaks(record, ask.names, subject, self._clock.now()):
                return self.told(record)
        waiting = await self._file(ask, subject, records)
        return self.told(waiting)

    async def _file(
        self, ask: _Ask, subject: str, records: Sequence[ApprovalRecord]
    ) -> ApprovalRecord:
        now = self._clock.now()
        joined = await self.join(subject, records)
        if joined is not None:
            return joined
        earlier = next((one for one in records if one.subject_sha256 == subject), None)
        people = await self._people.of_account(ask.account)
        if ask.requester.owner:
            people = (*people, ask.requester.owner)
        record = _request(ask, subject, people, now)
        if earlier is not None:
            record = replace(record, earlier=earlier.approval_id)
        return await self.file(record, Actor(f"account:{ask.account.account_id}"), ask.policy)

    async def join(self, subject: str, records: Sequence[ApprovalRecord]) -> ApprovalRecord | None:
        """Return the request among *records* that waits for *subject*, and count the ask."""
        now = self._clock.now()
        for record in records:
            if record.subject_sha256 == subject and record.status is ApprovalStatus.WAITING:
                if now - record.last_asked_at >= JOIN_NOTED:
                    await self._store.note_asked(record.approval_id, now)
                return record
        return None

    async def file(self, record: ApprovalRecord, actor: Actor, policy: str) -> ApprovalRecord:
        """Keep a request that waits; raises Problem rateLimited where too many do."""
        kind, at = EventKind.APPROVAL_REQUESTED, record.asked_at
        change = moved(record, kind, at=at, actor=actor, policy_sha256=policy)
        try:
            return await self._store.file_approval(record, change.events[0], self._limits)
        except QueueFull as full:
            raise Problem(
                ProblemType.RATE_LIMITED, full.reason, retry_after=RETRY_WHEN_FULL
            ) from full

    def told(self, record: ApprovalRecord) -> Problem:
        """Return what a client is told of a request that does not open anything now.

        The sentence is the same at every retry, and has the URL in it: most clients show nothing
        else.
        """
        url = self._url(record.community, record.approval_id)
        kind = ProblemType.USER_ACTION_REQUIRED
        if record.status in (ApprovalStatus.DENIED, ApprovalStatus.WITHDRAWN):
            kind = ProblemType.UNAUTHORIZED
        sentence = f"{_what(record)} {_SAID[record.status]} {url}{_why(record)}"
        return Problem(kind, sentence, instance=url)


_TAKEN_BACK: Final = (
    ApprovalStatus.SUSPENDED,
    ApprovalStatus.WITHDRAWN,
    ApprovalStatus.DENIED,
)

_SAID: Final = {
    ApprovalStatus.WAITING: "has to be approved by a person, and the request waits for that; "
    "run your client again once it says so at",
    ApprovalStatus.APPROVED: "was approved just now; run your client again, see",
    ApprovalStatus.DUE: "was approved, and its evidence has to be shown anew, see",
    ApprovalStatus.SUSPENDED: "was approved, and the approval is suspended, see",
    ApprovalStatus.DENIED: "was not approved, see",
    ApprovalStatus.EXPIRED: "was approved, and the time for that is over; run your client again "
    "to ask anew, see",
    ApprovalStatus.WITHDRAWN: "was approved, and the approval was withdrawn, see",
}
"""What is said of an approval that opens nothing; the URL follows."""


def _why(record: ApprovalRecord) -> str:
    told = (ApprovalStatus.DENIED, ApprovalStatus.WITHDRAWN, ApprovalStatus.SUSPENDED)
    if record.reason is None or record.status not in told:
        return ""
    return f" ({printable(record.reason, 200)})"


def _what(record: ApprovalRecord) -> str:
    if record.kind is ApprovalKind.ACCOUNT:
        return "the account"
    shown = ", ".join(repr(one.value) for one in record.identifiers[:SHOWN_NAMES])
    more = len(record.identifiers) - SHOWN_NAMES
    rest = f" and {more} more" if more > 0 else ""
    return f"profile '{record.profile}' for {shown}{rest}"


def _speaks(
    record: ApprovalRecord, names: frozenset[Identifier], subject: str, now: datetime
) -> bool:
    """Return whether what became of *record* is the answer to an ask for *names*."""
    match record.status:
        case ApprovalStatus.DUE | ApprovalStatus.SUSPENDED:
            return bool(names & frozenset(record.identifiers))
        case ApprovalStatus.DENIED:
            return record.subject_sha256 == subject and is_recent(record, now)
        case _:
            return False


def is_recent(record: ApprovalRecord, now: datetime) -> bool:
    """Return whether a no still holds: for as long as an answer is waited for.

    After that the same ask is filed anew.  What was withdrawn may be asked for again at once: a
    person decides with that before their eyes.
    """
    since = record.decided_at or record.asked_at
    return since + Terms.read(record.terms).answer_within > now


def _request(ask: _Ask, subject: str, people: Sequence[str], now: datetime) -> ApprovalRecord:
    answer_by = now + ask.terms.answer_within
    return ApprovalRecord(
        approval_id=new_id(),
        kind=ApprovalKind.NAMES,
        community=ask.account.community,
        status=ApprovalStatus.WAITING,
        holder=ask.account.account_id,
        asker=f"account:{ask.account.account_id}",
        identifiers=tuple(sorted(ask.names)),
        profile=ask.profile,
        subject_sha256=subject,
        terms=ask.terms.facts(),
        asked_by=_asked_by(ask, people),
        asked_at=now,
        last_asked_at=now,
        times_asked=1,
        answer_by=answer_by,
        look_at=answer_by,
    )


def _asked_by(ask: _Ask, people: Sequence[str]) -> dict[str, object]:
    """Return what is known of who asks, as people are shown it."""
    requester = ask.requester
    certificate = requester.client_certificate
    known: dict[str, object] = {
        "account": ask.account.account_id,
        "contacts": list(ask.account.contacts),
        "thumbprint": ask.account.thumbprint,
        "eab_key": ask.account.eab_key_id,
        "client_certificate": None if certificate is None else certificate.fingerprint,
        **{name: getattr(requester, name) for name in _SHOWN},
    }
    return {**{name: value for name, value in known.items() if value}, "people": list(people)}


def subject_of(holder: str, names: Iterable[Identifier], profile: str) -> str:
    """Return what identical asks have in common; the CSR is no part of it."""
    parts = [holder, profile, *sorted(f"{one.type}:{one.value}" for one in names)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
