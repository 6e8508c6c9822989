"""Rotation of account keys: on command or when a key has grown old, and what follows it.

A rotation is a change of key (``upstream_keys``) and the retirement of what came before: once the
CA knows the new version, the earlier ones are to sign no more.  Which versions still sign is asked
of Vault every time, so that a retirement which was cut off is made up for.  What fails is kept,
told and tried again, ever less often.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import structlog

from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import SYSTEM, Actor
from broker.issuance.key_ports import KeyStores
from broker.issuance.ports import Clock
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.upstream_key_ports import AccountKeyAge, KeyAgeStore, KeyRotationFailure
from broker.issuance.upstream_keys import UpstreamKeys

__all__ = ["AccountKeyView", "KeyPlan", "KeyRotation", "RotatedKey"]

log = structlog.get_logger("penstock")

SPREAD: Final = 0.1
"""Which part of its age a key may be rotated early by: accounts that were registered together do
not all have their keys rotated together, and none grows older than was said."""

PAUSE: Final = timedelta(minutes=1)
"""Least time between two rotations by schedule: during each of them an account rests."""

FIRST_RETRY: Final = timedelta(minutes=15)
"""How long after a failed rotation the next one may be begun by schedule; doubled with each that
fails."""

LAST_RETRY: Final = timedelta(days=1)
"""Longest time between two attempts to rotate a key: a CA that offers no change is asked daily."""

FIRST_RETIREMENT_RETRY: Final = timedelta(minutes=1)
"""How long after a failed retirement the next one is tried; doubled with each that fails."""

LAST_RETIREMENT_RETRY: Final = timedelta(hours=1)
"""Longest time between two attempts to retire old versions."""

LOOK_AGAIN: Final = timedelta(days=1)
"""How often Vault is asked whether old versions still sign where they did not: somebody who may
configure the key could have let them."""

Account = tuple[str, str]
"""Upstream and community."""

Failure = Refused | Unreachable | Broken | Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyPlan:
    """What configuration says of the account keys at one upstream."""

    kind: str
    rotate_every: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedKey:
    """An account with its new key."""

    record: UpstreamAccountRecord
    not_retired: str | None
    """Why earlier versions may still sign, None where none does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountKeyView:
    """How the key of one account is."""

    upstream: str
    community: str
    key_id: str
    since: datetime
    due_at: datetime | None
    """When it is rotated next by schedule, None where only by command."""
    failure: KeyRotationFailure | None
    not_retired: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Retirement:
    """How the last look at a key's earlier versions went."""

    key_id: str
    due_at: datetime
    failures: int = 0
    reason: str | None = None


