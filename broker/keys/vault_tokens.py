"""The token of one identity: had by one login at a time, renewed in time, given back at the end.

Lease times count from the moment of the answer on a clock that nobody sets: what Vault takes for
the time of day is nobody's business here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeVar

import hvac
import structlog

from broker.issuance.errors import Broken
from broker.keys.vault_answers import Away, Denied, VaultState
from broker.keys.vault_health import Standing, VaultObserver
from broker.keys.vault_logins import Grant, Login, lease_of
from broker.keys.vault_wrapping import Intercepted, UsedUp

__all__ = ["LOGIN", "Caller", "HeldToken", "TokenKeeper"]

RENEW_AT: Final = 2 / 3
"""After which share of its lease a token is renewed; the rest is for Vault to be away in."""

WORN_OUT: Final = 1 / 3
"""A renewal that grants less than this share of the first lease is near the token's last end
(max_ttl): it is not renewed again but replaced."""

SHORTEST_PAUSE_SECONDS: Final = 0.25
"""Shortest pause before a renewal or after one that failed, in seconds: leases have whole ones."""

LONGEST_RENEWAL_PAUSE_SECONDS: Final = 30.0
"""Longest pause between attempts to renew while the lease lasts, in seconds."""

AWAY_PAUSE_SECONDS: Final = 1.0
"""Pause between logins while Vault is away, in seconds: it is met within that when it returns."""

DENIED_PAUSES_SECONDS: Final = (1.0, 2.0, 5.0)
"""Pauses after logins that were denied, in seconds.  New evidence is shown at once."""

REFUSED_PAUSES_SECONDS: Final = (1.0, 5.0, 30.0, 300.0)
"""Pauses after logins whose evidence was called wrong, in seconds.  Asking with it again is
useless, and five wrong secret ids in a row lock a role for a quarter of an hour."""

LOGIN_AFTER_403_SECONDS: Final = 10.0
"""How long after a login another 403 of a living token brings no new one, in seconds: its policies
are what they are, and each login writes to Vault's storage."""

LOGIN: Final = "login"
"""What was denied, where no login was let in."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


class Caller(Protocol):
    """Runs a call of hvac; ``vault_pool.HvacPool``."""

    async def run(self, call: Callable[[hvac.Client], T], token: str | None) -> T:
        """Return what *call* returns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldToken:
    """A token as it is held."""

    grant: Grant
    first_seconds: int
    """The lease of its login, which renewals are measured by."""
    ends: float | None
    """When the lease ends, on the monotonic clock; None: never."""
    made: float = 0.0
    """When it was logged in."""

    @property
    def text(self) -> str:
        """Return the token itself."""
        return self.grant.token


class _LoginDenied(Denied):
    def __init__(self, reason: str, *, is_wrong: bool) -> None:
        super().__init__(reason, is_token_bad=False, what=LOGIN)
        self.is_wrong = is_wrong
        """Whether it was called wrong, or is of no use, rather than merely turned away."""


@dataclass(frozen=True, slots=True)
class _Failure:
    error: Away | Denied
    until: float
    evidence: str = field(repr=False)


