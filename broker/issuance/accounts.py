"""Downstream accounts: register, find, update, deactivate (RFC 8555 §7.3)."""

from __future__ import annotations

import secrets
from typing import Protocol

from broker.issuance.enrollment import Enrollment
from broker.issuance.errors import Conflict
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.freezes import Freezes, verify_unfrozen
from broker.issuance.origins import NOWHERE, Origin
from broker.issuance.ports import AccountChangeStore, AccountClosing, AccountStore, Clock
from broker.issuance.records import AccountRecord
from broker.issuance.settings import CommunitySettings, IssuanceSettings
from broker.issuance.terms import agreed_version, check_agreed
from broker.protocol.jws import Jwk, ParsedBinding, VerifiedBinding, binding_refused
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import AccountUpdate, NewAccount
from broker.protocol.resources import AccountStatus, AuthorizationStatus, OrderStatus
from broker.protocol.transitions import (
    AccountEvent,
    AuthorizationEvent,
    OrderEvent,
    advance_account,
    advance_authorization,
    advance_order,
)

__all__ = ["Accounts", "KnownAccounts", "new_id"]


class Admitting(Protocol):
    """Asks people about keys that bring no binding (``admissions.Admissions``)."""

    async def admit(
        self, community: str, key: Jwk, request: NewAccount, origin: Origin
    ) -> str | None:
        """Return the binding key to bind to, None for none; raises Problem where people have not
        said yes."""
        ...


class KnownAccounts(AccountStore, AccountChangeStore, Protocol):
    """The store of accounts, with what changes them."""


def new_id() -> str:
    """Return a fresh id: 128 random bits in hex, so that no id can be guessed or begin oddly."""
    return secrets.token_hex(16)


