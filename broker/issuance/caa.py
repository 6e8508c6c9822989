"""CAA at finalize: reported beside the order, or decided before it, as policy says.

``report`` costs a client nothing: the look is a job of its own, begun with the finalize and waited
for by nobody.  ``refuse`` looks first: what CAA forbids, or what cannot be looked up, is never
finalized upstream.  Both look for the very upstream that the order goes to, and a CA that tells
nobody its identity is looked for under ``refuse`` alone: no record could name it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event, EventKind
from broker.issuance.ports import (
    AccountStore,
    AccountUrl,
    Clock,
    EventLog,
    OrderStore,
    Policies,
    Upstreams,
)
from broker.issuance.records import AccountRecord, Job, JobKind, OrderRecord, Proof
from broker.policy.decisions import Finding
from broker.policy.form import CaaMode
from broker.protocol.caa import CaaIssuer, CaaOutcome, CaaSeen, CaaVerdict, judge_caa
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import ProblemType
from broker.protocol.resources import ChallengeStatus

__all__ = ["CHECK", "CaaAnswer", "CaaIssuers", "CaaLooker", "CaaRooms", "CaaWatch"]

CHECK: Final = "caa"
"""Its name among the checks of policy, in findings and audit records."""

MAX_TOLD: Final = 100
"""Most names that an event tells of: as many as an order may have."""


class CaaLooker(Protocol):
    """Looks records up; never judges."""

    async def look(self, community: str, identifiers: Sequence[Identifier]) -> Sequence[CaaSeen]:
        """Return what stands for each name among *identifiers*, through the community's own
        resolvers.  Never raises for a resolver's sake: a failure is part of what was seen."""
        ...


class CaaIssuers(Protocol):
    """Knows what records may call the configured upstreams."""

    def is_identified(self, upstream: str, community: str) -> bool:
        """Return whether an identity is known, from the configuration or the CA's directory."""
        ...

    async def caa_issuer(
        self, upstream: str, community: str, identifiers: Sequence[Identifier]
    ) -> CaaIssuer:
        """Return how records may describe *upstream*, asking for its directory where need be.

        Raises:
            Unreachable: Its directory cannot be had now.
            Broken: Its directory is none.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CaaAnswer:
    """What is to be done about CAA when an order is finalized."""

    findings: tuple[Finding, ...] = ()
    """Reasons to refuse it."""
    events: tuple[Event, ...] = ()
    jobs: tuple[Job, ...] = ()
    """What rides in the transaction of the claim; hand the jobs to `CaaWatch.begin` after it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaaRooms:
    """What the watch works with."""

    looker: CaaLooker
    issuers: CaaIssuers
    upstreams: Upstreams
    policies: Policies
    orders: OrderStore
    accounts: AccountStore
    log: EventLog
    dispatcher: Dispatcher
    clock: Clock
    account_url: AccountUrl


class CaaWatch:
    """Looks at CAA as policy says; handler of the CAA jobs."""

    def __init__(self, rooms: CaaRooms) -> None:
        self._rooms = rooms

    async def answer(self, account: AccountRecord, order: OrderRecord, upstream: str) -> CaaAnswer:
        """Return what is to be done about *order*, which is about to go to *upstream*."""
        mode = self._rooms.policies.current(order.community).caa
        has_names = any(one.type is not IdentifierType.IP for one in order.identifiers)
        if mode is CaaMode.IGNORE or not has_names:
            return CaaAnswer()
        if mode is CaaMode.REFUSE:
            return await self._decide(account, order, upstream)
        if not self._rooms.issuers.is_identified(upstream, order.community):
            return CaaAnswer()
        now = self._rooms.clock.now()
        return CaaAnswer(jobs=(Job(kind=JobKind.CAA, subject=order.order_id, due_at=now),))

    def begin(self, answer: CaaAnswer) -> None:
        """Run the jobs of *answer*, whose rows exist by now."""
        for job in answer.jobs:
            self._rooms.dispatcher.kick(job)

    async def report(self, job: Job) -> None:
        """Look, and note what was seen: the handler of CAA jobs."""
        order = await self._rooms.orders.load_order(job.subject)
        account = await self._rooms.accounts.find_account(order.account_id) if order else None
        if order is None or account is None:
            return
        verdicts = await self._look(account, order, order.upstream)
        await self._rooms.log.append(self._event(order, order.upstream, verdicts), durable=False)

    async def _decide(self, account: AccountRecord, order: OrderRecord, upstream: str) -> CaaAnswer:
        verdicts = await self._look(account, order, upstream)
        findings = tuple(
            Finding(
                check=CHECK,
                type=ProblemType.CAA,
                sentence=f"'{verdict.identifier}': {verdict.sentence}",
                identifier=verdict.identifier,
            )
            for verdict in verdicts
            if verdict.is_against
        )
        return CaaAnswer(findings=findings, events=(self._event(order, upstream, verdicts),))

    async def _look(
        self, account: AccountRecord, order: OrderRecord, upstream: str
    ) -> Sequence[CaaVerdict]:
        try:
            issuer = await self._issuer(account, order, upstream)
        except (Unreachable, Broken) as error:
            reason = f"the identity of upstream '{upstream}' is not known: {error.reason}"
            names = [one for one in order.identifiers if one.type is not IdentifierType.IP]
            return [_failed(name, reason) for name in names]
        seen = await self._rooms.looker.look(order.community, order.identifiers)
        return [judge_caa(one, issuer) for one in seen]

    async def _issuer(self, account: AccountRecord, order: OrderRecord, upstream: str) -> CaaIssuer:
        rooms = self._rooms
        issuer = await rooms.issuers.caa_issuer(upstream, order.community, order.identifiers)
        if not rooms.upstreams.get(upstream, order.community).is_local:
            return issuer
        # Of the built-in CA the requesters' accounts are the accounts, and what they proved by
        # is how it validated.
        methods = await self._proven_methods(order)
        return replace(issuer, account_uri=rooms.account_url(account), methods=methods)

    async def _proven_methods(self, order: OrderRecord) -> Mapping[Identifier, frozenset[str]]:
        by_base: dict[tuple[Identifier, bool], frozenset[str]] = {}
        for authorization_id in order.authorization_ids:
            found = await self._rooms.orders.load_authorization(authorization_id)
            if found is None or found.proof is not Proof.CHALLENGE:
                continue
            by_base[found.identifier, found.is_wildcard] = frozenset(
                str(one.type) for one in found.challenges if one.status is ChallengeStatus.VALID
            )
        return {
            one: by_base.get((one.base, one.is_wildcard), frozenset()) for one in order.identifiers
        }

    def _event(self, order: OrderRecord, upstream: str, verdicts: Sequence[CaaVerdict]) -> Event:
        return Event(
            kind=EventKind.CAA_LOOKED_AT,
            at=self._rooms.clock.now(),
            community=order.community,
            account_id=order.account_id,
            order_id=order.order_id,
            upstream=upstream,
            data={
                "names": [
                    {
                        "name": str(one.identifier),
                        "outcome": str(one.outcome),
                        "found_at": one.found_at,
                        "sentence": one.sentence,
                    }
                    for one in verdicts[:MAX_TOLD]
                ]
            },
        )


def _failed(identifier: Identifier, reason: str) -> CaaVerdict:
    return CaaVerdict(
        identifier=identifier, outcome=CaaOutcome.FAILED, found_at=None, sentence=reason
    )
