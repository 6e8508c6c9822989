"""Renewal information both ways (RFC 9773): asked of the CAs ahead, answered to clients from what
is kept.

A client is never told to renew later than the CA says.  It is told earlier where policy names a
share of the lifetime, where a retirement date comes first, and at once for what is revoked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.ports import Clock, Policies, Upstreams
from broker.issuance.renewal_ports import RenewalAnswer, RenewalRecord, RenewalStore, RenewalView
from broker.protocol.problems import Problem, ProblemType, printable
from broker.protocol.renewal import (
    DEFAULT_RENEW_AT,
    SHORTEST_POLL,
    RenewalInfo,
    RenewalWindow,
    latest_end,
    own_window,
    parse_cert_id,
    poll_at,
    pulled_before,
    window_past,
)

__all__ = ["RenewalWatch", "Renewals", "Suggestion", "suggested_window"]

ANSWER_AGE: Final = timedelta(hours=6)
"""How long clients are told to keep an answer: what has to be renewed within a day is known to
all of them within a quarter of it."""

LONG_TERM_PAUSE: Final = timedelta(hours=6)
"""Pause after an answer that no repeating will mend (RFC 9773 §4.3.3)."""

FIRST_PAUSE: Final = timedelta(minutes=1)
"""Pause after the first failure that may pass; doubled for each that follows."""

MAX_TRIES: Final = 5
"""Failures in a row that may pass, after which one counts as lasting (RFC 9773 §4.3.3)."""

NOT_OFFERED_PAUSE: Final = timedelta(days=1)
"""Pause while a CA offers no renewal information at all; it may begin to."""

BATCH: Final = 500
"""Most certificates that one sweep asks about: with a sweep each half minute more than a million
a day, five times what a hundred thousand need that are asked about every six hours."""

AT_ONCE: Final = 8
"""Requests of one sweep that are under way at a time, to all CAs together."""

MOVED: Final = timedelta(minutes=1)
"""Least move of a window that is told: CAs work theirs out anew, and seconds mean nothing."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What a client is answered."""

    info: RenewalInfo
    retry_after: timedelta


class Renewals:
    """Answers clients, from what is kept alone."""

    def __init__(self, store: RenewalStore, policies: Policies, clock: Clock) -> None:
        self._store = store
        self._policies = policies
        self._clock = clock

    async def suggestion(self, community: str, cert_id: str) -> Suggestion:
        """Return when to renew the certificate with this CertID.

        Raises:
            Problem: malformed; with status 404 for a certificate that did not come through this
                community.
        """
        found = await self._store.renewal_views(community, parse_cert_id(cert_id))
        if not found:
            raise Problem(ProblemType.MALFORMED, "no such certificate here", status=404)
        now = self._clock.now()
        windows = [self.window(view, now) for view in found]
        pages = [view.pulled_url for view in found if view.pulled_at is not None]
        return Suggestion(
            info=RenewalInfo(
                window=min(windows, key=lambda window: window.start),
                explanation_url=pages[0] if pages else None,
            ),
            retry_after=min(_answer_age(view, now) for view in found),
        )

    def window(self, view: RenewalView, now: datetime) -> RenewalWindow:
        """Return when the certificate should be renewed."""
        profile = self._policies.current(view.community).profiles.get(view.profile)
        return suggested_window(view, now, renew_at=None if profile is None else profile.renew_at)


def suggested_window(view: RenewalView, now: datetime, *, renew_at: float | None) -> RenewalWindow:
    """Return when a certificate should be renewed; *renew_at* is policy's share, if it has one.

    Where a rule had an earlier one when it was ordered, that holds.
    """
    if view.renew_at is not None:
        renew_at = min(view.renew_at, renew_at or view.renew_at)
    if view.revoked_at is not None or view.revocation_reason is not None:
        return window_past(view.revoked_at or now)
    if view.pulled_at is not None:
        return window_past(view.pulled_at)
    end = min(view.not_after, view.retire_at or view.not_after)
    ours = own_window(
        view.not_before, end, seed=view.fingerprint, renew_at=renew_at or DEFAULT_RENEW_AT
    )
    if view.window_start is None or view.window_end is None:
        return ours
    theirs = pulled_before(
        RenewalWindow(view.window_start, view.window_end), latest_end(view.not_before, end)
    )
    is_ours_binding = renew_at is not None or view.retire_at is not None
    if not is_ours_binding:
        return theirs
    if ours.start < theirs.start:
        return ours
    # One that begins earlier and ends later than ours is cut: nobody is told a later moment.
    return RenewalWindow(theirs.start, min(theirs.end, ours.end))


