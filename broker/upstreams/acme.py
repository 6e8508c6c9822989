"""A CA that speaks ACME, behind the ``Upstream`` port.

One instance serves one community through its one account there.  It keeps nothing durable: what
it remembers of an order (where to finalize it) the CA tells again when asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, Protocol

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.ports import Clock, UpstreamOrder, UpstreamRequest
from broker.issuance.records import UpstreamAccountRecord
from broker.issuance.renewal_ports import RenewalAnswer
from broker.protocol import drafts
from broker.protocol.encoding import encode_base64url, format_timestamp, parse_json_object
from broker.protocol.exchange import (
    JSON,
    MAX_ANSWER_BYTES,
    Answer,
)
from broker.protocol.identifiers import Identifier
from broker.protocol.members import Members, ProtocolError, read_list, read_url
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import AccountStatus, Order, OrderStatus
from broker.upstreams.account import read_account
from broker.upstreams.authorizing import Authorizer, AuthorizingSettings
from broker.upstreams.client import AccountKey, AcmeClient
from broker.upstreams.gate import AccountGate
from broker.upstreams.issued import IssuedAtCa
from broker.upstreams.pacing import Pause, pause
from broker.upstreams.solvers import Solver

__all__ = ["AccountFinder", "AcmeUpstream", "AcmeUpstreamSettings", "read_order_list"]

ACCOUNT_MAX_AGE: Final = timedelta(seconds=10)
"""How long our own record of the account is believed before the store is asked again."""

MAX_REMEMBERED_ORDERS: Final = 4096
"""Most orders whose fixed parts are remembered; one that is forgotten costs one more request."""

_NOT_FOUND: Final = 404
"""Status of what is not there (RFC 9110 §15.5.5)."""

MAX_SOUGHT_PAGES: Final = 20
"""Most pages of the account's orders list that a search for a lost order reads."""

MAX_SOUGHT_ORDERS: Final = 200
"""Most orders that a search for a lost one reads; past either bound it is lost."""

_FINAL: Final = (OrderStatus.VALID, OrderStatus.INVALID)
_ACCOUNT_FAULTS: Final = frozenset(
    {
        ProblemType.ACCOUNT_DOES_NOT_EXIST,
        ProblemType.BAD_SIGNATURE_ALGORITHM,
        ProblemType.EXTERNAL_ACCOUNT_REQUIRED,
        ProblemType.USER_ACTION_REQUIRED,
    }
)
"""Refusals of ourselves rather than of an order: a person has to act, and then all goes on."""


