"""Certificates of clients that renew by themselves: who has not, and should have, is told of.

Each is looked at once after half of its life, to work out when it should be renewed, and again at
that time.  One that has an heir by then, or was revoked, or belongs to a node, is looked at no
more.  What was told of is looked at hourly, so that it is forgotten once it was renewed after all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from broker.issuance.events import Event, EventKind
from broker.issuance.managed_ports import DeliveryRooms, RenewalLook
from broker.issuance.ports import Clock, Policies
from broker.issuance.records import AccountRecord, CertificateRecord
from broker.issuance.renewal_ports import RenewalView
from broker.issuance.renewals import suggested_window
from broker.protocol.renewal import latest_end, own_window
from broker.protocol.resources import AccountStatus

__all__ = ["UnrenewedWatch"]

BATCH: Final = 200
"""Most certificates of one sweep: with a sweep each minute 288,000 a day, of which each that
exists is looked at twice in its life."""

PATIENCE_SHARE: Final = 10
"""Part of the lifetime that clients are given past the window: those that know no windows renew
when a third is left, at a time of the day of their own."""

PATIENCE_LIMIT: Final = timedelta(days=1)
"""Longest patience past a window that the CA named: clients ask for it several times a day."""

AGAIN: Final = timedelta(hours=1)
"""How often it is looked whether one that was told of has been renewed after all."""

MAX_TOLD_NAMES: Final = 100
"""Most names of one certificate that an event tells."""

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _Outcome:
    looks: list[RenewalLook] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)


class UnrenewedWatch:
    """Looks for certificates whose clients have not renewed them."""

    def __init__(self, store: DeliveryRooms, policies: Policies, clock: Clock) -> None:
        self._store = store
        self._policies = policies
        self._clock = clock

    async def run(self) -> int:
        """Look at what is due, up to a batch; returns how many were."""
        due = await self._store.due_looks(self._clock.now(), BATCH)
        if not due:
            return 0
        outcome = _Outcome()
        for look in due:
            await self._look(look, outcome)
        await self._store.keep_looks(outcome.looks, dropped=outcome.dropped, events=outcome.events)
        return len(due)

    async def hurry(self, certificate_id: str) -> None:
        """Work out anew when a certificate should be renewed: its CA wants it earlier."""
        await self._store.hurry_look(certificate_id, self._clock.now())

    async def _look(self, look: RenewalLook, outcome: _Outcome) -> None:
        now = self._clock.now()
        found = await self._store.find_certificate(look.certificate_id)
        if found is None or await self._is_settled(found, now):
            outcome.dropped.append(look.certificate_id)
            return
        if look.told_at is not None:
            outcome.looks.append(replace(look, look_at=min(now + AGAIN, found.not_after)))
            return
        should_by = await self._should_by(found, now)
        if should_by > now:
            outcome.looks.append(replace(look, look_at=should_by, should_by=should_by))
            return
        outcome.looks.append(
            replace(
                look, look_at=min(now + AGAIN, found.not_after), should_by=should_by, told_at=now
            )
        )
        outcome.events.append(self._told(found, should_by, now))

    async def _is_settled(self, found: CertificateRecord, now: datetime) -> bool:
        """Return whether nobody has to renew this certificate any more."""
        if found.not_after <= now or found.revoked_at is not None:
            return True
        if found.revocation_reason is not None or await self._store.has_heir(found):
            return True
        if found.cert_id is not None:
            order_id = await self._store.successor_of(found.account_id, found.cert_id)
            order = None if order_id is None else await self._store.load_order(order_id)
            if order is not None and order.certificate_id is not None:
                return True
        if await self._store.find_node_by_account(found.account_id) is not None:
            return True
        account = await self._store.find_account(found.account_id)
        return not _is_served(account)

    async def _should_by(self, found: CertificateRecord, now: datetime) -> datetime:
        """Return when its client should have renewed it at the latest."""
        lifetime = found.not_after - found.not_before
        patience = lifetime / PATIENCE_SHARE
        view = await self._view(found)
        if view is None:
            window = own_window(found.not_before, found.not_after, seed=found.fingerprint)
        else:
            profile = self._policies.current(found.community).profiles.get(view.profile)
            window = suggested_window(
                view, now, renew_at=None if profile is None else profile.renew_at
            )
            if view.window_end is not None:
                patience = min(patience, PATIENCE_LIMIT)
        return min(window.end + patience, latest_end(found.not_before, found.not_after))

    async def _view(self, found: CertificateRecord) -> RenewalView | None:
        if found.cert_id is None:
            return None
        seen = await self._store.renewal_views(found.community, found.cert_id)
        return next((one for one in seen if one.certificate_id == found.certificate_id), None)

    def _told(self, found: CertificateRecord, should_by: datetime, now: datetime) -> Event:
        names = [str(one) for one in found.identifiers[:MAX_TOLD_NAMES]]
        log.warning(
            "certificate not renewed",
            certificate=found.certificate_id,
            account=found.account_id,
            names=names[:5],
            not_after=found.not_after.isoformat(timespec="seconds"),
        )
        return Event(
            kind=EventKind.CERTIFICATE_NOT_RENEWED,
            at=now,
            community=found.community,
            account_id=found.account_id,
            order_id=found.order_id,
            upstream=found.upstream,
            data={
                "certificate_id": found.certificate_id,
                "fingerprint": found.fingerprint,
                "identifiers": names,
                "should_by": should_by.isoformat(),
                "not_after": found.not_after.isoformat(),
            },
        )


def _is_served(account: AccountRecord | None) -> bool:
    """Return whether its client could renew it; the broker's own certificate has no client."""
    return account is not None and account.status is AccountStatus.VALID
