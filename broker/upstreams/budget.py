"""When a CA may be asked again.

A CA that is overloaded, or that limits us, names a time; until then nothing is sent, whoever
wants to send.  Holds are kept in the store as well, where a restart and other processes find them;
each is read again within a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.errors import Unreachable
from broker.issuance.ports import Clock
from broker.issuance.quota_ports import HoldRecord, HoldStore

__all__ = ["Budget"]

MAX_SHARED_HOLD: Final = timedelta(minutes=10)
"""Longest limit that is taken to be about the whole account.

CAs limit accounts with waits of seconds and single names with waits of hours, and do not say
which it is.  Holding everybody back for hours because one client renews one name too often would
hand that client a switch for all the others.
"""

FIRST_HOLD: Final = timedelta(seconds=5)
"""Hold after a refusal that names no time; doubled for each one that follows in a row."""

MAX_UNNAMED_HOLD: Final = timedelta(minutes=5)
"""Longest hold that we choose ourselves."""

MAX_HOLDS: Final = 10_000
"""Most holds that are remembered; the soonest to end is forgotten first."""

MAX_AGE: Final = timedelta(seconds=1)
"""How long what the store said is believed."""

MAX_REASON_CHARS: Final = 500
"""Longest reason that is kept, in characters: part of it is text that a CA chose."""

EVERYTHING: Final = "everything"
"""What stands in the place of an account where a hold is about all of them."""


@dataclass(frozen=True, slots=True)
class _Hold:
    until: datetime
    reason: str


class Budget:
    """What may be sent to one CA now, for all accounts that we have there."""

    def __init__(self, clock: Clock, *, upstream: str = "", store: HoldStore | None = None) -> None:
        """Without a *store* what one process was told stays with it."""
        self._clock = clock
        self._upstream = upstream
        self._store = store
        self._read_at: datetime | None = None
        self._unshared: list[HoldRecord] = []
        self._holds: dict[tuple[str, str | None], _Hold] = {}
        self._unnamed: dict[str, int] = {}

    async def refresh(self) -> None:
        """Read what others were told, if that was longer ago than `MAX_AGE`."""
        now = self._clock.now()
        if self._store is None:
            return
        if self._read_at is not None and now - self._read_at < MAX_AGE:
            return
        self._read_at = now
        for one in await self._store.holds(self._upstream, now):
            key = (one.account or EVERYTHING, one.subject or None)
            known = self._holds.get(key)
            if known is None or known.until < one.until:
                self._remember(key, _Hold(one.until, one.reason))

    async def share(self) -> None:
        """Keep the holds that were made since the last call, for whoever asks next."""
        made, self._unshared = self._unshared, []
        if self._store is None:
            return
        for one in made:
            await self._store.keep_hold(one)

    def verify_open(self, account: str, subject: str | None) -> None:
        """Return if a request of *account* about *subject* may be sent now.

        Raises:
            Unreachable: It has to wait, until ``retry_at``.
        """
        now = self._clock.now()
        keys = ((EVERYTHING, None), (account, None), (account, subject))
        standing = [hold for key in keys if (hold := self._holds.get(key)) and hold.until > now]
        if standing:
            last = max(standing, key=lambda hold: hold.until)
            raise Unreachable(
                f"held back since {last.reason}", retry_at=last.until, left_nothing=True
            )

    def note_success(self, account: str) -> None:
        """Forget how often in a row *account* was sent away without a time."""
        self._unnamed.pop(account, None)

    def hold(
        self,
        account: str,
        subject: str | None,
        *,
        status: int,
        retry_at: datetime | None,
        reason: str,
    ) -> datetime:
        """Send nothing before *retry_at*, and return when that is.

        429 limits the account, or the subject alone where the wait is longer than any limit of
        an account; any other status is about the CA as a whole.
        """
        if retry_at is None:
            retry_at = self._unnamed_end(account)
        key: tuple[str, str | None] = (EVERYTHING, None)
        if status == 429:
            is_long = retry_at - self._clock.now() > MAX_SHARED_HOLD
            key = (account, subject if is_long else None)
        known = self._holds.get(key)
        if known is None or known.until < retry_at:
            self._remember(key, _Hold(retry_at, reason))
            self._unshared.append(self._record(key, retry_at, reason))
        return retry_at

    def _record(self, key: tuple[str, str | None], until: datetime, reason: str) -> HoldRecord:
        account, subject = key
        return HoldRecord(
            upstream=self._upstream,
            account="" if account == EVERYTHING else account,
            subject=subject or "",
            until=until,
            since=self._clock.now(),
            reason=reason[:MAX_REASON_CHARS],
        )

    def _unnamed_end(self, account: str) -> datetime:
        times = self._unnamed.get(account, 0)
        self._unnamed[account] = times + 1
        # The shift is bounded: the number must stay one that a timedelta can hold.
        return self._clock.now() + min(FIRST_HOLD * (1 << min(times, 16)), MAX_UNNAMED_HOLD)

    def _remember(self, key: tuple[str, str | None], hold: _Hold) -> None:
        if len(self._holds) >= MAX_HOLDS:
            now = self._clock.now()
            self._holds = {k: h for k, h in self._holds.items() if h.until > now}
        if len(self._holds) >= MAX_HOLDS:
            del self._holds[min(self._holds, key=lambda k: self._holds[k].until)]
        self._holds[key] = hold
