"""Keeps what policy refused, so that an operator can tell a client why.

Of a flood the first of each minute are kept, and of the others how many there were: with the next
one that is kept, or by themselves once nobody comes any more.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.ports import Clock, EventLog
from broker.issuance.records import AccountRecord
from broker.issuance.requesting import requester_facts
from broker.policy.decisions import Finding, NewOrderDecision, NewOrderFacts

__all__ = ["Refusals", "told_left_out"]

PER_MINUTE: Final = 600
"""Most refusals kept a minute: a client in a loop must not fill the disk, and says nothing new."""


def told_left_out(count: int, at: datetime, **more: object) -> Event:
    """Return the event that *count* refusals were not kept each, up to the moment *at*."""
    data = {"left_out": count, **more}
    return Event(kind=EventKind.REFUSALS_LEFT_OUT, at=at, actor=SYSTEM, data=data)


class Refusals:
    """Writes refusals of policy into the event table, without waiting for the disk."""

    def __init__(self, log: EventLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._minute: datetime | None = None
        self._kept = 0
        self._left_out = 0

    async def record(
        self,
        account: AccountRecord,
        decision: NewOrderDecision,
        *,
        resource: str,
        order_id: str | None = None,
        facts: NewOrderFacts | None = None,
    ) -> None:
        """Keep why *account* was refused at *resource*; past the limit only how often.

        With *facts* the request is kept as well, for another policy to be asked about it.
        """
        now = self._clock.now()
        if self._minute is None or now - self._minute >= timedelta(minutes=1):
            self._minute, self._kept = now, 0
        if self._kept >= PER_MINUTE:
            self._left_out += 1
            return
        self._kept += 1
        left_out, self._left_out = self._left_out, 0
        event = Event(
            kind=EventKind.REQUEST_REFUSED,
            at=now,
            actor=Actor(f"account:{account.account_id}"),
            community=account.community,
            account_id=account.account_id,
            order_id=order_id,
            data={
                "resource": resource,
                "policy_sha256": decision.policy_sha256,
                "findings": [_facts(found) for found in decision.findings],
                **({"left_out_before": left_out} if left_out else {}),
                **({} if facts is None else {"request": _request(facts)}),
            },
        )
        await self._log.append(event, durable=False)

    async def tell_left_out(self) -> None:
        """Keep how many were left out and not told yet; called once a minute, and at the end.

        Raises:
            Unreachable, Broken: It could not be kept, and is told later.
        """
        count, self._left_out = self._left_out, 0
        if not count:
            return
        try:
            event = told_left_out(count, self._clock.now(), by="policy")
            await self._log.append(event, durable=False)
        except BaseException:
            self._left_out += count
            raise


def _request(facts: NewOrderFacts) -> dict[str, object]:
    lifetime = None if facts.not_after is None else facts.not_after - facts.at
    return {
        "identifiers": [[str(one.type), one.value] for one in facts.identifiers],
        "profile": facts.profile,
        "is_start_asked": facts.not_before is not None,
        "lifetime_seconds": None if lifetime is None else int(lifetime.total_seconds()),
        "requester": requester_facts(facts.requester),
        "is_unchanged_renewal": facts.is_unchanged_renewal,
    }


def _facts(found: Finding) -> dict[str, object]:
    return {
        "check": found.check,
        "type": found.type.token,
        "sentence": found.sentence,
        "identifier": str(found.identifier) if found.identifier else None,
        "rule": f"{found.rule.source}:{found.rule.line}" if found.rule else None,
    }
