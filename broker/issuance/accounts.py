"""Downstream accounts: register, find, update, deactivate (RFC 8555 §7.3)."""

from __future__ import annotations

import secrets

from broker.issuance.enrollment import Enrollment
from broker.issuance.errors import Conflict
from broker.issuance.events import Actor, Event, EventKind
from broker.issuance.ports import AccountStore, Clock
from broker.issuance.records import AccountRecord
from broker.issuance.settings import CommunitySettings, IssuanceSettings
from broker.protocol.jws import Jwk, ParsedBinding, VerifiedBinding, binding_refused
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.requests import AccountUpdate, NewAccount
from broker.protocol.resources import AccountStatus
from broker.protocol.transitions import AccountEvent, advance_account

__all__ = ["Accounts", "new_id"]


def new_id() -> str:
    """Return a fresh id: 128 random bits in hex, so that no id can be guessed or begin oddly."""
    return secrets.token_hex(16)


class Accounts:
    """The account workflow."""

    def __init__(
        self,
        store: AccountStore,
        enrollment: Enrollment,
        clock: Clock,
        settings: IssuanceSettings,
    ) -> None:
        self._store = store
        self._enrollment = enrollment
        self._clock = clock
        self._settings = settings

    async def register(
        self, community: str, key: Jwk, request: NewAccount, binding: ParsedBinding | None
    ) -> tuple[AccountRecord, bool]:
        """Return the account of *key*, and whether it was created just now.

        A key that has an account already gets that account, whatever else it says
        (RFC 8555 §7.3.1).

        Raises:
            Problem: accountDoesNotExist, userActionRequired, externalAccountRequired or
                unauthorized; the client must change its request.
        """
        existing = await self._store.find_account_by_key(community, key.thumbprint)
        if existing is not None:
            return _live(existing), False
        if request.only_return_existing:
            raise Problem(ProblemType.ACCOUNT_DOES_NOT_EXIST, "no account has this key")
        demands = self._settings.communities[community]
        _check_terms(demands, request)
        verified = await self._verify_binding(demands, binding)
        account = AccountRecord(
            account_id=new_id(),
            community=community,
            status=AccountStatus.VALID,
            jwk_json=key.canonical,
            thumbprint=key.thumbprint,
            contacts=request.contacts,
            terms_agreed=request.terms_agreed,
            eab_key_id=verified.key_id if verified else None,
            created_at=self._clock.now(),
        )
        try:
            kept = await self._store.create_account(
                account, self._created(account), eab_key_id=account.eab_key_id
            )
        except Conflict as lost:
            raise binding_refused() from lost
        return _live(kept), kept.account_id == account.account_id

    async def require(self, community: str, account_id: str) -> AccountRecord:
        """Return the live account; raises Problem when there is none or it is deactivated."""
        account = await self._store.find_account(account_id)
        if account is None or account.community != community:
            raise Problem(ProblemType.ACCOUNT_DOES_NOT_EXIST, "no such account here")
        return _live(account)

    async def update(self, account: AccountRecord, update: AccountUpdate) -> AccountRecord:
        """Change contacts, or deactivate (RFC 8555 §7.3.2, §7.3.6)."""
        if update.deactivate:
            return await self.deactivate(account, Actor(f"account:{account.account_id}"))
        if update.contacts is None or update.contacts == account.contacts:
            return account
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
        """Deactivate the account for good; its certificates stay as they are.

        Raises:
            Problem: unauthorized, when it is deactivated already.
        """
        status = advance_account(_live(account).status, AccountEvent.DEACTIVATED)
        event = self._event(EventKind.ACCOUNT_DEACTIVATED, account, actor)
        try:
            return await self._store.update_account(
                account.account_id,
                expected=account.status,
                status=status,
                contacts=None,
                event=event,
            )
        except Conflict as lost:
            raise _deactivated() from lost

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


def _check_terms(demands: CommunitySettings, request: NewAccount) -> None:
    if demands.terms_of_service is not None and not request.terms_agreed:
        raise Problem(
            ProblemType.USER_ACTION_REQUIRED,
            f"the terms of service at {demands.terms_of_service} have to be agreed to",
            links=(("terms-of-service", demands.terms_of_service),),
        )


def _deactivated() -> Problem:
    return Problem(ProblemType.UNAUTHORIZED, "this account is deactivated", status=401)


def _live(account: AccountRecord) -> AccountRecord:
    if account.status is not AccountStatus.VALID:
        raise _deactivated()
    return account
