"""Vault for the rest of this room: sessions, one for each identity, over shared connections.

A request that finds no usable answer is `Unreachable`, whatever the cause; it is tried again by
whoever wanted it, never here.  Only another address, and one new login after a 403, are tried at
once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar

import hvac
import structlog

from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Clock
from broker.keys.look_out import LookOut
from broker.keys.vault_addresses import Addresses
from broker.keys.vault_answers import Away, Denied, VaultNotFound, VaultState
from broker.keys.vault_health import IdentityHealth, Silent, Standing, VaultHealth, VaultObserver
from broker.keys.vault_http import AiohttpExchange, Exchange, VaultHttp
from broker.keys.vault_logins import Login, make_login
from broker.keys.vault_pool import BlockingExchange, HvacPool, RequestsExchange, VaultAdapter
from broker.keys.vault_settings import LoginSettings, VaultSettings
from broker.keys.vault_tokens import LOGIN, HeldToken, TokenKeeper

__all__ = ["VaultConnections", "VaultNotFound", "VaultSession"]

PROBE_SECONDS: Final = 1.0
"""Pause between looks at what is down, in seconds: its return is seen within that."""

QUIET_SECONDS: Final = 5.0
"""Pause between looks while all is well, in seconds: a broker that is idle tells of a sealed Vault
within that, and a new wrapping token is opened before it expires."""

LONGEST_PROOF_PAUSE_SECONDS: Final = 15.0
"""Longest pause between looks at a Vault that answers the look and nothing else, in seconds."""

DENIED_SECONDS: Final = 600.0
"""How long it is told that something was denied, unless the same is granted before, in seconds."""

CLOSE_SECONDS: Final = 3.0
"""Longest that giving tokens back may take at the end, in seconds."""

HINT: Final = "what each state of Vault asks of you is in docs/operations/vault-outage.md"

T = TypeVar("T")

log = structlog.get_logger(__name__)


class VaultSession:
    """Requests to Vault as one identity."""

    def __init__(
        self,
        keeper: TokenKeeper,
        *,
        http: VaultHttp,
        pool: HvacPool,
        standing: Standing,
        clock: Clock,
        observer: VaultObserver,
        monotonic: Callable[[], float],
    ) -> None:
        self._keeper = keeper
        self._http = http
        self._pool = pool
        self._standing = standing
        self._clock = clock
        self._observer = observer
        self._monotonic = monotonic
        self._denied: dict[str, tuple[float, str]] = {}
        """What was denied: when, and in which words."""
        self._is_assumed = False
        """Whether it is by a look alone that Vault counts as returned."""
        self._proof_pause = PROBE_SECONDS
        self._next_proof = 0.0

    async def post(self, path: str, document: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the ``data`` of the answer to a request that may be made twice: to sign, encrypt,
        decrypt.  It goes over a kept connection, and leaves nothing at Vault.

        Raises:
            Unreachable: Vault has no usable answer now, or does not let us do this.
            VaultNotFound: There is no such thing.
            Broken: It will answer so until a person acts.
        """
        return await self._ask_http("POST", path, document)

    async def get(self, path: str) -> Mapping[str, Any]:
        """Return the ``data`` of what is read there; raises as `post` does."""
        return await self._ask_http("GET", path, None)

    async def run(self, call: Callable[[hvac.Client], T]) -> T:
        """Return what *call* returns; it has hvac's client in a thread and may do anything there.

        Raises as `post` does; ``left_nothing`` is False where *call* may have changed something.
        After a 403 that a new login helps, *call* is run once more from its beginning.
        """
        answered: list[str] = []

        def noted(client: hvac.Client) -> T:
            answer = call(client)
            if isinstance(client.adapter, VaultAdapter):
                answered.extend(client.adapter.answered)
            return answer

        return await self._ask(answered, lambda held: self._pool.run(noted, held.text))

    def health(self) -> IdentityHealth:
        """Return how Vault stands towards this identity."""
        return self._standing.current()

    async def look(self) -> None:
        """Log in where that is due, and see whether what is up still is, and what was down has
        returned; what comes of it is told by `health`."""
        try:
            await self._keeper.look()
        except (Away, Denied):
            return
        await self._prove()

    async def close(self) -> None:
        """End the identity's token."""
        await self._keeper.close()

    async def _prove(self) -> None:
        """Ask for something harmless: whoever answers that answers the rest as well, mostly.

        Where a real request then fails all the same, the next look comes later.
        """
        if self._monotonic() < self._next_proof:
            return
        try:
            await self._attempt(self._look_at_itself)
        except Away as error:
            self._standing.becomes(error.state, error.reason)
            return
        except Denied as error:
            if error.what == LOGIN:
                return  # told already
        except Broken:
            pass
        if self._is_told_denied():
            self._next_proof = self._monotonic() + QUIET_SECONDS  # a look does not end that
        elif not self._standing.current().is_up:
            self._is_assumed = True
            self._standing.becomes(VaultState.OK)

    async def _look_at_itself(self, held: HeldToken) -> None:
        """Be answered.  Where the token is good and may not look at itself, it was; a new login
        would change nothing, every few seconds."""
        try:
            await self._http.ask("GET", "auth/token/lookup-self", None, held.text)
        except Denied as error:
            if error.is_token_bad:
                raise

    async def _ask_http(
        self, method: str, path: str, document: Mapping[str, Any] | None
    ) -> Mapping[str, Any]:
        try:
            answer = await self._ask(
                [f"{method} {path}"],
                lambda held: self._http.ask(method, path, document, held.text),
            )
        except Unreachable as error:
            raise Unreachable(
                error.reason, retry_at=error.retry_at, left_nothing=True, hint=error.hint
            ) from None
        data = answer.get("data")
        return data if isinstance(data, dict) else {}

    async def _ask(self, what: Sequence[str], do: Callable[[HeldToken], Awaitable[T]]) -> T:
        """Return what *do* returns, and keep account of how Vault stands; *what* is method and path
        of all that it was answered, once it was."""
        begun = self._monotonic()
        outcome: str = VaultState.OK
        try:
            answer = await self._attempt(do)
        except Away as error:
            outcome = error.state
            self._failed(error)
            raise self._unreachable(error) from None
        except Denied as error:
            outcome = VaultState.DENIED
            if error.what != LOGIN:
                self._denied[error.what] = (self._monotonic(), error.reason)
            self._standing.becomes(VaultState.DENIED, error.reason)
            raise Unreachable(f"Vault: {error.reason}", left_nothing=True, hint=HINT) from None
        except Broken:
            outcome = "answered"
            self._worked(what)
            raise
        else:
            self._worked(what)
            return answer
        finally:
            seconds = self._monotonic() - begun
            name = self._standing.current().identity
            self._observer.vault_asked(identity=name, outcome=outcome, seconds=seconds)

    def _worked(self, what: Sequence[str]) -> None:
        """Note that there was an answer; what is denied elsewhere stays denied for a while."""
        self._is_assumed, self._proof_pause = False, PROBE_SECONDS
        for path in what:
            self._denied.pop(path, None)
        if not self._is_told_denied():
            self._standing.becomes(VaultState.OK)

    def _is_told_denied(self) -> bool:
        """Forget what was denied long ago, tell of what is left, and return whether that is any."""
        limit = self._monotonic() - DENIED_SECONDS
        self._denied = {path: one for path, one in self._denied.items() if one[0] > limit}
        if self._denied:
            _, reason = max(self._denied.values())
            self._standing.becomes(VaultState.DENIED, reason)
        return bool(self._denied)

    def _failed(self, error: Away) -> None:
        if self._is_assumed:
            self._is_assumed = False
            self._next_proof = self._monotonic() + self._proof_pause
            self._proof_pause = min(self._proof_pause * 2, LONGEST_PROOF_PAUSE_SECONDS)
        self._standing.becomes(error.state, error.reason)

    async def _attempt(self, do: Callable[[HeldToken], Awaitable[T]]) -> T:
        held = await self._keeper.token()
        try:
            return await do(held)
        except Denied as error:
            again = await self._keeper.after_refusal(held, error)
            if again is None:
                raise
        return await do(again)

    def _unreachable(self, error: Away) -> Unreachable:
        retry_at = None
        if error.retry_after is not None:
            retry_at = self._clock.now() + timedelta(seconds=error.retry_after)
        return Unreachable(
            f"Vault: {error.reason}", retry_at=retry_at, left_nothing=error.left_nothing, hint=HINT
        )