class Accounts:
    """The account workflow."""

    def __init__(
        self,
        store: KnownAccounts,
        enrollment: Enrollment,
        clock: Clock,
        settings: IssuanceSettings,
        *,
        admissions: Admitting | None = None,
        freezes: Freezes | None = None,
    ) -> None:
        self._store = store
        self._freezes = freezes
        self._admissions = admissions
        self._enrollment = enrollment
        self._clock = clock
        self._settings = settings

    async def register(
        self,
        community: str,
        key: Jwk,
        request: NewAccount,
        binding: ParsedBinding | None,
        *,
        origin: Origin = NOWHERE,
    ) -> tuple[AccountRecord, bool]:
        """Return the account of *key*, and whether it was created just now.

        A key that has an account already gets that account, whatever else it says
        (RFC 8555 §7.3.1); it may agree to terms that changed.

        Raises:
            Problem: accountDoesNotExist, userActionRequired, externalAccountRequired or
                unauthorized; the client must change its request.
        """
        existing = await self._store.find_account_by_key(community, key.thumbprint)
        if existing is not None:
            agreed = await self._agree(_live(existing), is_agreeing=request.terms_agreed)
            return agreed, False
        if request.only_return_existing:
            raise Problem(ProblemType.ACCOUNT_DOES_NOT_EXIST, "no account has this key")
        demands = self._settings.communities[community]
        check_agreed(demands, is_agreeing=request.terms_agreed)
        key_id = None
        if binding is None and self._admissions is not None:
            key_id = await self._admissions.admit(community, key, request, origin)
        if key_id is None:
            verified = await self._verify_binding(demands, binding)
            key_id = verified.key_id if verified else None
        account = self._new_account(community, key, request, key_id)
        await verify_unfrozen(self._freezes, account, "new-account")
        try:
            kept = await self._store.create_account(
                account, self._created(account), eab_key_id=account.eab_key_id
            )
        except Conflict as lost:
            raise binding_refused() from lost
        return _live(kept), kept.account_id == account.account_id

    def _new_account(
        self, community: str, key: Jwk, request: NewAccount, key_id: str | None
    ) -> AccountRecord:
        demands = self._settings.communities[community]
        return AccountRecord(
            account_id=new_id(),
            community=community,
            status=AccountStatus.VALID,
            jwk_json=key.canonical,
            thumbprint=key.thumbprint,
            contacts=request.contacts,
            terms_agreed=request.terms_agreed,
            eab_key_id=key_id,
            created_at=self._clock.now(),
            binding=request.eab if key_id else None,
            terms_version=agreed_version(demands) if request.terms_agreed else None,
        )

    async def require(self, community: str, account_id: str) -> AccountRecord:
        """Return the live account; raises Problem when there is none or it is deactivated."""
        account = await self._store.find_account(account_id)
        if account is None or account.community != community:
            raise Problem(ProblemType.ACCOUNT_DOES_NOT_EXIST, "no such account here")
        return _live(account)

    async def update(self, account: AccountRecord, update: AccountUpdate) -> AccountRecord:
        """Change contacts, agree to terms that changed, or deactivate.

        RFC 8555 §7.3.2, §7.3.3 and §7.3.6.
        """
        if update.deactivate:
            return await self.deactivate(account, Actor(f"account:{account.account_id}"))
        account = await self._agree(account, is_agreeing=update.terms_agreed)
        if update.contacts is None or update.contacts == account.contacts:
            return account
        # Whoever holds a stolen key must not change who is written to about it.
        await verify_unfrozen(self._freezes, account, "account")
        event = self._event(EventKind.ACCOUNT_UPDATED, account)
        try:
            return await self._store.update_account(
                account.account_id,
                expected=account.status,
                status=account.status,
                contacts=update.contacts,
                event=event,
            )
        except Conflict as lost:
            raise _deactivated() from lost

    async def deactivate(self, account: AccountRecord, actor: Actor) -> AccountRecord:
        """Deactivate the account for good, with its unfinished orders and its authorizations.

        Its certificates stay as they are, and an order that the CA was asked for already still
        ends as it ends (RFC 8555 §7.3.6).

        Raises:
            Problem: unauthorized, when it is deactivated already.
        """
        ended = Problem(ProblemType.UNAUTHORIZED, "its account was deactivated")
        given_up = AuthorizationEvent.DEACTIVATED
        closing = AccountClosing(
            account_id=account.account_id,
            expected=_live(account).status,
            status=advance_account(account.status, AccountEvent.DEACTIVATED),
            order_expected=(OrderStatus.PENDING, OrderStatus.READY),
            order_status=advance_order(OrderStatus.PENDING, OrderEvent.AUTHORIZATION_FAILED),
            order_error=ended.to_json(),
            authorization_expected=(AuthorizationStatus.PENDING, AuthorizationStatus.VALID),
            authorization_status=advance_authorization(AuthorizationStatus.PENDING, given_up),
            event=self._event(EventKind.ACCOUNT_DEACTIVATED, account, actor),
            order_event=self._event(EventKind.ORDER_CANCELLED, account, actor),
        )
        try:
            return await self._store.close_account(closing)
        except Conflict as lost:
            raise _deactivated() from lost

    async def _agree(self, account: AccountRecord, *, is_agreeing: bool) -> AccountRecord:
        """Note that the account agrees to the terms in force, where it had not yet."""
        version = agreed_version(self._settings.communities[account.community])
        if not is_agreeing or version is None or account.terms_version == version:
            return account
        event = self._event(EventKind.ACCOUNT_AGREED, account, data={"terms_version": version})
        return await self._store.agree_to_terms(account.account_id, version, event)

    async def _verify_binding(
        self, demands: CommunitySettings, binding: ParsedBinding | None
    ) -> VerifiedBinding | None:
        if binding is not None:
            return await self._enrollment.verify(demands.name, binding)
        if demands.external_account_required:
            raise Problem(
                ProblemType.EXTERNAL_ACCOUNT_REQUIRED,
                f"community {demands.name!r} wants an external account binding; "
                "ask its operator for a key",
            )
        return None

    def _created(self, account: AccountRecord) -> Event:
        return self._event(
            EventKind.ACCOUNT_CREATED,
            account,
            data={"thumbprint": account.thumbprint, "eab_key_id": account.eab_key_id},
        )

    def _event(
        self,
        kind: EventKind,
        account: AccountRecord,
        actor: Actor | None = None,
        data: dict[str, object] | None = None,
    ) -> Event:
        return Event(
            kind=kind,
            at=self._clock.now(),
            actor=actor or Actor(f"account:{account.account_id}"),
            community=account.community,
            account_id=account.account_id,
            data=data or {},
        )


def _deactivated() -> Problem:
    return Problem(ProblemType.UNAUTHORIZED, "this account is deactivated", status=401)


def _live(account: AccountRecord) -> AccountRecord:
    if account.status is not AccountStatus.VALID:
        raise _deactivated()
    return account
