"""A CA inside the process: it signs for real, keeps a ledger, and misbehaves when told to.

It implements ``issuance.ports.Upstream`` as the ACME adapter does, with an order's true state in
its own ledger.  What it did is read there; what it is to do next is scripted with `fail`, `stall`
and the switches.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from broker.issuance.errors import Refused, Unreachable
from broker.issuance.ports import Clock, UpstreamOrder, UpstreamRequest
from broker.issuance.renewal_ports import RenewalAnswer
from broker.protocol.identifiers import Identifier
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from tests.fakes.stall import Stall

T = TypeVar("T")

DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A certificate about to be signed."""

    names: tuple[Identifier, ...]
    public_key: Any
    not_before: datetime
    not_after: datetime
    is_ca: bool = False
    usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.SERVER_AUTH,)


@dataclass(slots=True)
class CaOrder:
    """An order as the CA knows it."""

    url: str
    request: UpstreamRequest
    status: OrderStatus
    accepted: int = 0
    """Finalizes that the CA took."""
    polls_left: int = 0
    error: Problem | None = None
    csr_der: bytes = b""
    chain_pem: bytes = b""
    leaf_der: bytes = b""


class FakeUpstream:
    """One CA with one account."""

    def __init__(self, clock: Clock, name: str = "ca", *, is_local: bool = False) -> None:
        self.name = name
        self.is_local = is_local
        self.orders: dict[str, CaOrder] = {}
        self.calls: list[str] = []
        self.revoked: dict[str, int] = {}
        self.is_away = False
        self.is_coalescing = False
        self.lists_orders = True
        self.opens_ready = is_local
        self.honours_not_after = True
        self.lifetime = 90 * DAY
        self.polls = 0
        """Reads that find an order in processing after its finalize."""
        self.holds_back = False
        """Whether finalized orders stay in processing until `issue_held`."""
        self.shows_ready = False
        """Whether an order in processing is shown as ready."""
        self.retry_after: timedelta | None = None
        """How long it asks to be left alone about an order that is not over."""
        self.refuses_names: Problem | None = None
        """Why authorizations fail, and their order with them."""
        self.refuses_quietly = False
        """Whether that is shown by the order alone."""
        self.fails_after_finalize: Problem | None = None
        self.misissue: Callable[[Leaf], Leaf] = lambda leaf: leaf
        self.alternates: Callable[[CaOrder], Sequence[bytes]] = lambda _: ()
        """Other chains of an order's certificate."""
        self.renewals: Callable[[str], RenewalAnswer | None] = lambda _: None
        """What it says of a CertID; None: it offers no renewal information."""
        self.sends: list[bytes] = []
        """What the next downloads bring instead of the chain."""
        self._clock = clock
        self._numbers = itertools.count(1)
        self._script: dict[str, list[tuple[Exception, bool]]] = defaultdict(list)
        self._stalls: dict[str, list[Stall]] = defaultdict(list)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} root")])
        self.root = self._sign_root()

    # ------------------------------------------------------------------------------ the script

    def fail(self, method: str, outcome: Exception, *, times: int = 1, after: bool = False) -> None:
        """Let the next calls of *method* end in *outcome*, *after* their effect if so said."""
        self._script[method] += [(outcome, after)] * times

    def lose_answer(self, method: str, *, times: int = 1) -> None:
        """Do what the next calls of *method* ask for, and let nobody hear of it."""
        self.fail(method, Unreachable(f"answer to {method} was lost"), times=times, after=True)

    def stall(self, method: str, *, after: bool = False) -> Stall:
        """Let the next call of *method* wait, before its effect or *after* it."""
        made = Stall(after)
        self._stalls[method].append(made)
        return made

    def mend(self) -> None:
        """Forget what was scripted: from now on every call goes well."""
        self._script.clear()
        self._stalls.clear()

    def forget(self, url: str) -> None:
        """Know nothing of an order any more."""
        del self.orders[url]

    def expire(self, url: str) -> None:
        """Let an order that was not finalized end of age."""
        self.orders[url].status = OrderStatus.INVALID
        self.orders[url].error = Problem(ProblemType.MALFORMED, f"order {url} has expired")

    def issue_held(self) -> None:
        """Issue what was held back."""
        for order in self.orders.values():
            if order.status is OrderStatus.PROCESSING:
                self._issue(order)

    # ------------------------------------------------------------------------------ the ledger

    @property
    def issued(self) -> list[CaOrder]:
        """Orders with a certificate, oldest first."""
        return [order for order in self.orders.values() if order.leaf_der]

    @property
    def unfinalized(self) -> list[CaOrder]:
        """Orders that wait for a finalize."""
        waiting = (OrderStatus.PENDING, OrderStatus.READY)
        return [order for order in self.orders.values() if order.status in waiting]

    @property
    def accepted(self) -> int:
        """Finalizes that were taken, over all orders."""
        return sum(order.accepted for order in self.orders.values())

    def count(self, method: str) -> int:
        """Return how often *method* was called."""
        return self.calls.count(method)

    # ------------------------------------------------------------------------------- the port

    async def open_order(self, request: UpstreamRequest) -> UpstreamOrder:
        """See the port."""
        return await self._call("open_order", lambda: self._opened(request))

    async def seek_order(
        self, request: UpstreamRequest, known: Collection[str]
    ) -> UpstreamOrder | None:
        """See the port."""
        return await self._call("seek_order", lambda: self._sought(request, known))

    async def authorize(self, order: UpstreamOrder) -> UpstreamOrder:
        """See the port."""
        return await self._call("authorize", lambda: self._authorized(order.url))

    async def finalize(self, order: UpstreamOrder, csr_der: bytes) -> UpstreamOrder:
        """See the port."""
        return await self._call("finalize", lambda: self._finalized(order.url, csr_der))

    async def read_order(self, url: str) -> UpstreamOrder:
        """See the port."""
        return await self._call("read_order", lambda: self._read(url))

    async def withdraw(self, order: UpstreamOrder) -> None:
        """End the order, as the deactivation of an authorization does."""
        await self._call("withdraw", lambda: self._withdraw(order.url))

    def _withdraw(self, url: str) -> None:
        order = self._find(url)
        if order.status in (OrderStatus.PENDING, OrderStatus.READY):
            order.status = OrderStatus.INVALID

    async def download(self, order: UpstreamOrder) -> bytes:
        """See the port."""
        return await self._call("download", lambda: self._downloaded(order.url))

    async def download_alternates(self, order: UpstreamOrder) -> Sequence[bytes]:
        """See the port."""
        return await self._call(
            "download_alternates", lambda: self.alternates(self._find(order.url))
        )

    async def renewal_info(self, cert_id: str) -> RenewalAnswer | None:
        """See the port."""
        return await self._call("renewal_info", lambda: self.renewals(cert_id))

    async def revoke(self, certificate_der: bytes, reason: int) -> None:
        """See the port."""
        return await self._call("revoke", lambda: self._revoke(certificate_der, reason))

    async def _call(self, method: str, effect: Callable[[], T]) -> T:
        self.calls.append(method)
        await asyncio.sleep(0)
        if self.is_away:
            raise Unreachable(f"{self.name} is away", left_nothing=True)
        await self._meet(method, is_after=False)
        result = effect()
        await self._meet(method, is_after=True)
        return result

    async def _meet(self, method: str, *, is_after: bool) -> None:
        """Wait or fail where the script says so."""
        stalls = self._stalls[method]
        if stalls and stalls[0].is_after is is_after:
            await stalls.pop(0).wait()
        script = self._script[method]
        if script and script[0][1] is is_after:
            raise script.pop(0)[0]

    # ------------------------------------------------------------------------------ its effects

    def _opened(self, request: UpstreamRequest) -> UpstreamOrder:
        if self.is_local:
            url = f"local:{self.name}:{request.reference}"
            if url in self.orders:
                return self._shown(self.orders[url])
        else:
            url = f"https://{self.name}.example/order/{next(self._numbers)}"
        for order in self.unfinalized if self.is_coalescing else ():
            if set(order.request.identifiers) == set(request.identifiers):
                return self._shown(order)
        status = OrderStatus.READY if self.opens_ready else OrderStatus.PENDING
        self.orders[url] = CaOrder(url, request, status)
        return self._shown(self.orders[url])

    def _sought(self, request: UpstreamRequest, known: Collection[str]) -> UpstreamOrder | None:
        for order in self.unfinalized if self.lists_orders else ():
            asked = replace(request, reference=order.request.reference)
            if order.url not in known and order.request == asked:
                return self._shown(order)
        return None

    def _authorized(self, url: str) -> UpstreamOrder:
        order = self._find(url)
        if order.status is OrderStatus.PENDING:
            if self.refuses_names is not None:
                order.status, order.error = OrderStatus.INVALID, self.refuses_names
                if not self.refuses_quietly:
                    raise Refused(self.refuses_names)
            else:
                order.status = OrderStatus.READY
        return self._shown(order)

    def _finalized(self, url: str, csr_der: bytes) -> UpstreamOrder:
        order = self._find(url)
        if order.status is not OrderStatus.READY:
            detail = f"order {url} is {order.status}, not ready"
            raise Refused(Problem(ProblemType.ORDER_NOT_READY, detail))
        order.accepted += 1
        order.csr_der = csr_der
        order.status = OrderStatus.PROCESSING
        order.polls_left = self.polls
        self._go_on(order)
        return self._shown(order)

    def _read(self, url: str) -> UpstreamOrder:
        order = self._find(url)
        if order.status is OrderStatus.PROCESSING:
            order.polls_left -= 1
            self._go_on(order)
        return self._shown(order)

    def _downloaded(self, url: str) -> bytes:
        order = self._find(url)
        return self.sends.pop(0) if self.sends else order.chain_pem

    def _revoke(self, certificate_der: bytes, reason: int) -> None:
        if certificate_der not in [order.leaf_der for order in self.issued]:
            raise Refused(Problem(ProblemType.UNAUTHORIZED, "not a certificate of this CA"))
        self.revoked.setdefault(hashlib.sha256(certificate_der).hexdigest(), reason)

    def _find(self, url: str) -> CaOrder:
        if url not in self.orders:
            raise Refused(Problem(ProblemType.MALFORMED, f"no order at {url}", status=404))
        return self.orders[url]

    def _go_on(self, order: CaOrder) -> None:
        """End an order in processing, where its time has come."""
        if self.holds_back or order.polls_left > 0:
            return
        if self.fails_after_finalize is not None:
            order.status, order.error = OrderStatus.INVALID, self.fails_after_finalize
        else:
            self._issue(order)

    def _shown(self, order: CaOrder) -> UpstreamOrder:
        is_over = order.status in (OrderStatus.VALID, OrderStatus.INVALID)
        retry_after = None if is_over else self.retry_after
        is_disguised = self.shows_ready and order.status is OrderStatus.PROCESSING
        return UpstreamOrder(
            url=order.url,
            status=OrderStatus.READY if is_disguised else order.status,
            identifiers=order.request.identifiers,
            profile=order.request.profile,
            not_after=order.request.not_after,
            certificate_url=f"{order.url}/certificate" if order.leaf_der else None,
            error=order.error,
            retry_at=None if retry_after is None else self._clock.now() + retry_after,
        )

    # ----------------------------------------------------------------------------- its signature

    def _issue(self, order: CaOrder) -> None:
        csr = x509.load_der_x509_csr(order.csr_der)
        now = self._clock.now().replace(microsecond=0)
        asked = order.request.not_after if self.honours_not_after else None
        leaf = self.misissue(
            Leaf(
                names=order.request.identifiers,
                public_key=csr.public_key(),
                not_before=now,
                not_after=asked or now + self.lifetime,
            )
        )
        certificate = self._sign_leaf(leaf)
        order.leaf_der = certificate.public_bytes(Encoding.DER)
        order.chain_pem = certificate.public_bytes(Encoding.PEM) + self.root.public_bytes(
            Encoding.PEM
        )
        order.status = OrderStatus.VALID

    def _sign_leaf(self, leaf: Leaf) -> x509.Certificate:
        names = [x509.DNSName(name.value) for name in leaf.names]
        builder = self._builder(leaf.public_key, leaf.not_before, leaf.not_after)
        builder = builder.subject_name(x509.Name([]))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=leaf.is_ca, path_length=None), critical=True
        )
        if leaf.usages:
            usages = x509.ExtendedKeyUsage(leaf.usages)
            builder = builder.add_extension(usages, critical=False)
        return builder.sign(self._key, hashes.SHA256())

    def _sign_root(self) -> x509.Certificate:
        now = self._clock.now()
        builder = self._builder(self._key.public_key(), now - DAY, now + 3650 * DAY)
        builder = builder.subject_name(self._name)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        return builder.sign(self._key, hashes.SHA256())

    def _builder(self, key: Any, start: datetime, end: datetime) -> x509.CertificateBuilder:
        issuer_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(issuer_id, critical=False)
        )