class KeyRotation:
    """Rotates account keys, and retires the versions before them."""

    def __init__(
        self,
        keys: UpstreamKeys,
        ages: KeyAgeStore,
        *,
        stores: KeyStores,
        plans: Mapping[str, KeyPlan],
        clock: Clock,
    ) -> None:
        """Rotate as *plans* say, which are by upstream; of others nothing is rotated by itself."""
        self._keys = keys
        self._ages = ages
        self._stores = stores
        self._plans = plans
        self._clock = clock
        self._turn = asyncio.Lock()
        self._resting_until: datetime | None = None
        self._retirements: dict[Account, _Retirement] = {}
        self.known: Sequence[AccountKeyView] = ()
        """How the keys were when that was last looked at."""

    async def rotate(self, upstream: str, community: str, *, actor: Actor) -> RotatedKey:
        """Give our account there a new key, and see that what came before signs no more.

        That it cannot be seen to now is told in the result and made up for later: the account has
        its new key by then.

        Raises:
            Refused: The CA said no; the account keeps its key.
            Unreachable: CA or Vault cannot answer now; see ``UpstreamKeys.change``.
            Broken: There is no account, nobody may make a key, or the CA offers no change of keys.
            Conflict: Somebody else was first.
        """
        plan = self._plans.get(upstream)
        if plan is None:
            raise Broken(f"upstream '{upstream}' is not configured as a CA with accounts")
        try:
            record = await self._keys.change(upstream, community, kind=plan.kind, actor=actor)
        except (Refused, Unreachable, Broken, Conflict) as error:
            await self._note(upstream, community, error)
            raise
        return RotatedKey(record=record, not_retired=await self.retire(record))

    async def take_turn(self) -> None:
        """Do what is due, unless that is under way; called at the start and every few seconds."""
        if self._turn.locked():
            return
        async with self._turn:
            await self.retire_due()
            await self.rotate_due()
            self.known = await self.overview()

    async def rotate_due(self) -> None:
        """Rotate the key that is most overdue, if one is; what fails is kept and told."""
        now = self._clock.now()
        if self._resting_until is not None and now < self._resting_until:
            return
        due = [
            (at, age)
            for age in await self._ages.account_key_ages()
            if (at := self._due_at(age)) is not None and at <= now
        ]
        for _, age in sorted(due, key=lambda one: one[0]):
            if self._keys.is_unsettled(age.upstream, age.community):
                continue
            await self._rotate_by_schedule(age)
            self._resting_until = self._clock.now() + PAUSE
            return

    async def retire_due(self) -> None:
        """Retire what came before the accounts' keys, where that is not known to have happened."""
        for age in await self._ages.account_key_ages():
            account = age.upstream, age.community
            known = self._retirements.get(account)
            is_known = known is not None and known.key_id == age.key_id
            if is_known and known is not None and self._clock.now() < known.due_at:
                continue
            if age.upstream in self._plans and not self._keys.is_unsettled(*account):
                await self._retire(account, age.key_id)

    async def retire(self, record: UpstreamAccountRecord) -> str | None:
        """Retire what came before the account's key now; return why not, None where it is done."""
        return await self._retire((record.upstream, record.community), record.key_id)

    async def overview(self) -> list[AccountKeyView]:
        """Return how the key of each account is, by upstream and community."""
        return [self._view(age) for age in await self._ages.account_key_ages()]

    async def _rotate_by_schedule(self, age: AccountKeyAge) -> None:
        which = {"upstream": age.upstream, "community": age.community}
        actor = Actor(SYSTEM.name, "the key has reached its age")
        try:
            rotated = await self.rotate(age.upstream, age.community, actor=actor)
        except (Refused, Unreachable, Broken, Conflict) as error:
            log.warning("account key was not rotated", **which, reason=str(error))
            return
        log.info("account key was rotated", **which, key=rotated.record.key_id)

    async def _note(self, upstream: str, community: str, error: Failure) -> None:
        for age in await self._ages.account_key_ages():
            if (age.upstream, age.community) == (upstream, community):
                before = age.failure.failures if age.failure is not None else 0
                failure = KeyRotationFailure(
                    upstream=upstream,
                    community=community,
                    key_id=age.key_id,
                    failures=before + 1,
                    failed_at=self._clock.now(),
                    reason=str(error),
                )
                await self._ages.keep_key_rotation_failure(failure)

    async def _retire(self, account: Account, key_id: str) -> str | None:
        upstream, community = account
        now = self._clock.now()
        try:
            await self._stores.retire_before(key_id)
        except (Unreachable, Broken) as error:
            known = self._retirements.get(account)
            is_again = known is not None and known.key_id == key_id
            failures = known.failures + 1 if is_again and known is not None else 1
            pause = _backoff(FIRST_RETIREMENT_RETRY, failures, LAST_RETIREMENT_RETRY)
            self._retirements[account] = _Retirement(
                key_id=key_id, due_at=now + pause, failures=failures, reason=error.reason
            )
            log.warning(
                "old versions of an account key may still sign",
                upstream=upstream,
                community=community,
                reason=error.reason,
            )
            return error.reason
        self._retirements[account] = _Retirement(key_id=key_id, due_at=now + LOOK_AGAIN)
        return None

    def _due_at(self, age: AccountKeyAge) -> datetime | None:
        plan = self._plans.get(age.upstream)
        if plan is None or plan.rotate_every is None:
            return None
        due = age.since + plan.rotate_every * (1 - SPREAD * _share(age))
        if age.failure is None:
            return due
        pause = _backoff(FIRST_RETRY, age.failure.failures, LAST_RETRY)
        return max(due, age.failure.failed_at + pause)

    def _view(self, age: AccountKeyAge) -> AccountKeyView:
        retirement = self._retirements.get((age.upstream, age.community))
        is_known = retirement is not None and retirement.key_id == age.key_id
        return AccountKeyView(
            upstream=age.upstream,
            community=age.community,
            key_id=age.key_id,
            since=age.since,
            due_at=self._due_at(age),
            failure=age.failure,
            not_retired=retirement.reason if is_known and retirement is not None else None,
        )


def _backoff(first: timedelta, failures: int, last: timedelta) -> timedelta:
    """Return the pause after so many failures in a row."""
    doublings = min(failures - 1, 16)  # 2^16 minutes is past any limit
    return min(first * (1 << doublings), last)


def _share(age: AccountKeyAge) -> float:
    """Return a number from 0 up to 1, always the same for a key and different for each."""
    text = f"{age.upstream}\n{age.community}\n{age.key_id}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32
