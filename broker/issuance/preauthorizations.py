"""Authorizations ahead of any order (RFC 8555 §7.4.1), and what they are worth to a later one.

Policy is asked as for an order of that one name.  A pre-authorization never becomes part of an
order: an order of the same account gets an authorization of its own, which is valid because the
older one proves the name, by a challenge that policy still asks for, and ends no later than it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.freezes import Freezes, verify_unfrozen
from broker.issuance.making import Ground, authorization_ahead
from broker.issuance.origins import NOWHERE, Origin
from broker.issuance.planning import Planner
from broker.issuance.ports import AccountOrders, Clock
from broker.issuance.records import AccountRecord, AuthorizationRecord, Proof
from broker.issuance.refusals import Refusals
from broker.issuance.settings import IssuanceSettings
from broker.issuance.terms import check_current
from broker.policy.decisions import NewOrderDecision, Requirement
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import ChallengeStatus

__all__ = ["PreAuthorizations"]

LEAST_LEFT: Final = timedelta(minutes=15)
"""Least time that a pre-authorization must have left to be of use to an order: the order ends with
it, and a client needs some minutes to finalize."""

UNWILLING: Final = 403
"""HTTP status of a refusal of policy, whatever its type (RFC 8555 §7.4.1)."""


class PreAuthorizations:
    """The workflow of newAuthz."""

    def __init__(
        self,
        *,
        owned: AccountOrders,
        planner: Planner,
        refusals: Refusals,
        clock: Clock,
        settings: IssuanceSettings,
        freezes: Freezes | None = None,
    ) -> None:
        self._freezes = freezes
        self._owned = owned
        self._planner = planner
        self._refusals = refusals
        self._clock = clock
        self._settings = settings

    async def create(
        self, account: AccountRecord, identifier: Identifier, *, origin: Origin = NOWHERE
    ) -> AuthorizationRecord:
        """Return a new authorization for *identifier*, or raise the Problem that policy found.

        Raises:
            Problem: The type that newOrder would answer with, and 403 where policy is unwilling.
        """
        demands = self._settings.communities[account.community]
        check_current(demands, account)
        await verify_unfrozen(self._freezes, account, "new-authz")
        if demands.pre_authorization is None:
            raise Problem(
                ProblemType.UNAUTHORIZED, "pre-authorization is not offered, order the name instead"
            )
        facts = await self._planner.facts(
            account,
            identifiers=(identifier,),
            profile=None,
            not_before=None,
            not_after=None,
            origin=origin,
        )
        decision = self._planner.decide(facts)
        if decision.is_refused:
            await self._refusals.record(account, decision, resource="new-authz")
            raise _unwilling(decision)
        made = authorization_ahead(
            identifier,
            decision.requirements[identifier],
            account_id=account.account_id,
            community=account.community,
            at=facts.at,
            expires_at=facts.at + demands.pre_authorization,
        )
        await self._owned.create_authorization(made, self._event(made, facts.at))
        return made

    async def grounds(
        self, account: AccountRecord, needs: Mapping[Identifier, Requirement], at: datetime
    ) -> Mapping[Identifier, Ground]:
        """Return what the account proved ahead of the names that *needs* lists."""
        if self._settings.communities[account.community].pre_authorization is None:
            return {}
        wanted = [
            name for name, need in needs.items() if need.granted_by is None and not name.is_wildcard
        ]
        until = at + LEAST_LEFT
        found = await self._owned.proved_ahead(account.account_id, wanted, until=until)
        grounds = {}
        for one in found:
            ground = _ground(account, one, needs[one.identifier])
            if ground is not None:
                grounds[one.identifier] = ground
        return grounds

    def _event(self, made: AuthorizationRecord, at: datetime) -> Event:
        return Event(
            kind=EventKind.AUTHORIZATION_CREATED,
            at=at,
            actor=Actor(f"account:{made.account_id}"),
            community=made.community,
            account_id=made.account_id,
            data={"identifier": str(made.identifier), "expires": made.expires_at.isoformat()},
        )


def _ground(account: AccountRecord, found: AuthorizationRecord, need: Requirement) -> Ground | None:
    """Return *found* as a ground, if all that makes it one is true."""
    is_own = (found.account_id, found.community) == (account.account_id, account.community)
    if not is_own or found.proof is not Proof.CHALLENGE or found.is_wildcard:
        return None
    for challenge in found.challenges:
        if challenge.status is ChallengeStatus.VALID and challenge.type in need.challenges:
            return Ground(found, challenge)
    return None


def _unwilling(decision: NewOrderDecision) -> Problem:
    """Return the problem of a decision, with the status that newAuthz has for it."""
    problem = decision.problem()
    is_unserved = problem.type is ProblemType.SERVER_INTERNAL
    return Problem(
        problem.type,
        problem.detail,
        status=problem.status if is_unserved else UNWILLING,
        subproblems=problem.subproblems,
        retry_after=problem.retry_after,
    )
