"""Whether our accounts at CAs can be used at all, and what is the matter where they cannot.

A CA or a Vault that is away, sealed or refuses us for now is none of this module's business:
waiting mends it.  An account is *lost* where waiting mends nothing: its key is gone or older than
the account knows, our store is, the account is closed or forgotten, or the CA is another one.
Which of these it is, is found by asking the keeper of the key and the CA, and is told by name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import structlog

from broker.issuance.account_ports import AccountsAsked, LossCause, Standing, Successors
from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Broken, KeyArchived, Refused, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.ports import Clock, EventLog, UpstreamStore
from broker.issuance.records import JobKind, UpstreamAccountRecord

__all__ = ["ASKING_CAS", "AccountHealth", "Loss"]

log = structlog.get_logger("penstock")

LOOK_AGAIN: Final = timedelta(seconds=60)
"""How often an account that is lost is looked at again, to see whether it has come back: Vault may
have been restored properly, or the account reopened.  The same where a look failed: a CA that
refuses each nonce would be asked five times by every look."""

LOOK_ALL: Final = timedelta(hours=6)
"""How often an account that nobody doubts is looked at: three requests to a CA, so that one which
was closed is known before somebody needs it."""

MAX_AHEAD: Final = 64
"""Most later versions of a key that are looked for; a key that is rotated weekly needs a year for
that many."""

MAX_TRIED: Final = 24
"""Most keys that a CA is asked about for one account."""

ASKING_CAS: Final = (JobKind.PREPARE, JobKind.FULFIL, JobKind.REVOKE)
"""Jobs that wait while an account is lost."""

_KEY_SENTENCES: Final[Mapping[LossCause, str]] = {
    LossCause.KEY_GONE: (
        "key {key} is not there: its Vault or mount is new or was emptied, or the file was removed"
    ),
    LossCause.KEY_ARCHIVED: (
        "key {key} is archived in Vault, where its minimum versions were raised past it: lower "
        "them, and nothing is lost"
    ),
    LossCause.KEY_OLDER: (
        "key {key} is not there, an earlier version of it is: Vault was restored to a time before "
        "the last rotation"
    ),
    LossCause.KEY_OTHER: (
        "key {key} is another one than the account's: Vault was emptied or restored since, and the "
        "name was used again"
    ),
}

_SENTENCES: Final[Mapping[LossCause, str]] = {
    **_KEY_SENTENCES,
    LossCause.STORE_OLDER: (
        "the CA knows account {url} by key {pin}, our records name {key}: the store was restored "
        "to a time before the last rotation"
    ),
    LossCause.KEY_UNKNOWN: (
        "the CA has account {url} with another key than {key}, and none that is here is it"
    ),
    LossCause.ACCOUNT_CLOSED: "account {url} was deactivated, or revoked by the CA",
    LossCause.ACCOUNT_UNKNOWN: ("the CA knows no account {url}: it was emptied or set up anew"),
    LossCause.CA_OTHER: ("account {url} was registered at {there}, the configuration names {here}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is the matter with one account."""

    upstream: str
    community: str
    cause: LossCause
    sentence: str
    account_url: str
    since: datetime
    """When it was first seen."""
    pin: str | None = None
    """The key that the CA knows the account by, where that is all that is wrong."""

    def reason(self) -> str:
        """Return the sentence with what to do."""
        return (
            f"our account at upstream '{self.upstream}' for community '{self.community}' is lost: "
            f"{self.sentence}; see penstock upstream recover {self.upstream} --dry-run"
        )


