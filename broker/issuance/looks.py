"""A challenge of an authorization: found, replaced, and read while somebody looks at its answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Final

from broker.issuance.dispatcher import Dispatcher
from broker.issuance.ports import Clock, OrderStore
from broker.issuance.records import AccountRecord, AuthorizationRecord, ChallengeRecord, JobKind
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import AuthorizationStatus, ChallengeStatus
from broker.protocol.transitions import AuthorizationEvent, advance_authorization

__all__ = ["AuthorizationReading", "find_challenge", "look_subject", "with_challenge"]

LOOK_WAIT: Final = timedelta(milliseconds=250)
"""How long a question for an authorization waits for the look that is under way: a host that can
be reached at all has answered by then as a rule, and nobody's connection is held for long."""


class AuthorizationReading:
    """Reads authorizations for their owners."""

    def __init__(self, orders: OrderStore, dispatcher: Dispatcher, clock: Clock) -> None:
        self._orders = orders
        self._dispatcher = dispatcher
        self._clock = clock

    async def load(self, account: AccountRecord, authorization_id: str) -> AuthorizationRecord:
        """Return the account's own authorization, expired if its time has passed."""
        found = await self._orders.load_authorization(authorization_id)
        if found is None or found.account_id != account.account_id:
            raise Problem(ProblemType.MALFORMED, "no such authorization here", status=404)
        is_open = found.status in (AuthorizationStatus.PENDING, AuthorizationStatus.VALID)
        if is_open and found.expires_at <= self._clock.now():
            status = advance_authorization(found.status, AuthorizationEvent.EXPIRED)
            return replace(found, status=status)
        return found

    async def read(self, account: AccountRecord, authorization_id: str) -> AuthorizationRecord:
        """Return the same; while somebody is looking, a moment later, with what came of it.

        Most looks take less than the pause before the client would ask again.
        """
        found = await self.load(account, authorization_id)
        looks = [
            look_subject(found, one)
            for one in found.challenges
            if one.status is ChallengeStatus.PROCESSING
        ]
        if found.status is not AuthorizationStatus.PENDING or not looks:
            return found
        if not await self._dispatcher.has_ended(JobKind.VALIDATE, looks[0], LOOK_WAIT):
            return found
        return await self.load(account, authorization_id)


def find_challenge(authorization: AuthorizationRecord, challenge_id: str) -> ChallengeRecord | None:
    """Return the challenge of that id, or None."""
    for challenge in authorization.challenges:
        if challenge.challenge_id == challenge_id:
            return challenge
    return None


def with_challenge(
    authorization: AuthorizationRecord, changed: ChallengeRecord
) -> AuthorizationRecord:
    """Return the authorization with one of its challenges as it has become."""
    challenges = tuple(
        changed if one.challenge_id == changed.challenge_id else one
        for one in authorization.challenges
    )
    return replace(authorization, challenges=challenges)


def look_subject(authorization: AuthorizationRecord, challenge: ChallengeRecord) -> str:
    """Return the subject of the job that looks at the challenge's answer."""
    return f"{authorization.authorization_id}/{challenge.challenge_id}"
