"""From a pending order to one that is ready: a CA's authorizations, answered side by side.

Each authorization is read, answered by the first solver that fits, watched until the CA has made
up its mind, and cleaned up after.  Ones that are valid already are left alone.  What is published
depends on the names that we ordered, never on those that a CA would like to see proven.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

import structlog

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.ports import Clock
from broker.protocol.challenges import is_challenge_for, key_authorization
from broker.protocol.exchange import Answer
from broker.protocol.identifiers import Identifier
from broker.protocol.members import ProtocolError
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import (
    Authorization,
    AuthorizationStatus,
    Challenge,
    ChallengeStatus,
)
from broker.upstreams.pacing import Pacing, Pause
from broker.upstreams.solvers import ChallengeAnswer, Publication, Solver

__all__ = ["Authorizer", "AuthorizingSettings", "Poster"]

log = structlog.get_logger(__name__)

AUTHORIZATION_TIME: Final = timedelta(minutes=5)
"""Default limit for one round of authorizations; the job tries again after it."""

POLL_INTERVAL: Final = timedelta(milliseconds=500)
"""Default first and shortest wait between two looks at the same object of a CA."""

LONGEST_POLL_INTERVAL: Final = timedelta(seconds=10)
"""Longest wait that we choose ourselves; a CA may ask for more."""

OUTAGE_TIME: Final = timedelta(seconds=20)
"""How long a CA that gives no answer goes on being watched.

Longer than what opens the breaker and its first two pauses together, some 2 s, 5 s and 10 s: but
for one look in between nobody is let through meanwhile, so a CA that is back after a restart would
not be met.  An order that waits for one that died would otherwise wait for the whole round, though
another CA is free.
"""

MAX_AUTHORIZATIONS: Final = 8
"""Default number of authorizations of one order that are answered at a time."""


class Poster(Protocol):
    """Sends a signed request of our account; ``AcmeUpstream`` brings it."""

    async def __call__(self, url: str, payload: Mapping[str, Any] | None) -> Answer:
        """Return the success; raises Refused, Unreachable or Broken."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorizingSettings:
    """How patiently a CA is watched."""

    total: timedelta = AUTHORIZATION_TIME
    poll_interval: timedelta = POLL_INTERVAL
    max_authorizations: int = MAX_AUTHORIZATIONS