class VaultConnections:
    """All that the broker has of Vault.  Nothing is asked before the first request; close it."""

    def __init__(
        self,
        settings: VaultSettings,
        clock: Clock,
        *,
        observer: VaultObserver | None = None,
        exchange: Exchange | None = None,
        blocking: BlockingExchange | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._observer = observer or Silent()
        self._monotonic = monotonic
        self._pause = pause
        self._addresses = Addresses(settings.addresses, self._monotonic)
        self._exchange = exchange or AiohttpExchange(settings)
        self._http = VaultHttp(self._exchange, self._addresses, namespace=settings.namespace)
        self._pool = HvacPool(blocking or RequestsExchange(settings), self._addresses, settings)
        self._sessions: dict[str, VaultSession] = {}
        self.logins: dict[LoginSettings, Login] = {}  # the next broker of the process may have them
        self._watching = LookOut(self._watch, self._pause, PROBE_SECONDS)
        self.on_return: Callable[[], None] | None = None
        """Called when an identity that could not work can again."""
        self.watch_signatures = self._http.watch_signatures

    def serving(self, mount: str) -> VaultSession:
        """Return the session that signs and reads at *mount*; nothing is asked of Vault yet."""
        name, identity = self._settings.identity_at(mount)
        if name not in self._sessions:
            self._sessions[name] = self._session(name or "default", identity.serve)
        return self._sessions[name]

    @asynccontextmanager
    async def rotating(self, mount: str) -> AsyncIterator[VaultSession]:
        """Yield a session that makes and configures keys at *mount*; its token ends with it.

        Raises:
            Broken: No such identity is configured for this mount.
        """
        name, identity = self._settings.identity_at(mount)
        if identity.rotate is None:
            raise Broken(
                f"no identity may make or rotate keys at '{mount}': configure vault.rotate, or "
                f"vault.mounts.{mount}.rotate, or have the security team do it"
            )
        session = self._session(f"{name or 'default'}:rotate", identity.rotate)
        try:
            yield session
        finally:
            await asyncio.shield(self._end(session))

    def health(self) -> VaultHealth:
        """Return how Vault stands towards every identity that serves."""
        return VaultHealth(identities=tuple(each.health() for each in self._sessions.values()))

    def watch(self) -> None:
        """Log in, and from now on look whether what is down has returned.

        An identity of one mount is waited with until that mount is used: the credentials of an
        offline root lie there during a ceremony alone.
        """
        self.serving("")
        self._watching.begin()

    async def close(self) -> None:
        """Give the tokens back that our logins made, and close all connections."""
        await self._watching.stop()
        await asyncio.gather(*(self._end(each) for each in self._sessions.values()))
        self._pool.close()
        await self._exchange.close()

    async def _end(self, session: VaultSession) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await session.close()
        except TimeoutError:
            log.warning("Vault token not revoked", reason=f"no answer within {CLOSE_SECONDS:g} s")

    def _session(self, name: str, login: LoginSettings) -> VaultSession:
        standing = Standing(name, self._clock)
        standing.on_change = self._changed
        keeper = TokenKeeper(
            name,
            self._login(login),
            caller=self._pool,
            standing=standing,
            observer=self._observer,
            monotonic=self._monotonic,
            pause=self._pause,
        )
        return VaultSession(
            keeper,
            http=self._http,
            pool=self._pool,
            standing=standing,
            clock=self._clock,
            observer=self._observer,
            monotonic=self._monotonic,
        )

    def _login(self, settings: LoginSettings) -> Login:
        """Return the one login of an identity: what was unwrapped once is kept in there."""
        if settings not in self.logins:
            self.logins[settings] = make_login(settings, self._settings.state_dir)
        return self.logins[settings]

    def _changed(self, before: IdentityHealth, after: IdentityHealth) -> None:
        if not after.is_up:
            log.warning(
                "Vault cannot be used",
                identity=after.identity,
                state=after.state,
                reason=after.reason,
            )
        elif not before.is_up:
            log.info("Vault can be used again", identity=after.identity, state=after.state)
            if self.on_return is not None:
                self.on_return()

    async def _watch(self) -> None:
        """Look after what is down each second, and after all the rest now and then."""
        looked = -QUIET_SECONDS
        while True:
            await self._probe()
            is_time = self._monotonic() - looked >= QUIET_SECONDS
            for session in tuple(self._sessions.values()):
                if is_time or not session.health().is_up:
                    await session.look()
            if is_time:
                looked = self._monotonic()
            await self._pause(PROBE_SECONDS)

    async def _probe(self) -> None:
        """Ask the nodes that failed whether they are back, and go on with what waited for them."""
        for address in self._addresses.failing():
            begun = self._addresses.now()
            try:
                await self._http.probe(address)
            except Away as fault:
                self._addresses.failed(address, fault, since=begun)
            except Broken:
                return
            else:
                self._addresses.answered(address)
