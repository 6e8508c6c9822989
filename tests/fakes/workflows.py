"""Workflows that remember what they were asked, for trying the web without a store."""

from dataclasses import replace
from datetime import timedelta

from broker.issuance.handover import Handed
from broker.issuance.key_changes import KeyInUse
from broker.issuance.origins import NOWHERE, Origin
from broker.issuance.records import (
    AccountRecord,
    AuthorizationRecord,
    ChallengeRecord,
    OrderRecord,
    Proof,
)
from broker.issuance.renewals import Suggestion
from broker.protocol.challenges import ChallengeType
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.jws import Jwk, ParsedBinding
from broker.protocol.key_change import VerifiedKeyChange
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.renewal import parse_cert_id
from broker.protocol.requests import AccountUpdate, NewAccount, NewOrder, Revocation
from broker.protocol.resources import (
    AccountStatus,
    AuthorizationStatus,
    ChallengeStatus,
    OrderStatus,
)
from broker.web.workflows import Workflows
from tests.fakes.clock import START

CHAIN_PEM = b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"


def order_record(account_id: str, **changes: object) -> OrderRecord:
    """Return a pending order of *account_id* for one name."""
    order = OrderRecord(
        order_id="order1",
        account_id=account_id,
        community="default",
        status=OrderStatus.PENDING,
        identifiers=(Identifier(IdentifierType.DNS, "www.corp.example"),),
        authorization_ids=("authz1",),
        profile="server",
        is_profile_asked=False,
        not_before=None,
        not_after=None,
        created_at=START,
        expires_at=START + timedelta(hours=8),
        decision={},
        upstream="local",
        upstream_profile="server",
        cap_seconds=90 * 86400,
        ask_not_after=False,
    )
    return replace(order, **changes)  # type: ignore[arg-type]


def authorization_record(account_id: str, **changes: object) -> AuthorizationRecord:
    """Return a pending authorization with an http-01 and a dns-01 challenge."""
    authorization = AuthorizationRecord(
        authorization_id="authz1",
        order_id="order1",
        account_id=account_id,
        community="default",
        identifier=Identifier(IdentifierType.DNS, "www.corp.example"),
        is_wildcard=False,
        status=AuthorizationStatus.PENDING,
        expires_at=START + timedelta(hours=8),
        proof=None,
        challenges=(
            ChallengeRecord(
                challenge_id="chall1",
                type=ChallengeType.HTTP_01,
                token="tokentokentokentoken",
                status=ChallengeStatus.PENDING,
            ),
            ChallengeRecord(
                challenge_id="chall2",
                type=ChallengeType.DNS_01,
                token="tokentokentokentoken2",
                status=ChallengeStatus.PENDING,
            ),
        ),
    )
    return replace(authorization, **changes)  # type: ignore[arg-type]


class FakeAccounts:
    """Accounts in a dictionary."""

    def __init__(self) -> None:
        self.accounts: dict[str, AccountRecord] = {}
        self.bindings: list[ParsedBinding | None] = []

    async def register(
        self,
        community: str,
        key: Jwk,
        request: NewAccount,
        binding: ParsedBinding | None,
        *,
        origin: Origin,
    ) -> tuple[AccountRecord, bool]:
        self.bindings.append(binding)
        for account in self.accounts.values():
            if (account.community, account.thumbprint) == (community, key.thumbprint):
                return account, False
        if request.only_return_existing:
            raise Problem(ProblemType.ACCOUNT_DOES_NOT_EXIST, "no account has this key")
        account = AccountRecord(
            account_id=f"acct{len(self.accounts) + 1}",
            community=community,
            status=AccountStatus.VALID,
            jwk_json=key.canonical,
            thumbprint=key.thumbprint,
            contacts=request.contacts,
            terms_agreed=request.terms_agreed,
            eab_key_id=None,
            created_at=START,
        )
        self.accounts[account.account_id] = account
        return account, True

    async def require(self, community: str, account_id: str) -> AccountRecord:
        account = self.accounts.get(account_id)
        if account is None or account.community != community:
            raise Problem(ProblemType.ACCOUNT_DOES_NOT_EXIST, "no such account here")
        if account.status is not AccountStatus.VALID:
            raise Problem(ProblemType.UNAUTHORIZED, "this account is deactivated", status=401)
        return account

    async def update(self, account: AccountRecord, update: AccountUpdate) -> AccountRecord:
        changed = replace(
            account,
            contacts=account.contacts if update.contacts is None else update.contacts,
            status=AccountStatus.DEACTIVATED if update.deactivate else account.status,
        )
        self.accounts[account.account_id] = changed
        return changed


class FakeKeyChanges:
    """Gives every account the key that it wants, unless a test says who has it."""

    def __init__(self, accounts: FakeAccounts) -> None:
        self._accounts = accounts
        self.holder: str | None = None

    async def change(self, account: AccountRecord, change: VerifiedKeyChange) -> AccountRecord:
        if self.holder is not None:
            raise KeyInUse(self.holder)
        new_key = change.new_key
        changed = replace(account, jwk_json=new_key.canonical, thumbprint=new_key.thumbprint)
        self._accounts.accounts[account.account_id] = changed
        return changed