class RenewalWatch:
    """Asks the CAs, no sooner and no later than they want it."""

    def __init__(self, store: RenewalStore, upstreams: Upstreams, clock: Clock) -> None:
        self._store = store
        self._upstreams = upstreams
        self._clock = clock
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def refresh_due(self) -> int:
        """Ask about every certificate that is due, up to a batch; returns how many were."""
        due = await self._store.due_renewals(self._clock.now(), BATCH)
        if not due:
            return 0
        silent: dict[tuple[str, str], datetime] = {}
        asked = await asyncio.gather(*(self._ask(record, silent) for record in due))
        await self._store.keep_renewals(
            [record for record, _ in asked],
            [event for _, event in asked if event is not None],
        )
        return len(due)

    async def refresh(self, certificate_id: str, actor: Actor = SYSTEM) -> RenewalRecord | None:
        """Ask about one certificate now, whenever it would be due; None if its CA is not asked.

        *actor* stands in the event, should its window have moved.
        """
        record = await self._store.find_renewal(certificate_id)
        if record is None or record.due_at is None:
            return record
        asked, event = await self._ask(record, {})
        told = [] if event is None else [replace(event, actor=actor)]
        await self._store.keep_renewals([asked], told)
        return asked

    async def _ask(
        self, record: RenewalRecord, silent: dict[tuple[str, str], datetime]
    ) -> tuple[RenewalRecord, Event | None]:
        """Return the record as it is to be kept; *silent* are the accounts whose CA did not
        answer in this sweep, and until when: nobody else waits for the same silence."""
        now = self._clock.now()
        if record.not_after <= now:
            return replace(record, due_at=None), None
        where = record.upstream, record.community
        async with self._slots:
            if where in silent:
                return replace(record, due_at=silent[where]), None
            try:
                answer = await self._upstreams.get(*where).renewal_info(record.cert_id)
            except Unreachable as error:
                paused = self._failed(record, now, error.retry_at)
                silent[where] = paused.due_at or now + FIRST_PAUSE
                return paused, None
            except (Refused, Broken) as error:
                _tell(record, error)
                return replace(record, due_at=now + LONG_TERM_PAUSE, failures=0), None
        if answer is None:
            return replace(record, due_at=now + NOT_OFFERED_PAUSE, failures=0), None
        return self._answered(record, answer, now)

    def _failed(
        self, record: RenewalRecord, now: datetime, retry_at: datetime | None
    ) -> RenewalRecord:
        failures = record.failures + 1
        if failures >= MAX_TRIES:
            return replace(record, due_at=now + LONG_TERM_PAUSE, failures=0)
        due_at = now + FIRST_PAUSE * (1 << (failures - 1))
        named = poll_at(now, retry_at)
        return replace(record, due_at=max(due_at, named or due_at), failures=failures)

    def _answered(
        self, record: RenewalRecord, answer: RenewalAnswer, now: datetime
    ) -> tuple[RenewalRecord, Event | None]:
        window, before = answer.info.window, record.window_start
        kept = replace(
            record,
            due_at=poll_at(now, answer.retry_at) or now + LONG_TERM_PAUSE,
            failures=0,
            window_start=window.start,
            window_end=window.end,
            explanation_url=answer.info.explanation_url,
            asked_at=now,
        )
        if before is None or window.start > before - MOVED:
            return kept, None
        event = Event(
            kind=EventKind.RENEWAL_MOVED_EARLIER,
            at=now,
            community=record.community,
            upstream=record.upstream,
            data={
                "certificate_id": record.certificate_id,
                "cert_id": record.cert_id,
                "start": window.start.isoformat(),
                "end": window.end.isoformat(),
                "start_before": before.isoformat(),
                "explanation_url": answer.info.explanation_url,
            },
        )
        return kept, event


def _answer_age(view: RenewalView, now: datetime) -> timedelta:
    """Return how long a client keeps the answer: until the CA has been asked anew, if sooner."""
    if view.due_at is None:
        return ANSWER_AGE
    return min(max(view.due_at - now + SHORTEST_POLL, SHORTEST_POLL), ANSWER_AGE)


def _tell(record: RenewalRecord, error: Refused | Broken) -> None:
    reason = error.problem.detail if isinstance(error, Refused) else error.reason
    log.warning(
        "renewal information not had",
        upstream=record.upstream,
        cert_id=record.cert_id,
        reason=printable(reason, 300),
    )
