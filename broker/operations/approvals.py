"""The part of the desk about requests that people answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from broker.issuance.approval_ports import (
    AnswerWord,
    ApprovalAnswer,
    ApprovalKind,
    ApprovalRecord,
    ApprovalStatus,
)
from broker.issuance.approval_terms import Terms, missing_kinds
from broker.issuance.events import Actor
from broker.issuance.minting import Minting, end_minted
from broker.issuance.ownership import check_owner
from broker.issuance.registration import RegistrationAuthority
from broker.operations.rooms import Desk
from broker.operations.views import View, time_view
from broker.policy.names import parse_pattern
from broker.policy.units import format_duration, parse_duration
from broker.protocol.encoding import encode_base64url
from broker.web.operator import OperationError

__all__ = ["ApprovalDesk"]

FOR_PEOPLE: Final = (ApprovalStatus.WAITING, ApprovalStatus.DUE)
"""What somebody has to do something about: the list where no state is named."""

UNDECIDED: Final = (*FOR_PEOPLE, ApprovalStatus.DENIED)
"""Where a yes counts that has not been said yet."""

ALL: Final = "all"

MAX_ROWS: Final = 1000
"""Most rows of one list."""

SHOWN_OF_THUMBPRINT: Final = 12
"""Characters of a thumbprint that tell one key from another in a list; they are 72 bits."""

MAX_ORDERS: Final = 20
"""Newest orders of the account that are shown with a request."""


class ApprovalDesk(Desk):
    """Commands about requests and approvals."""

    @property
    def _authority(self) -> RegistrationAuthority:
        if self._rooms.approvals is None:
            raise OperationError("this desk has no approvals")
        return self._rooms.approvals

    async def approval_list(
        self,
        *,
        community: str | None = None,
        status: str | None = None,
        ending_within: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> Any:
        """Return requests and approvals, newest first; by default those that wait for a person.

        With *ending_within* those alone that end, fall due or go unanswered in that time, by
        default of those that are approved.
        """
        if not 0 < limit <= MAX_ROWS:
            raise OperationError(f"limit {limit} is not between 1 and {MAX_ROWS}")
        moves_by = None
        if ending_within is not None:
            status = status or ApprovalStatus.APPROVED
            moves_by = self._rooms.clock.now() + _duration(ending_within)
        found = await self._store.list_approvals(
            statuses=_statuses(status),
            community=community,
            after=after,
            limit=limit,
            moves_by=moves_by,
        )
        return [_row(one) for one in found]

    async def approval_show(self, *, approval: str) -> Any:
        """Return one with all that is known of it."""
        return await self._shown(await self._authority.read(approval))

    async def approval_approve(
        self,
        *,
        actor: Actor,
        approval: str,
        evidence: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
        profiles: Sequence[str] | None = None,
        owner: str = "",
        contact: str = "",
    ) -> Any:
        """Say yes; where it takes two people, the second one's yes opens it.

        Of an account the yes that opens it mints its binding key, limited to *names* and
        *profiles* and answered for by *owner*; the MAC key is in this answer and in no other.
        """
        record = await self._authority.read(approval)
        if record.kind is not ApprovalKind.ACCOUNT:
            if names or profiles or owner or contact:
                raise OperationError(
                    f"approval '{approval}' is for names, which are those that were asked for",
                    "leave --name, --profile, --owner and --contact away",
                )
            return await self._answer(approval, AnswerWord.APPROVE, actor, evidence)
        check_owner(owner, contact)
        patterns, limits = self._limits(record, names or (), profiles or ())
        minting = Minting(
            self._rooms.enrollment, names=patterns, profiles=limits, owner=owner, contact=contact
        )
        made = await self._authority.answer(
            approval, AnswerWord.APPROVE, actor=actor, evidence=evidence or (), also=minting
        )
        key = minting.key
        shown = await self._shown(made)
        if key is None:
            return shown
        return {**shown, "key_id": key.key_id, "mac_key": encode_base64url(key.mac_key)}

    async def approval_deny(
        self, *, actor: Actor, approval: str, evidence: Sequence[str] | None = None
    ) -> Any:
        """Say no; the reason is told to the requester."""
        if not actor.reason:
            raise OperationError("whoever asked is told why not", "give it with --reason")
        return await self._answer(approval, AnswerWord.DENY, actor, evidence)

    async def approval_suspend(self, *, actor: Actor, approval: str) -> Any:
        """Have an approval open nothing until it is resumed."""
        return await self._answer(approval, AnswerWord.SUSPEND, actor, None)

    async def approval_resume(self, *, actor: Actor, approval: str) -> Any:
        """Let a suspended approval open again what it opened."""
        return await self._answer(approval, AnswerWord.RESUME, actor, None)

    async def approval_withdraw(self, *, actor: Actor, approval: str) -> Any:
        """Take it back for good; what rests on it is revoked where policy says so."""
        shown = await self._answer(approval, AnswerWord.WITHDRAW, actor, None)
        await end_minted(self._rooms.enrollment, await self._authority.read(approval))
        return shown

    async def approval_renew(
        self, *, actor: Actor, approval: str, evidence: Sequence[str] | None = None
    ) -> Any:
        """Have it stand for as long again; evidence begins its time for proof anew."""
        return await self._answer(approval, AnswerWord.RENEW, actor, evidence)

    # ----------------------------------------------------------------------------------- within

    def _limits(
        self, record: ApprovalRecord, names: Sequence[str], profiles: Sequence[str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        offered = self._rooms.policies.current(record.community).profiles
        for profile in profiles:
            if profile not in offered:
                raise OperationError(
                    f"community '{record.community}' has no profile '{profile}'",
                    f"it has {', '.join(offered)}",
                )
        try:
            patterns = tuple(str(parse_pattern(name)) for name in names)
        except ValueError as error:
            raise OperationError(str(error)) from error
        return patterns, tuple(profiles)

    async def _answer(
        self, approval: str, word: AnswerWord, actor: Actor, evidence: Sequence[str] | None
    ) -> Any:
        made = await self._authority.answer(approval, word, actor=actor, evidence=evidence or ())
        return await self._shown(made)

    async def _shown(self, record: ApprovalRecord) -> View:
        terms = Terms.read(record.terms)
        answers = await self._store.answers_of(record.approval_id)
        now = self._rooms.clock.now()
        fresh = [
            one for one in answers if terms.is_fresh(one.at, now) and terms.is_open_to(one.person)
        ]
        said_yes, missing = _progress(
            record, terms, fresh if record.status in UNDECIDED else answers
        )
        return {
            **_row(record),
            "said_yes": said_yes,
            "evidence_missing": missing,
            "asked_by": dict(record.asked_by),
            "last_asked": time_view(record.last_asked_at),
            "times_asked": record.times_asked,
            "terms": _terms(terms),
            "decided": time_view(record.decided_at),
            "proofed": time_view(record.proofed_at),
            "reproof": time_view(record.reproof_at),
            "reason": record.reason,
            "eab_key": record.eab_key_id,
            "earlier": record.earlier,
            "orders": await self._orders(record),
            "answers": [_answer(one) for one in answers],
        }

    async def _orders(self, record: ApprovalRecord) -> list[View]:
        """Return what its account has had, which tells who that is more than a thumbprint."""
        if not record.identifiers:
            return []
        found = await self._store.list_orders(
            community=record.community,
            account_id=record.holder,
            status=None,
            after=None,
            limit=MAX_ORDERS,
        )
        return [
            {
                "order": one.order_id,
                "created": time_view(one.created_at),
                "status": str(one.status),
                "names": [str(name.value) for name in one.identifiers],
            }
            for one in found
        ]


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise OperationError(str(error)) from error


def _statuses(status: str | None) -> Sequence[ApprovalStatus]:
    if status is None:
        return FOR_PEOPLE
    if status == ALL:
        return tuple(ApprovalStatus)
    if status not in set(ApprovalStatus):
        raise OperationError(f"'{status}' is no status", f"one of {', '.join(ApprovalStatus)}, all")
    return (ApprovalStatus(status),)


def _row(record: ApprovalRecord) -> View:
    ends = record.answer_by if record.status is ApprovalStatus.WAITING else record.holds_until
    return {
        "approval": record.approval_id,
        "kind": str(record.kind),
        "community": record.community,
        "status": str(record.status),
        "names": [one.value for one in record.identifiers],
        "profile": record.profile or None,
        "account": record.holder if record.identifiers else None,
        "who": _who(record.asked_by),
        "people": Terms.read(record.terms).people,
        "asked": time_view(record.asked_at),
        "ends": time_view(ends),
    }


def _who(asked_by: Mapping[str, object]) -> str | None:
    """Return whom a person would call, or at least which key it is."""
    known = asked_by.get("owner") or asked_by.get("node")
    if known:
        return str(known)
    contacts = asked_by.get("contacts")
    if isinstance(contacts, list) and contacts:
        return ", ".join(str(each).removeprefix("mailto:") for each in contacts)
    thumbprint = asked_by.get("thumbprint")
    return f"key {str(thumbprint)[:SHOWN_OF_THUMBPRINT]}…" if thumbprint else None


def _progress(
    record: ApprovalRecord, terms: Terms, answers: Sequence[ApprovalAnswer]
) -> tuple[int, list[str]]:
    """Return how many have said yes, and the kinds of evidence that the last yes has to bring.

    Where a decision is still to be made the round that is under way counts, else the last one in
    which anybody said yes.
    """
    yes = [one for one in answers if one.word in (AnswerWord.APPROVE, AnswerWord.RENEW)]
    is_open = record.status in UNDECIDED
    counted = record.round if is_open else max((one.round for one in yes), default=record.round)
    now = [one for one in yes if one.round == counted]
    shown = [text for one in now for text in one.evidence]
    return len(now), list(missing_kinds(terms.evidence, shown)) if is_open else []


def _terms(terms: Terms) -> View:
    return {
        "people": terms.people,
        "answer_within": format_duration(terms.answer_within),
        "holds": format_duration(terms.holds),
        "reproof": None if terms.reproof is None else format_duration(terms.reproof),
        "on_withdrawal": "revoke" if terms.revokes else "keep",
        "evidence": list(terms.evidence),
        "by": None if terms.by is None else sorted(terms.by),
        "rules": list(terms.rules),
        "because": list(terms.because),
    }


def _answer(answer: ApprovalAnswer) -> View:
    return {
        "at": time_view(answer.at),
        "person": answer.person,
        "said": str(answer.word),
        "round": answer.round,
        "reason": answer.reason,
        "evidence": list(answer.evidence),
    }