class FakeOrders:
    """One order, whose state a test sets."""

    def __init__(self) -> None:
        self.asked: list[NewOrder] = []
        self.csrs: list[bytes] = []
        self.origins: list[Origin] = []
        self.changes: dict[str, object] = {}
        self.error: Exception | None = None
        self.pages: dict[str | None, tuple[list[str], str | None]] = {None: ([], None)}
        self.pre_authorized: list[Identifier] = []

    async def list(self, account: AccountRecord, after: str | None) -> tuple[list[str], str | None]:
        if after not in self.pages:
            raise Problem(ProblemType.MALFORMED, "no such page", status=404)
        return self.pages[after]

    async def pre_authorize(
        self, account: AccountRecord, identifier: Identifier, *, origin: Origin = NOWHERE
    ) -> AuthorizationRecord:
        self.origins.append(origin)
        self.pre_authorized.append(identifier)
        made = authorization_record(account.account_id)
        return replace(made, identifier=identifier, order_id=None)

    def _order(self, account: AccountRecord) -> OrderRecord:
        if self.error is not None:
            raise self.error
        return order_record(account.account_id, **self.changes)

    async def create(
        self, account: AccountRecord, request: NewOrder, *, origin: Origin = NOWHERE
    ) -> OrderRecord:
        self.asked.append(request)
        self.origins.append(origin)
        return self._order(account)

    async def read(self, account: AccountRecord, order_id: str) -> OrderRecord:
        return self._order(account)

    async def finalize(
        self, account: AccountRecord, order_id: str, csr_der: bytes, *, origin: Origin = NOWHERE
    ) -> OrderRecord:
        self.csrs.append(csr_der)
        self.origins.append(origin)
        return self._order(account)


class FakeHandover:
    """One certificate with as many chains as a test says."""

    def __init__(self) -> None:
        self.chains = 1

    async def certificate(self, account: AccountRecord, certificate_id: str, number: int) -> Handed:
        if number >= self.chains:
            raise Problem(ProblemType.MALFORMED, "no such chain", status=404)
        pem = CHAIN_PEM * (number + 1)
        return Handed(chain_pem=pem, number=number, chains=self.chains)


class FakeRenewals:
    """The windows that a test puts there, by CertID."""

    def __init__(self) -> None:
        self.known: dict[str, Suggestion] = {}

    async def suggestion(self, community: str, cert_id: str) -> Suggestion:
        if parse_cert_id(cert_id) not in self.known:
            raise Problem(ProblemType.MALFORMED, "no such certificate here", status=404)
        return self.known[cert_id]


class FakeAuthorizations:
    """One authorization; a response makes its first challenge valid."""

    def __init__(self) -> None:
        self.changes: dict[str, object] = {}
        self.responded: list[tuple[str, str]] = []

    async def read(self, account: AccountRecord, authorization_id: str) -> AuthorizationRecord:
        return authorization_record(account.account_id, **self.changes)

    async def respond(
        self, account: AccountRecord, authorization_id: str, challenge_id: str
    ) -> AuthorizationRecord:
        self.responded.append((authorization_id, challenge_id))
        found = await self.read(account, authorization_id)
        first, *others = found.challenges
        first = replace(first, status=ChallengeStatus.PROCESSING)
        return replace(found, challenges=(first, *others), proof=Proof.CHALLENGE)

    async def deactivate(
        self, account: AccountRecord, authorization_id: str
    ) -> AuthorizationRecord:
        found = await self.read(account, authorization_id)
        return replace(found, status=AuthorizationStatus.DEACTIVATED)


class FakeRevocations:
    """Remembers who revoked what."""

    def __init__(self) -> None:
        self.revoked: list[tuple[Revocation, AccountRecord | None, Jwk | None]] = []

    async def revoke(
        self,
        community: str,
        request: Revocation,
        *,
        account: AccountRecord | None,
        key: Jwk | None,
    ) -> None:
        self.revoked.append((request, account, key))


class FakeWorkflows:
    """All of them together."""

    def __init__(self) -> None:
        self.accounts = FakeAccounts()
        self.orders = FakeOrders()
        self.authorizations = FakeAuthorizations()
        self.revocations = FakeRevocations()
        self.handover = FakeHandover()
        self.renewals = FakeRenewals()
        self.key_changes = FakeKeyChanges(self.accounts)

    def as_workflows(self) -> Workflows:
        """Return them as the web takes them."""
        return Workflows(
            accounts=self.accounts,
            orders=self.orders,
            authorizations=self.authorizations,
            revocations=self.revocations,
            handover=self.handover,
            renewals=self.renewals,
            key_changes=self.key_changes,
        )
