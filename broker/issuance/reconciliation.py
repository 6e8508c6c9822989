"""A restored store is compared with its CAs before anything is changed by it.

Every upstream order that a record knows is read again and moved on.  What the CA lists and the
store does not know is matched where that is safe, and otherwise counted and reported.  What cannot
be looked at is a loss that a person accepts by the upstream's name, or the broker stays as it is.

Two things must not happen afterwards: that an order which was finalized after the backup is taken
for another key, whose certificate would then be revoked while it is in use; and that an order
whose certificate exists is ordered again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from broker.issuance.dispatcher import Dispatcher
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.ports import (
    Clock,
    EabStore,
    OrderStore,
    Upstream,
    UpstreamOrder,
    Upstreams,
    WorkStore,
)
from broker.issuance.reconciling import (
    Report,
    RestorationStore,
    UpstreamLedger,
    UpstreamReport,
    is_answer_to,
    key_of_csr,
    parse_leaf,
)
from broker.issuance.records import Job, JobKind, WorkRecord, WorkStatus
from broker.issuance.standstill import Standstill
from broker.protocol.certificates import ChainError
from broker.protocol.resources import OrderStatus

__all__ = ["Reconciliation"]

MAX_UNKNOWN: Final = 5_000
"""Most orders that a CA lists and we don't know that are read one by one; at ten a second that
takes eight minutes, and a backup that old needs a person anyway."""


MAX_PROBED: Final = 20
"""Most orders of ours that a CA does not list and that are read to see whether it lists those that
are done; one that is tells, and ended ones tell nothing."""


class Reconciliation:
    """Compares, reports, and lifts the standstill; see the module."""

    def __init__(
        self,
        *,
        store: RestorationStore,
        works: WorkStore,
        orders: OrderStore,
        keys: EabStore,
        upstreams: Upstreams,
        ledger: UpstreamLedger,
        dispatcher: Dispatcher,
        standstill: Standstill,
        clock: Clock,
    ) -> None:
        self._store = store
        self._works = works
        self._orders = orders
        self._keys = keys
        self._upstreams = upstreams
        self._ledger = ledger
        self._dispatcher = dispatcher
        self._standstill = standstill
        self._clock = clock
        self._running = asyncio.Lock()

    async def run(
        self, accepted: Collection[str] = (), actor: Actor = SYSTEM
    ) -> dict[str, object] | None:
        """Compare with every CA, and lift the standstill when nothing stands in the way.

        *accepted* names the upstreams whose losses a person accepts.  Returns the report, or None
        when nothing has to be reconciled.
        """
        async with self._running:
            restoration = self._standstill.restoration
            if restoration is None:
                return None
            report = await self._look(frozenset(accepted))
            document = report.to_json()
            await self._store.save_report(restoration.restoration_id, document)
            if not report.in_the_way:
                await self._store.end_restoration(
                    restoration.restoration_id,
                    self._clock.now(),
                    self._event(EventKind.STORE_RECONCILED, None, actor, _summary(report)),
                )
                self._standstill.lift()
            return document

    async def _look(self, accepted: frozenset[str]) -> Report:
        living: dict[tuple[str, str], list[WorkRecord]] = {
            pair: [] for pair in await self._ledger.accounts()
        }
        for work in await self._store.living_work():
            living.setdefault((work.upstream, work.community), []).append(work)
        found = []
        for (upstream, community), works in living.items():
            report = UpstreamReport(upstream=upstream, community=community)
            look = _Look(self, report, is_accepted=upstream in accepted)
            try:
                await look.run(works)
            except (Unreachable, Broken) as error:
                report.lose(f"cannot be looked at: {error.reason}")
            except Refused as refusal:
                report.lose(f"cannot be looked at: {refusal.problem}")
            if report.losses and upstream in accepted:
                await self._give_up(works)
            found.append(report)
        return Report(
            at=self._clock.now(),
            upstreams=tuple(found),
            notes=await self._notes(),
            accepted=accepted,
        )

    async def _give_up(self, works: Sequence[WorkRecord]) -> None:
        """Never give anybody an upstream order that nobody could look at.

        It may have been finalized: its certificate would be withheld from the next asker, and
        revoked while somebody uses it.
        """
        for work in works:
            if work.taken_by is None and work.order_url is not None:
                try:
                    await self._works.change_work(
                        work.work_id,
                        expected=(WorkStatus.OPENED, WorkStatus.INTENDED),
                        status=WorkStatus.DEAD,
                        only_untaken=True,
                    )
                except Conflict:
                    continue
            elif work.taken_by is not None:
                self.go_on(work.taken_by)

    async def _notes(self) -> tuple[str, ...]:
        """Return what nobody can know."""
        restoration = self._standstill.restoration
        since = restoration.backup_at if restoration else self._clock.now()
        when = f"{since:%Y-%m-%dT%H:%M:%SZ}"
        unbound = [
            key.key_id
            for key in await self._keys.list_eab_keys(None)
            if not key.is_reusable and key.bound_account_id is None and key.revoked_at is None
        ]
        notes = [
            f"orders, accounts and revocations that were acknowledged after {when} are not here",
            (
                f"certificates that a built-in CA signed after {when} are not in its ledger: "
                "serials are drawn at random and CRL numbers leave a gap, but what was revoked "
                "since is not in its CRL; revoke it again"
            ),
            f"binding keys that were revoked after {when} are good again, minted ones are gone",
        ]
        if unbound:
            shown = ", ".join(unbound[:20])
            notes.append(
                f"{len(unbound)} single-use binding keys may have been bound since: {shown}"
            )
        return tuple(notes)

    def go_on(self, order_id: str) -> None:
        """Have an order that is processing go on at once."""
        self._dispatcher.kick(Job(kind=JobKind.FULFIL, subject=order_id, due_at=self._clock.now()))

    def _event(
        self, kind: EventKind, work: WorkRecord | None, actor: Actor, data: Mapping[str, object]
    ) -> Event:
        return Event(
            kind=kind,
            at=self._clock.now(),
            actor=actor,
            community=work.community if work else None,
            order_id=work.taken_by if work else None,
            upstream=work.upstream if work else None,
            data=data,
        )


class _Look:
    """The look at one upstream for one community."""

    def __init__(
        self, reconciliation: Reconciliation, report: UpstreamReport, *, is_accepted: bool
    ) -> None:
        self._all = reconciliation
        self._report = report
        self._is_accepted = is_accepted
        self._unknown: dict[str, UpstreamOrder] = {}
        self._is_listed = False

    async def run(self, works: Sequence[WorkRecord]) -> None:
        """Read everything again and settle each of *works*.

        Raises:
            Refused: The CA refuses us.
            Unreachable: It cannot be looked at now.
            Broken: It cannot be looked at before a person did something.
        """
        name, community = self._report.upstream, self._report.community
        upstream = self._all._upstreams.get(name, community)
        if upstream.is_local:
            self._report.known = len(works)
            for work in works:
                if work.taken_by is not None:
                    self._go_on(work.taken_by)
            return
        for fault in await self._all._ledger.check(name, community):
            self._report.lose(
                f"our account is not as it was when the backup was made: {fault}; recover it with "
                f"penstock upstream recover {name}, which says what is wrong"
            )
        if self._report.losses:
            return
        await self._read_list(upstream)
        for work in works:
            await self._settle(upstream, work)
        self._report.unknown = [_shown(order) for order in self._unknown.values()]

    async def _read_list(self, upstream: Upstream) -> None:
        name, community = self._report.upstream, self._report.community
        listing = await self._all._ledger.list_orders(name, community)
        if listing is None:
            self._report.lose(
                "offers no list of orders, so that what was ordered there after the backup is not "
                "known; what our records know has been looked at"
            )
            return
        self._report.listed = len(listing.urls)
        known = await self._all._works.known_urls(name, community)
        strange = [url for url in listing.urls if url not in known]
        if not listing.is_whole or len(strange) > MAX_UNKNOWN:
            self._report.lose(
                f"lists {len(strange)} orders that are not known here, more than are looked at"
            )
        for url in strange[:MAX_UNKNOWN]:
            try:
                self._unknown[url] = await upstream.read_order(url)
            except Refused:
                continue  # gone between the list and now
        missing = known.difference(listing.urls)
        self._is_listed = listing.is_whole and not await self._omits_done(upstream, missing)

    async def _omits_done(self, upstream: Upstream, missing: Collection[str]) -> bool:
        """Return whether the CA leaves out orders that gave a certificate.

        It may (RFC 8555 §7.1.2.1), and step-ca does: its list tells of nothing that was issued.
        """
        for url in sorted(missing)[:MAX_PROBED]:
            try:
                is_done = (await upstream.read_order(url)).status is OrderStatus.VALID
            except Refused:
                continue
            if is_done:
                self._report.lose(
                    "lists no orders that are done, so that what was issued there after the backup "
                    "is not known; what our records know has been looked at"
                )
                return True
        return False

    async def _settle(self, upstream: Upstream, work: WorkRecord) -> None:
        """Bring one record to where its order at the CA stands."""
        seen = None
        if work.order_url is not None:
            self._report.known += 1
            try:
                seen = await upstream.read_order(work.order_url)
            except Refused:
                seen = None
        is_gone = seen is None or seen.status is OrderStatus.INVALID
        if work.taken_by is not None:
            # While its own order stands it cannot be ordered a second time.
            if not is_gone or await self._find_successor(upstream, work) or self._is_accepted:
                self._go_on(work.taken_by)
            return
        if is_gone:
            # It may have been opened only after the backup was made.
            seen = next((one for one in self._unknown.values() if is_answer_to(one, work)), None)
        if seen is not None:
            await self._settle_untaken(upstream, work, seen)

    async def _settle_untaken(
        self, upstream: Upstream, work: WorkRecord, seen: UpstreamOrder
    ) -> None:
        """Look whether an order that nobody had taken was finalized after the backup."""
        if seen.status is OrderStatus.PROCESSING:
            self._report.lose(f"{seen.url} was finalized after the backup and is not done yet")
            return
        if seen.status is not OrderStatus.VALID:
            return
        found = await self._download(upstream, seen)
        if found is None:
            self._report.lose(f"{seen.url} gives no certificate that can be read")
            return
        facts, key = found
        await self._all._store.recover_work(
            work.work_id,
            order_url=seen.url,
            spki_sha256=key,
            fingerprint=str(facts["fingerprint"]),
            event=self._all._event(EventKind.UPSTREAM_ORDER_RECOVERED, work, SYSTEM, facts),
        )
        self._unknown.pop(seen.url, None)
        self._report.recovered.append(facts)

    async def _find_successor(self, upstream: Upstream, work: WorkRecord) -> bool:
        """Find the order that an order of ours was given after the backup, by its very key.

        Returns whether the order may go on: it has its successor, or certainly none.
        """
        is_certain = self._is_listed
        order = await self._all._orders.load_order(work.taken_by or "")
        wanted = key_of_csr(order.csr_der) if order is not None else None
        for seen in list(self._unknown.values()):
            if not is_answer_to(seen, work):
                continue
            if seen.status is OrderStatus.PROCESSING:
                self._report.lose(f"{seen.url} was finalized after the backup and is not done yet")
                is_certain = False
            if seen.status is not OrderStatus.VALID:
                continue
            found = await self._download(upstream, seen)
            if found is not None and found[1] == wanted:
                await self._all._store.repoint_work(
                    work.work_id,
                    order_url=seen.url,
                    event=self._all._event(
                        EventKind.UPSTREAM_ORDER_RECOVERED, work, SYSTEM, found[0]
                    ),
                )
                del self._unknown[seen.url]
                self._report.recovered.append(found[0])
                return True
        if not self._is_listed:
            self._report.lose(
                f"order {work.taken_by} was on its way there when the backup was made: whether its "
                "certificate was issued since is not known, and it would be ordered again"
            )
        return is_certain

    def _go_on(self, order_id: str) -> None:
        self._report.going_on.append(order_id)
        self._all.go_on(order_id)

    async def _download(
        self, upstream: Upstream, order: UpstreamOrder
    ) -> tuple[dict[str, object], str] | None:
        try:
            chain, key = parse_leaf(await upstream.download(order))
        except (ChainError, Refused):
            return None
        leaf = chain.leaf
        facts: dict[str, object] = {
            "order_url": order.url,
            "identifiers": [str(one) for one in sorted(leaf.identifiers)][:100],
            "serial": leaf.serial,
            "fingerprint": leaf.fingerprint,
            "not_after": leaf.not_after.isoformat(),
        }
        return facts, key


def _shown(order: UpstreamOrder) -> dict[str, object]:
    return {
        "order_url": order.url,
        "status": str(order.status),
        "names": [one.value for one in order.identifiers][:100],
    }


def _summary(report: Report) -> dict[str, object]:
    return {
        "accepted": sorted(report.accepted),
        "losses": [loss.to_json() for loss in report.losses][:100],
        "unknown_orders": sum(len(one.unknown) for one in report.upstreams),
        "recovered": sum(len(one.recovered) for one in report.upstreams),
    }