class AccountFinder(Protocol):
    """Finds our account at a CA; the store does."""

    async def find_upstream_account(
        self, upstream: str, community: str
    ) -> UpstreamAccountRecord | None:
        """Return the record, or None where nothing is registered."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AcmeUpstreamSettings:
    """One CA as one community uses it."""

    name: str
    community: str
    authorizing: AuthorizingSettings = field(default_factory=AuthorizingSettings)
    lists_orders: bool = True
    """Whether the CA may be asked for its list of our orders."""

    @property
    def poll_interval(self) -> timedelta:
        """Return the shortest time between finalize and the first look at the order.

        Pebble, for one, hangs for good when it is asked within milliseconds.
        """
        return self.authorizing.poll_interval


@dataclass(frozen=True, slots=True)
class _FixedParts:
    """What never changes in an order (RFC 8555 §7.1.3)."""

    authorizations: tuple[str, ...]
    finalize: str


class AcmeUpstream:
    """Implements ``issuance.ports.Upstream`` over RFC 8555."""

    def __init__(
        self,
        settings: AcmeUpstreamSettings,
        *,
        client: AcmeClient,
        accounts: AccountFinder,
        solvers: Sequence[Solver],
        clock: Clock,
        pause: Pause = pause,
        gate: AccountGate | None = None,
    ) -> None:
        self._settings = settings
        self._gate = AccountGate() if gate is None else gate
        self._client = client
        self._accounts = accounts
        self._clock = clock
        self._authorizer = Authorizer(
            settings.authorizing, solvers=solvers, clock=clock, pause=pause
        )
        self._issued = IssuedAtCa(client, self._post)
        self._account: tuple[AccountKey, datetime, int] | None = None
        self._parts: dict[str, _FixedParts] = {}

    @property
    def is_local(self) -> bool:
        """Return False: orders live at the CA, and their URLs are worth an fsync."""
        return False

    async def open_order(self, request: UpstreamRequest) -> UpstreamOrder:
        """Send newOrder.  After Unreachable an order may exist: seek it before asking again."""
        directory = await self._client.directory()
        payload: dict[str, Any] = {"identifiers": [i.to_json() for i in request.identifiers]}
        if request.profile is not None:
            payload[drafts.PROFILE_MEMBER] = request.profile
        if request.not_after is not None:
            payload["notAfter"] = format_timestamp(request.not_after)
        if request.replaces is not None and directory.renewal_info is not None:
            payload["replaces"] = request.replaces
        subject = ",".join(sorted(identifier.value for identifier in request.identifiers))
        async with self._gate.using():  # so that the account is the one that the order is of
            answer = await self._post(directory.new_order, payload, subject=subject)
            account_url = (await self._account_key()).account_url
        if answer.location is None:
            raise Broken(f"{answer.url} named no order URL, expected a Location header")
        order = _read_order(answer, request.identifiers)
        opened = self._shown(answer.location, order, answer, is_watched=False)
        return replace(opened, account_url=account_url)

    async def seek_order(
        self, request: UpstreamRequest, known: Collection[str]
    ) -> UpstreamOrder | None:
        """Look through the account's orders for one that answers *request*.

        Only one that shows exactly what was asked for is taken, and only while it is pending or
        ready.  None when the CA offers no list or may not be asked for it, or holds no such order.
        """
        if not self._settings.lists_orders:
            return None
        async with self._gate.using():
            key = await self._account_key()
            try:
                account = await read_account(self._client, key)
            except Refused as refusal:
                raise await self._attributed(refusal, key) from refusal
        page, left = account.orders, MAX_SOUGHT_ORDERS
        for _ in range(MAX_SOUGHT_PAGES):
            if page is None:
                return None
            urls, page = await self._listed(page)
            for url in [url for url in urls if url not in known][:left]:
                left -= 1
                found = await self._matching(url, request)
                if found is not None:
                    return replace(found, account_url=key.account_url)
        return None

    async def authorize(self, order: UpstreamOrder) -> UpstreamOrder:
        """Answer the challenges until the order leaves PENDING; authorizations that are valid
        already need none.  Published answers are withdrawn again, whatever happens."""
        if order.status is not OrderStatus.PENDING:
            return order
        # One key from the first answer to the CA's verdict: what is published is made of it.
        async with self._gate.using():
            return await self._authorize(order, await self._account_key())

    async def _authorize(self, order: UpstreamOrder, key: AccountKey) -> UpstreamOrder:
        async def post(url: str, payload: Mapping[str, Any] | None) -> Answer:
            return await self._post(url, payload, subject=order.url)

        await self._authorizer.authorize(
            (await self._fixed_parts(order)).authorizations,
            ordered=order.identifiers,
            thumbprint=key.jwk.thumbprint,
            post=post,
        )
        pacing = self._authorizer.pacing()
        while True:
            answer = await self._post(order.url, None, subject=order.url)
            now = self._shown(
                order.url, _read_order(answer, order.identifiers), answer, is_watched=False
            )
            if now.status is not OrderStatus.PENDING:
                return now
            if pacing.has_ended():
                raise Unreachable(f"{order.url} is still pending, its authorizations are valid")
            await pacing.wait(answer.retry_at)

    async def finalize(self, order: UpstreamOrder, csr_der: bytes) -> UpstreamOrder:
        """Send finalize once and return the order as answered (no polling)."""
        parts = await self._fixed_parts(order)
        payload = {"csr": encode_base64url(csr_der)}
        try:
            answer = await self._post(parts.finalize, payload, subject=order.url)
        except Refused as refusal:
            if refusal.problem.type is not ProblemType.ORDER_NOT_READY:
                raise
            # An earlier finalize may have got through: the order tells, the refusal does not.
            seen = await self.read_order(order.url)
            if seen.status is OrderStatus.READY:
                raise Unreachable(
                    f"{order.url} is shown as ready, and its finalize refused as not ready",
                    retry_at=seen.retry_at,
                ) from refusal
            if seen.status is OrderStatus.INVALID:
                # It had ended before: that is no answer to this finalize.
                raise
            return seen
        shown = _read_order(answer, order.identifiers)
        return self._shown(order.url, shown, answer, is_watched=True)

    async def read_order(self, url: str) -> UpstreamOrder:
        """Read the order at *url*; raises Refused when the CA knows no such order."""
        answer = await self._post(url, None, subject=url)
        return self._shown(url, _read_order(answer, None), answer, is_watched=True)

    async def withdraw(self, order: UpstreamOrder) -> None:
        """Deactivate an authorization of the order, which ends it (RFC 8555 §7.1.6, §7.5.2)."""
        parts = await self._fixed_parts(order)
        if not parts.authorizations:
            raise Broken(f"{order.url} has no authorization that could be deactivated")
        given_up = {"status": "deactivated"}
        await self._post(parts.authorizations[0], given_up, subject=order.url)

    async def download(self, order: UpstreamOrder) -> bytes:
        """Return the PEM chain of a VALID order, exactly as sent, at most 100 kB."""
        return await self._issued.download(order)

    async def download_alternates(self, order: UpstreamOrder) -> Sequence[bytes]:
        """Return the other chains that the CA offers for a VALID order."""
        return await self._issued.download_alternates(order)

    async def revoke(self, certificate_der: bytes, reason: int) -> None:
        """Revoke; a certificate that is revoked already is no error."""
        await self._issued.revoke(certificate_der, reason)

    async def renewal_info(self, cert_id: str) -> RenewalAnswer | None:
        """Return what the CA says about a certificate's renewal; None where it offers no such."""
        return await self._issued.renewal_info(cert_id)

    async def _account_key(self) -> AccountKey:
        """Return the key of our account, speaking for it.

        Raises:
            Broken: Nothing is registered, or what is registered does not fit.
        """
        now = self._clock.now()
        changes = self._gate.changes
        if self._account is not None:
            known, since, seen = self._account
            if now - since < ACCOUNT_MAX_AGE and seen == changes:
                return known
        name, community = self._settings.name, self._settings.community
        record = await self._accounts.find_upstream_account(name, community)
        where = f"upstream '{name}' for community '{community}'"
        if record is None:
            raise Broken(f"{where} has no account; register one: penstock upstream register {name}")
        if record.directory_url != self._client.directory_url:
            raise Broken(
                f"{where} has its account at {record.directory_url}, "
                f"and the configuration names {self._client.directory_url}; register again"
            )
        key = await self._client.account_key(record.key_id)
        if key.jwk.thumbprint != record.thumbprint:
            raise Broken(f"{where} was registered with another key than '{record.key_id}' is now")
        key = key.speaking_for(record.account_url)
        self._account = key, now, changes
        return key

    async def _usable_key(self) -> AccountKey:
        """Return the key of our account; where there is none, nothing was sent."""
        try:
            return await self._account_key()
        except Broken as error:
            error.left_nothing = True
            raise

    async def _post(
        self,
        url: str,
        payload: Mapping[str, Any] | None,
        *,
        subject: str | None = None,
        accept: str = JSON,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> Answer:
        async with self._gate.using():
            try:
                key = await self._usable_key()
                try:
                    return await self._client.post(
                        url,
                        payload,
                        key=key,
                        subject=subject,
                        accept=accept,
                        max_answer_bytes=max_answer_bytes,
                    )
                except Refused as refusal:
                    raise await self._attributed(refusal, key) from refusal
            except Broken:
                # The key or the account may be lost: somebody looks, and says which.
                self._gate.is_doubted = True
                raise

    async def _attributed(
        self, refusal: Refused, key: AccountKey
    ) -> Refused | Unreachable | Broken:
        """Return whose fault a refusal is: the order's, or our account's.

        An order must not fail because our account was closed, or because the CA has new terms;
        nor while that cannot be told.
        """
        problem = refusal.problem
        name = self._settings.name
        if problem.type in _ACCOUNT_FAULTS:
            return Broken(f"upstream '{name}' refuses our account: {problem}", left_nothing=True)
        if not _may_mean_account(problem):
            return refusal
        # The same words for what is not ours to order, a closed account, and another's signature.
        try:
            account = await read_account(self._client, key)
        except Refused as second:
            return Broken(
                f"upstream '{name}' refuses our account: {second.problem}", left_nothing=True
            )
        except (Unreachable, Broken) as error:
            return Unreachable(
                f"{problem}; whether our account is still good is unknown: {error}",
                left_nothing=True,
            )
        if account.status is AccountStatus.VALID:
            return refusal
        return Broken(
            f"upstream '{name}': our account {key.account_url} is {account.status}",
            left_nothing=True,
        )

    async def _fixed_parts(self, order: UpstreamOrder) -> _FixedParts:
        if order.url not in self._parts:
            answer = await self._post(order.url, None, subject=order.url)
            shown = _read_order(answer, order.identifiers)
            self._shown(order.url, shown, answer, is_watched=False)
        return self._parts[order.url]

    async def _listed(self, page: str) -> tuple[tuple[str, ...], str | None]:
        """Return the order URLs on one page of the list, and the next page."""
        try:
            answer = await self._post(page, None)
            return read_order_list(answer), answer.next_url
        except (Refused, Broken):
            # A list that cannot be read is no list.  A search that failed for ever would cost
            # us the order; giving it up costs the CA one order that is never finalized.
            return (), None

    async def _matching(self, url: str, request: UpstreamRequest) -> UpstreamOrder | None:
        try:
            answer = await self._post(url, None)
            order = _read_order(answer, None)
        except (Refused, Broken):
            return None  # gone between the list and now, or nothing that we could use
        is_open = order.status in (OrderStatus.PENDING, OrderStatus.READY)
        asked = (frozenset(request.identifiers), request.profile, _whole(request.not_after))
        seen = (frozenset(order.identifiers), order.profile, order.not_after)
        if not is_open or seen != asked or order.replaces not in (None, request.replaces):
            return None
        return self._shown(url, order, answer, is_watched=False)

    def _shown(self, url: str, order: Order, answer: Answer, *, is_watched: bool) -> UpstreamOrder:
        """Return the order for the port, and remember its fixed parts.

        An order that is *watched* was finalized or may have been: until it is final it is not to
        be asked for again at once, whatever the CA says or leaves unsaid.
        """
        self._parts.pop(url, None)
        self._parts[url] = _FixedParts(order.authorizations, order.finalize)
        if len(self._parts) > MAX_REMEMBERED_ORDERS:
            del self._parts[next(iter(self._parts))]
        retry_at = answer.retry_at
        if is_watched or order.status is OrderStatus.PROCESSING:
            soonest = self._clock.now() + self._settings.poll_interval
            retry_at = max(retry_at, soonest) if retry_at is not None else soonest
        return UpstreamOrder(
            url=url,
            status=order.status,
            identifiers=order.identifiers,
            profile=order.profile,
            not_after=order.not_after,
            certificate_url=order.certificate,
            error=order.error,
            retry_at=None if order.status in _FINAL else retry_at,
        )


def _may_mean_account(problem: Problem) -> bool:
    """Return whether a CA says this of a closed account or a wrong signature as well."""
    if problem.type is ProblemType.UNAUTHORIZED:
        return True
    # Of a signature that does not verify CAs say malformed, and of an order that is not there they
    # say it too, as 404.
    return problem.type is ProblemType.MALFORMED and problem.status != _NOT_FOUND


def _read_order(answer: Answer, expected: Sequence[Identifier] | None) -> Order:
    """Return the order in an answer, for exactly the names it was opened for."""
    try:
        order = Order.from_json(answer.json())
    except ProtocolError as error:
        raise Broken(f"{answer.url}: {error}") from error
    if expected is not None and sorted(order.identifiers) != sorted(expected):
        shown = ", ".join(identifier.value for identifier in order.identifiers)
        raise Broken(f"{answer.url} shows an order for {shown or 'nothing'}, not for what we asked")
    return order


def read_order_list(answer: Answer) -> tuple[str, ...]:
    """Return the order URLs on one page of an account's list.

    Raises:
        Broken: It is no list of URLs.
    """
    try:
        # RFC 8555 §7.1.2.1 wants an object; step-ca sends the bare list.
        body = answer.verify_media_type(JSON).strip()
        wrapped = body if body.startswith(b"{") else b'{"orders":' + body + b"}"
        members = Members(parse_json_object(wrapped, what=f"answer of {answer.url}"), "orders")
        return members.optional("orders", read_list(read_url)) or ()
    except (Problem, ProtocolError) as error:
        raise Broken(f"{answer.url}: {error}") from error


def _whole(moment: datetime | None) -> datetime | None:
    """Return *moment* in the whole seconds in which it was sent."""
    return moment.replace(microsecond=0) if moment is not None else None