class Authorizer:
    """Answers a CA's authorizations with the configured solvers, in their order."""

    def __init__(
        self,
        settings: AuthorizingSettings,
        *,
        solvers: Sequence[Solver],
        clock: Clock,
        pause: Pause,
    ) -> None:
        self._settings = settings
        self._solvers = tuple(solvers)
        self._clock = clock
        self._pause = pause
        self._leftovers: list[Publication] = []

    def pacing(self, *, total: timedelta | None = None) -> Pacing:
        """Return fresh waits for watching one object, for a whole round or for *total*."""
        return Pacing(
            self._clock,
            self._pause,
            first=self._settings.poll_interval,
            longest=max(LONGEST_POLL_INTERVAL, self._settings.poll_interval),
            total=self._settings.total if total is None else total,
        )

    async def authorize(
        self,
        urls: Sequence[str],
        *,
        ordered: Sequence[Identifier],
        thumbprint: str,
        post: Poster,
    ) -> None:
        """Return when every authorization at *urls* is valid.

        The first failure ends the round; what was published by then is withdrawn.

        Raises:
            Refused: The CA found an authorization invalid.
            Unreachable: It did not make up its mind in time, or something did not answer.
            Broken: No solver fits, or the CA breaks its protocol.
        """
        await self._sweep()
        names = frozenset(identifier.base for identifier in ordered)
        slots = asyncio.Semaphore(self._settings.max_authorizations)

        async def settle(url: str) -> None:
            async with slots:
                await self._settle(url, names=names, thumbprint=thumbprint, post=post)

        try:
            async with asyncio.TaskGroup() as group:
                for url in urls:
                    group.create_task(settle(url))
        except BaseExceptionGroup as errors:
            raise _gravest(errors) from errors

    async def _settle(
        self, url: str, *, names: frozenset[Identifier], thumbprint: str, post: Poster
    ) -> None:
        authorization, _ = await _read(post, url)
        if authorization.status is not AuthorizationStatus.PENDING:
            _verify_valid(authorization)
            return
        identifier = authorization.identifier.base
        if identifier not in names:
            raise Broken(f"{url} wants '{identifier}' proven, which is no name of the order")
        solver, challenge = self._choose(authorization)
        token = challenge.token or ""
        try:
            answer = ChallengeAnswer(identifier, token, key_authorization(token, thumbprint))
        except ProtocolError as error:
            raise Broken(f"{challenge.url}: {error}") from error
        publication = await self._present(solver, answer)
        try:
            await self._look(publication, identifier, solver)
            _verify_valid(await self._answer(post, url, challenge))
        finally:
            await self._withdraw(publication)

    def _choose(self, authorization: Authorization) -> tuple[Solver, Challenge]:
        """Return the first solver that fits, with the challenge it will answer."""
        base = authorization.identifier.base
        is_wildcard = authorization.wildcard or authorization.identifier.is_wildcard
        identifier = Identifier(base.type, f"*.{base.value}") if is_wildcard else base
        open_states = (ChallengeStatus.PENDING, ChallengeStatus.PROCESSING)
        # A type that we do not know may have no token at all, and is none of our business.
        offered = {
            challenge.type: challenge
            for challenge in authorization.challenges
            if challenge.token is not None and challenge.status in open_states
        }
        for solver in self._solvers:
            if not is_challenge_for(solver.type, identifier):
                continue
            if solver.type in offered and solver.is_for(identifier):
                return solver, offered[solver.type]
        types = ", ".join(sorted({challenge.type for challenge in authorization.challenges}))
        raise Broken(f"no solver is configured for '{identifier}': the CA offers {types or 'none'}")

    async def _answer(self, post: Poster, url: str, challenge: Challenge) -> Authorization:
        """Tell the CA to look, and return the authorization when it is pending no more."""
        is_settled, retry_at = False, None
        if challenge.status is ChallengeStatus.PENDING:
            try:
                answer = await post(challenge.url, {})
            except Refused:
                # Settled by an earlier round perhaps: the authorization will tell.
                authorization, retry_at = await _read(post, url)
                if authorization.status is AuthorizationStatus.PENDING:
                    raise
                return authorization
            retry_at = answer.retry_at
            is_settled = _is_settled(answer)
        return await self._watch(post, url, is_settled=is_settled, retry_at=retry_at)

    async def _watch(
        self, post: Poster, url: str, *, is_settled: bool, retry_at: datetime | None
    ) -> Authorization:
        pacing, outage = self.pacing(), None
        if not is_settled:
            await pacing.wait(retry_at)
        while True:
            reason = f"{url} is still pending after {pacing.total.total_seconds():g} s"
            try:
                authorization, retry_at = await _read(post, url)
                if authorization.status is not AuthorizationStatus.PENDING:
                    return authorization
                outage = None
            except Unreachable as error:
                # A short outage between two looks is no reason to begin anew, nor is a limit.
                reason, retry_at = error.reason, error.retry_at
                outage = None if retry_at else outage or self.pacing(total=OUTAGE_TIME)
            if pacing.has_ended() or (outage is not None and outage.has_ended()):
                raise Unreachable(reason, retry_at=retry_at)
            await (outage or pacing).wait(retry_at)

    async def _present(self, solver: Solver, answer: ChallengeAnswer) -> Publication:
        """Publish, and withdraw at once if we are cancelled meanwhile."""
        presenting = asyncio.ensure_future(solver.present(answer))
        try:
            return await asyncio.shield(presenting)
        except asyncio.CancelledError:
            with contextlib.suppress(Unreachable, Broken):
                await self._withdraw(await presenting)
            raise

    async def _look(self, publication: Publication, identifier: Identifier, solver: Solver) -> None:
        missing = await publication.look()
        if missing is not None:
            log.warning(
                "challenge answer is not seen, the CA is asked all the same",
                identifier=identifier.value,
                challenge=str(solver.type),
                reason=missing,
            )

    async def _withdraw(self, publication: Publication) -> None:
        """Withdraw, or remember to: an order must not fail because its traces stay."""
        try:
            await publication.withdraw()
        except (Unreachable, Broken) as error:
            self._leftovers.append(publication)
            log.warning("challenge answer is not withdrawn yet", reason=error.reason)

    async def _sweep(self) -> None:
        """Withdraw what could not be withdrawn before."""
        leftovers, self._leftovers = self._leftovers, []
        for publication in leftovers:
            await self._withdraw(publication)


async def _read(post: Poster, url: str) -> tuple[Authorization, datetime | None]:
    answer = await post(url, None)
    try:
        return Authorization.from_json(answer.json()), answer.retry_at
    except ProtocolError as error:
        raise Broken(f"{url}: {error}") from error


def _is_settled(answer: Answer) -> bool:
    """Return whether the answer to a challenge shows it decided; nonsense in it says nothing."""
    try:
        status = Challenge.from_json(answer.json()).status
    except ProtocolError:
        return False
    return status in (ChallengeStatus.VALID, ChallengeStatus.INVALID)


def _verify_valid(authorization: Authorization) -> None:
    if authorization.status is AuthorizationStatus.VALID:
        return
    identifier = authorization.identifier
    for challenge in authorization.challenges:
        if challenge.error is not None:
            raise Refused(challenge.error)
    raise Refused(
        Problem(
            ProblemType.UNAUTHORIZED,
            f"authorization of '{identifier}' is {authorization.status}, the CA gave no reason",
        )
    )


def _gravest(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one error to tell: a refusal before a fault, a fault before an outage."""
    for kind in (Refused, Broken, Unreachable):
        for error in errors.exceptions:
            if isinstance(error, kind):
                return error
    return errors.exceptions[0]