class AccountHealth:
    """Looks at our accounts, remembers which are lost, and tells when that changes."""

    def __init__(
        self,
        *,
        asked: AccountsAsked,
        records: UpstreamStore,
        successors: Successors,
        log_: EventLog,
        clock: Clock,
    ) -> None:
        self._asked = asked
        self._records = records
        self._successors = successors
        self._events = log_
        self._clock = clock
        self._losses: dict[tuple[str, str], Loss] = {}
        self._looked: dict[tuple[str, str], datetime] = {}
        self._failed: dict[tuple[str, str], str] = {}
        self._looking = asyncio.Lock()
        self.dispatcher: Dispatcher | None = None
        """Who is told to go on when an account is found again; None: all in their own time."""

    # ------------------------------------------------------------------------------ what is known

    def loss(self, upstream: str, community: str) -> Loss | None:
        """Return what is the matter with the account, as far as is known."""
        return self._losses.get((upstream, community))

    def losses(self) -> Sequence[Loss]:
        """Return what is the matter with any account, longest first."""
        return sorted(self._losses.values(), key=lambda one: one.since)

    def warning(self) -> str | None:
        """Return a line for a probe, None where no account is lost."""
        found = [
            f"{one.upstream}@{one.community} {one.cause} since {one.since:%Y-%m-%dT%H:%M:%SZ}"
            for one in self.losses()
        ]
        return "; ".join(found) or None

    # ------------------------------------------------------------------------------- looking

    async def look_at_all(self) -> None:
        """Look at every account: at the start, before anybody has met it."""
        for record in await self._records.list_upstream_accounts():
            await self._look_tolerantly(record.upstream, record.community)

    async def look_at_doubted(self) -> None:
        """Look at what somebody has reason to doubt, at what is lost, and at what nobody has
        looked at for long; called by the schedule."""
        now = self._clock.now()
        doubted = set(self._asked.doubted())
        for record in await self._records.list_upstream_accounts():
            pair = (record.upstream, record.community)
            if pair in self._losses or pair in self._failed:
                is_due = now - self._looked[pair] >= LOOK_AGAIN
            else:
                # One that was registered since the start was met by whoever registered it.
                age = now - self._looked.setdefault(pair, now)
                is_due = pair in doubted or age >= LOOK_ALL
            if is_due:
                await self._look_tolerantly(*pair)

    async def look(self, upstream: str, community: str, *, is_held: bool = False) -> Loss | None:
        """Look at one account now, keep what is seen and return it; None: nothing is wrong.

        With *is_held* the caller has the account alone; otherwise it is used beside others, so
        that no change of its key comes in between.

        Raises:
            Refused, Unreachable, Broken: It cannot be told; what was known before still holds.
        """
        use = nullcontext(enter_result=True) if is_held else self._asked.using(upstream, community)
        async with use as is_certain, self._looking:
            record = await self._records.find_upstream_account(upstream, community)
            if record is not None:
                loss = await self._diagnose(record)
                # A key that a change in doubt has led to is pinned by whoever settles that.
                if is_certain or loss is None or loss.pin is None:
                    await self._keep(record, loss)
            return self.loss(upstream, community)

    async def found(self, record: UpstreamAccountRecord) -> None:
        """Note that the account is as it should be: it was recovered or registered just now."""
        async with self._looking:
            await self._keep(record, None)

    async def _look_tolerantly(self, upstream: str, community: str) -> None:
        pair = (upstream, community)
        if self._asked.directory_url(upstream) is None:
            return  # the configuration knows it no more, so nobody will use it
        try:
            await self.look(upstream, community)
        except (Refused, Unreachable, Broken) as error:
            # Not lost, as far as anybody can tell.  Told once, since it is asked again and again.
            self._looked[pair] = self._clock.now()
            if self._failed.get(pair) != str(error):
                self._failed[pair] = str(error)
                log.warning(
                    "account could not be looked at",
                    upstream=upstream,
                    community=community,
                    reason=str(error),
                )

    async def _keep(self, record: UpstreamAccountRecord, loss: Loss | None) -> None:
        pair = (record.upstream, record.community)
        before = self._losses.get(pair)
        self._looked[pair] = self._clock.now()
        self._failed.pop(pair, None)
        if loss is None:
            self._losses.pop(pair, None)
        else:
            is_same = before is not None and before.cause is loss.cause
            self._losses[pair] = replace(loss, since=before.since) if before and is_same else loss
        now = self._losses.get(pair)
        self._asked.set_lost(*pair, None if now is None else now.reason())
        if (before and before.cause) is (now and now.cause):
            return
        await self._tell(record, before, now)

    async def _tell(
        self, record: UpstreamAccountRecord, before: Loss | None, now: Loss | None
    ) -> None:
        """Tell of a change, once."""
        where = {"upstream": record.upstream, "community": record.community}
        shown = now or before
        data = {"account_url": record.account_url, "cause": str(shown.cause) if shown else ""}
        if now is not None:
            log.error("account is lost", **where, cause=str(now.cause), reason=now.sentence)
            kind = EventKind.UPSTREAM_ACCOUNT_LOST
            data["sentence"] = now.sentence
        else:
            log.info("account is found again", **where)
            kind = EventKind.UPSTREAM_ACCOUNT_FOUND
        event = Event(
            kind=kind,
            at=self._clock.now(),
            community=record.community,
            upstream=record.upstream,
            data=data,
        )
        await self._events.append(event, durable=False)
        if now is None and self.dispatcher is not None:
            self.dispatcher.hurry_all(ASKING_CAS)

    # ------------------------------------------------------------------------------- diagnosis

    async def _diagnose(self, record: UpstreamAccountRecord) -> Loss | None:
        here = self._asked.directory_url(record.upstream)
        if here != record.directory_url:
            return self._loss(record, LossCause.CA_OTHER, here=here)
        cause = await self._key_cause(record)
        if cause is None:
            standing = await self._asked.standing(record, record.key_id)
            if standing is Standing.VALID:
                return None
            if standing is Standing.CLOSED:
                return self._loss(record, LossCause.ACCOUNT_CLOSED)
            cause = LossCause.KEY_UNKNOWN
            if standing is Standing.ACCOUNT_UNKNOWN:
                cause = LossCause.ACCOUNT_UNKNOWN
        # Whatever is wrong: where another key of ours speaks for the account, nothing is lost.
        pin = await self._find_pin(record)
        if pin is not None:
            return self._loss(record, LossCause.STORE_OLDER, pin=pin)
        return self._loss(record, cause)

    async def _key_cause(self, record: UpstreamAccountRecord) -> LossCause | None:
        """Return what is the matter with the pinned key itself."""
        try:
            thumbprint = await self._asked.thumbprint_now(record.key_id)
        except KeyArchived:
            return LossCause.KEY_ARCHIVED
        if thumbprint == record.thumbprint:
            return None
        if thumbprint is not None:
            return LossCause.KEY_OTHER
        for earlier in _versions_before(record.key_id):
            if await self._asked.has_key(earlier):
                return LossCause.KEY_OLDER
        return LossCause.KEY_GONE

    async def _find_pin(self, record: UpstreamAccountRecord) -> str | None:
        """Return the key of ours by which the CA knows the account, newest first."""
        tried = 0
        for key_id in await self._candidates(record):
            if tried >= MAX_TRIED:
                break
            tried += 1
            try:
                standing = await self._asked.standing(record, key_id)
            except Broken:
                continue  # it cannot sign, so it speaks for nobody
            if standing is Standing.VALID:
                return key_id
        return None

    async def _candidates(self, record: UpstreamAccountRecord) -> Sequence[str]:
        """Return the keys that may be the account's: later versions, what records name, earlier
        versions."""
        later = []
        for key_id in _versions_after(record.key_id):
            if not await self._asked.has_key(key_id):
                break
            later.append(key_id)
        named = await self._successors.key_ids_of_account(record.upstream, record.community)
        known = [one for one in named if await self._asked.has_key(one)]
        earlier = [one for one in _versions_before(record.key_id) if await self._asked.has_key(one)]
        every = dict.fromkeys([*reversed(later), *known, *earlier])
        every.pop(record.key_id, None)
        return [one for one in every if await self._is_usable(one)]

    async def _is_usable(self, key_id: str) -> bool:
        try:
            return await self._asked.thumbprint_now(key_id) is not None
        except KeyArchived:
            return False

    def _loss(
        self,
        record: UpstreamAccountRecord,
        cause: LossCause,
        *,
        pin: str | None = None,
        here: str | None = None,
    ) -> Loss:
        sentence = _SENTENCES[cause].format(
            key=record.key_id,
            url=record.account_url,
            pin=pin,
            there=record.directory_url,
            here=here or "no such CA",
        )
        return Loss(
            upstream=record.upstream,
            community=record.community,
            cause=cause,
            sentence=sentence,
            account_url=record.account_url,
            since=self._clock.now(),
            pin=pin,
        )


def _versions_after(key_id: str) -> Sequence[str]:
    """Return the ids of the versions that would follow, nearest first; none for a file."""
    stem, mark, number = key_id.rpartition("#")
    if not mark or not number.isdecimal():
        return ()
    first = int(number) + 1
    return [f"{stem}#{version}" for version in range(first, first + MAX_AHEAD)]


def _versions_before(key_id: str) -> Sequence[str]:
    """Return the ids of the versions before, newest first; none for a file."""
    stem, mark, number = key_id.rpartition("#")
    if not mark or not number.isdecimal():
        return ()
    return [f"{stem}#{version}" for version in range(int(number) - 1, 0, -1)][:MAX_AHEAD]