class TokenKeeper:
    """Keeps the token of one identity."""

    def __init__(
        self,
        identity: str,
        login: Login,
        *,
        caller: Caller,
        standing: Standing,
        observer: VaultObserver,
        monotonic: Callable[[], float],
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._identity = identity
        self._login = login
        self._caller = caller
        self._standing = standing
        self._observer = observer
        self._monotonic = monotonic
        self._pause = pause
        self._held: HeldToken | None = None
        self._failure: _Failure | None = None
        self._failures = 0
        self._shown = ""
        self._alarmed = ""
        self._ending = ""
        """The token of which it was told that it ends."""
        self._entering = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None

    # -------------------------------------------------------------------------------- having it

    async def token(self) -> HeldToken:
        """Return the token, logging in where there is none that lasts.

        Raises:
            Away: Vault cannot answer now.
            Denied: It does not let us in.
        """
        held = self._held
        if held is not None and self._lasts(held):
            return held
        return await self._enter(held)

    async def after_refusal(self, refused: HeldToken, error: Denied) -> HeldToken | None:
        """Return another token after a 403, or None where a new login would change nothing.

        Raises:
            Away: Vault cannot answer now.
            Denied: It does not let us in any more.
        """
        if self._held is not refused and self._held is not None:
            return self._held  # somebody else was refused as well, and has logged in
        age = self._monotonic() - refused.made
        if not error.is_token_bad and age < LOGIN_AFTER_403_SECONDS:
            return None
        return await self._enter(refused)

    async def look(self) -> None:
        """Log in where there is no token, or something new to log in with lies there.

        A new wrapping token has to be opened before it expires, not when it is needed.

        Raises:
            Away: Vault cannot answer now.
            Denied: It does not let us in.
        """
        held = self._held
        is_current = held is not None and self._lasts(held)
        if not is_current or (self._login.is_prompt and await self._evidence() != self._shown):
            await self._enter(held)

    async def close(self) -> None:
        """End the token if our own login made it; it is of no use to anybody else."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
            self._renewing = None
        held, self._held = self._held, None
        if held is None or not held.grant.is_own or not held.grant.is_revocable:
            return
        try:
            await self._caller.run(_revoke, held.text)
        except (Away, Denied, Broken) as error:
            log.warning("Vault token not revoked", identity=self._identity, reason=error.reason)

    # -------------------------------------------------------------------------------- logging in

    def _lasts(self, held: HeldToken) -> bool:
        return held.ends is None or self._monotonic() < held.ends

    async def _evidence(self) -> str:
        return await asyncio.to_thread(self._login.evidence)

    async def _enter(self, before: HeldToken | None) -> HeldToken:
        """Log in, once for all who ask meanwhile; *before* is the token that will not do."""
        async with self._entering:
            held = self._held
            if held is not None and held is not before and self._lasts(held):
                return held
            evidence = await self._evidence()
            failure = self._failure
            is_known = failure is not None and failure.evidence == evidence
            if failure is not None and is_known and self._monotonic() < failure.until:
                raise failure.error
            try:
                grant = await self._log_in()
            except (Away, Denied) as error:
                self._remember(error, evidence)
                raise
            return self._take(grant, evidence)

    async def _log_in(self) -> Grant:
        what = self._login.what
        try:
            grant = await self._caller.run(self._login.log_in, None)
        except Away as error:
            self._observer.vault_login(identity=self._identity, outcome=error.state)
            raise
        except (Denied, Broken, UsedUp) as error:
            self._observer.vault_login(identity=self._identity, outcome="denied")
            is_wrong = not isinstance(error, Denied)
            raise _LoginDenied(f"login by {what}: {error.reason}", is_wrong=is_wrong) from None
        except Intercepted as error:
            self._alarm(error.reason)
            raise _LoginDenied(f"login by {what}: {error.reason}", is_wrong=True) from None
        self._observer.vault_login(identity=self._identity, outcome="ok")
        return grant

    def _alarm(self, reason: str) -> None:
        self._observer.vault_login(identity=self._identity, outcome="alarm")
        if self._alarmed != reason:
            self._alarmed = reason
            log.error("possible interception", identity=self._identity, reason=reason)
            self._observer.vault_alarm(identity=self._identity, reason=reason)

    def _remember(self, error: Away | Denied, evidence: str) -> None:
        """Keep a failure for a moment, so that not everyone who asks runs into it anew."""
        if isinstance(error, Away):
            pause = error.retry_after or AWAY_PAUSE_SECONDS
            state = error.state
        else:
            is_wrong = isinstance(error, _LoginDenied) and error.is_wrong
            pauses = REFUSED_PAUSES_SECONDS if is_wrong else DENIED_PAUSES_SECONDS
            pause = pauses[min(self._failures, len(pauses) - 1)]
            self._failures += 1
            state = VaultState.DENIED
        self._failure = _Failure(error, self._monotonic() + pause, evidence)
        self._standing.becomes(state, error.reason)

    def _take(self, grant: Grant, evidence: str) -> HeldToken:
        self._failure, self._failures, self._shown, self._alarmed = None, 0, evidence, ""
        held = self._hold(grant, grant.seconds, self._monotonic())
        self._standing.becomes(VaultState.OK)
        self._standing.set_root(is_root=grant.is_root)
        if self._renewing is not None:
            self._renewing.cancel()
        self._renewing = asyncio.create_task(self._keep(), name=f"vault token {self._identity}")
        return held

    def _hold(self, grant: Grant, first_seconds: int, made: float) -> HeldToken:
        ends = self._monotonic() + grant.seconds if grant.seconds else None
        held = HeldToken(grant=grant, first_seconds=first_seconds, ends=ends, made=made)
        self._held = held
        return held

    # ---------------------------------------------------------------------------------- renewing

    async def _keep(self) -> None:
        """Renew the token at two thirds of its lease, and replace it where that does not help."""
        while (held := self._held) is not None and held.ends is not None:
            left = held.ends - self._monotonic()
            await self._pause(max(left * RENEW_AT, SHORTEST_PAUSE_SECONDS))
            if self._held is not held:
                return
            is_worn = held.grant.seconds < held.first_seconds * WORN_OUT
            if held.grant.is_renewable and not is_worn and await self._renew(held):
                continue
            self._tell_of_end(held)
            with contextlib.suppress(Away, Denied):  # told already; it is tried again
                await self._replace(held)
                return  # its heir looks after the new one

    def _tell_of_end(self, held: HeldToken) -> None:
        """Tell, once for each token, that one which somebody else made has to be made anew."""
        if held.grant.is_own or not held.grant.is_renewable or held.text == self._ending:
            return
        self._ending = held.text
        seconds = max(0, int((held.ends or 0) - self._monotonic()))
        log.warning("Vault token ends soon", identity=self._identity, seconds=seconds)

    async def _renew(self, held: HeldToken) -> bool:
        """Renew it, again and again while Vault is away and the lease lasts; say whether it was."""
        pause = SHORTEST_PAUSE_SECONDS
        while self._lasts(held):
            try:
                answer = await self._caller.run(_renew, held.text)
            except Away as error:
                self._observer.vault_renewed(identity=self._identity, outcome=error.state)
                await self._pause(pause)
                pause = min(pause * 2, LONGEST_RENEWAL_PAUSE_SECONDS)
                continue
            except (Denied, Broken) as error:
                self._observer.vault_renewed(identity=self._identity, outcome="denied")
                log.warning("Vault token not renewed", identity=self._identity, reason=error.reason)
                return False
            self._observer.vault_renewed(identity=self._identity, outcome="ok")
            if self._held is held:
                self._hold(_prolonged(held.grant, answer), held.first_seconds, held.made)
            return True
        return False

    async def _replace(self, held: HeldToken) -> None:
        task, self._renewing = self._renewing, None  # this very task is not cancelled by its heir
        try:
            await self._enter(held)
        finally:
            if self._renewing is None:
                self._renewing = task


def _prolonged(grant: Grant, answer: Any) -> Grant:
    found = answer.get("auth")
    auth = found if isinstance(found, dict) else {}
    return Grant(
        token=grant.token,
        seconds=lease_of(auth.get("lease_duration")),
        is_renewable=bool(auth.get("renewable")),
        is_own=grant.is_own,
        is_revocable=grant.is_revocable,
        is_root=grant.is_root,
    )


def _renew(client: hvac.Client) -> Any:
    return client.adapter.post(url="/v1/auth/token/renew-self", json={})


def _revoke(client: hvac.Client) -> Any:
    return client.adapter.post(url="/v1/auth/token/revoke-self", json={})
