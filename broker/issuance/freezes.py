"""Freezes: nothing new is issued for what is stopped, while reads and revocations go on.

What is frozen is known from memory, which a change made here is in at once and a change made by
another process over the same store within `FRESH_FOR`.  A store that cannot be read freezes
everything: unsure means no.

A client learns that it is frozen and whom to ask.  Why is for the event table, unless whoever
froze it gave a sentence for clients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from broker.issuance.errors import Conflict
from broker.issuance.events import SYSTEM, Actor, Event, EventKind
from broker.issuance.freeze_ports import FreezeKind, FreezePlace, FreezeRecord, FreezeRooms
from broker.issuance.ports import Clock, EventLog, Policies
from broker.issuance.records import AccountRecord
from broker.issuance.refusals import Refusals
from broker.policy.decisions import Finding, NewOrderDecision
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = ["CHECK", "FROZEN_WORDS", "Freezes", "verify_unfrozen"]

CHECK: Final = "frozen"
"""The check that a refusal is told under."""

FROZEN_WORDS: Final = "is frozen"
"""What every refusal for a freeze says, by which a renewal that was held up is known."""

FRESH_FOR: Final = timedelta(seconds=1)
"""How long what was read is believed: a freeze by another process holds within that, and an idle
broker reads one small table a second at most."""

LONGEST_TOLD: Final = 200
"""Longest sentence for clients, in characters: some show one line."""


class Freezes:
    """Knows what is frozen, and changes it."""

    def __init__(
        self,
        store: FreezeRooms,
        log: EventLog,
        clock: Clock,
        *,
        policies: Policies | None = None,
        contacts: Mapping[str, str] | None = None,
    ) -> None:
        """Know the freezes of *store*; *contacts* says by community whom clients may ask.

        *policies* are those that stood when an order was refused, for the record of that.
        """
        self._policies = policies
        self._store = store
        self._clock = clock
        self._contacts = dict(contacts or {})
        self.refusals = Refusals(log, clock)
        self._known: Mapping[FreezePlace, FreezeRecord] = {}
        self._kinds: frozenset[FreezeKind] = frozenset()
        self._read_at: datetime | None = None
        self._changes = 0
        self.on_changed: Callable[[], None] = lambda: None
        """Called after each change here: what waited may go on, or elsewhere."""

    # ----------------------------------------------------------------------------------- looking

    async def in_force(self) -> Mapping[FreezePlace, FreezeRecord]:
        """Return what is frozen now.

        Raises:
            Unreachable: The store cannot be read; everything is frozen.
            Broken: It cannot be read at all.
        """
        known, now = await self._fresh(), self._clock.now()
        return {place: one for place, one in known.items() if one.is_in_force(now)}

    async def of_account(self, account: AccountRecord) -> FreezeRecord | None:
        """Return the freeze that stops *account*, the widest first; None: it is free."""
        if not await self._fresh():
            return None
        community = account.community
        places = [
            FreezePlace(FreezeKind.COMMUNITY, community, community),
            FreezePlace(FreezeKind.ACCOUNT, community, account.account_id),
        ]
        if account.eab_key_id is not None:
            places.append(FreezePlace(FreezeKind.EAB_KEY, community, account.eab_key_id))
        if FreezeKind.NODE in self._kinds:
            node = await self._store.find_node_by_account(account.account_id)
            if node is not None:
                places.append(FreezePlace(FreezeKind.NODE, node.community, node.node_id))
        found = [await self._of(place) for place in places]
        return next((one for one in found if one is not None), None)

    async def of_account_id(self, account_id: str) -> FreezeRecord | None:
        """Return the freeze that stops an account that is known by its id."""
        if not await self._fresh():
            return None
        account = await self._store.find_account(account_id)
        return None if account is None else await self.of_account(account)

    async def of_community(self, community: str) -> FreezeRecord | None:
        """Return the freeze of a whole community."""
        return await self._of(FreezePlace(FreezeKind.COMMUNITY, community, community))

    async def of_upstream(self, upstream: str) -> FreezeRecord | None:
        """Return the freeze of an upstream."""
        return await self._of(FreezePlace(FreezeKind.UPSTREAM, "", upstream))

    async def upstreams(self, community: str) -> Mapping[str, str]:
        """Return the upstreams that are frozen, each with what a client of *community* is told."""
        await self._fresh()
        if FreezeKind.UPSTREAM not in self._kinds:
            return {}
        return {
            one.subject: f"{FROZEN_WORDS}, ask {self._whom(one, community)}"
            for one in (await self.in_force()).values()
            if one.kind is FreezeKind.UPSTREAM
        }

    async def _of(self, place: FreezePlace) -> FreezeRecord | None:
        found = (await self._fresh()).get(place)
        return found if found is not None and found.is_in_force(self._clock.now()) else None

    async def _fresh(self) -> Mapping[FreezePlace, FreezeRecord]:
        """Return what was not lifted, read anew where that is too long ago."""
        now = self._clock.now()
        if self._read_at is not None and timedelta(0) <= now - self._read_at < FRESH_FOR:
            return self._known
        changes = self._changes
        found = {one.place: one for one in await self._store.freezes()}
        if changes != self._changes:
            return await self._fresh()  # what was read may be from before the change
        self._known, self._read_at = found, now
        self._kinds = frozenset(place.kind for place in found)
        return found

    # ---------------------------------------------------------------------------------- refusing

    async def verify_free(
        self, account: AccountRecord, resource: str, *, order_id: str | None = None
    ) -> None:
        """See that nothing stops *account*; each refusal is an event.

        Raises:
            Problem: unauthorized, with whom to ask.
        """
        found = await self.of_account(account)
        if found is None:
            return
        problem = self.problem(found, account.community)
        finding = Finding(
            check=CHECK, type=ProblemType.UNAUTHORIZED, sentence=f"{found} {FROZEN_WORDS}"
        )
        document = None if self._policies is None else self._policies.current(account.community)
        decision = NewOrderDecision(
            findings=(finding,),
            checks=(CHECK,),
            policy_sha256="" if document is None else document.policy_sha256,
        )
        await self.refusals.record(account, decision, resource=resource, order_id=order_id)
        raise problem

    async def verify_open(self, community: str) -> None:
        """See that nothing stops the whole of *community*; raises Problem."""
        found = await self.of_community(community)
        if found is not None:
            raise self.problem(found, community)

    def problem(self, record: FreezeRecord, community: str) -> Problem:
        """Return what a client of *community* is told of a freeze."""
        what = {
            FreezeKind.COMMUNITY: f"community '{community}'",
            FreezeKind.ACCOUNT: "this account",
            FreezeKind.EAB_KEY: "the external account binding key of this account",
            FreezeKind.NODE: "this node",
            FreezeKind.UPSTREAM: "the CA of this order",
        }[record.kind]
        why = "" if record.told is None else f" ({printable(record.told, LONGEST_TOLD)})"
        sentence = f"issuance {FROZEN_WORDS} for {what}, ask {self._whom(record, community)}{why}"
        wait = None if record.until is None else record.until - self._clock.now()
        return Problem(ProblemType.UNAUTHORIZED, sentence, retry_after=wait)

    def _whom(self, record: FreezeRecord, community: str) -> str:
        named = record.ask or self._contacts.get(community)
        return printable(named, LONGEST_TOLD) if named else "the operator of this service"

    # ---------------------------------------------------------------------------------- changing

    async def freeze(self, record: FreezeRecord, actor: Actor) -> FreezeRecord | None:
        """Stop what *record* is of, and return the freeze in whose place it stands."""
        earlier = (await self.in_force()).get(record.place)
        until = None if record.until is None else record.until.isoformat()
        await self._store.keep_freeze(
            record,
            self._event(
                EventKind.FROZEN, record, actor, until=until, told=record.told, ask=record.ask
            ),
        )
        self._forget()
        return earlier

    async def unfreeze(self, place: FreezePlace, actor: Actor) -> FreezeRecord:
        """Let what is frozen go on, and return the freeze that it was under.

        Raises:
            Conflict: It is not frozen.
        """
        found = (await self.in_force()).get(place)
        if found is None:
            raise Conflict(f"{place.kind} '{place.subject}' is not frozen")
        since = found.at.isoformat()
        event = self._event(EventKind.UNFROZEN, found, actor, since=since)
        try:
            await self._store.lift_freeze(found, event)
        finally:
            self._forget()
        return found

    async def sweep(self) -> int:
        """Write down the end of freezes whose time is over; returns how many there were."""
        now = self._clock.now()
        over = [one for one in await self._store.freezes() if not one.is_in_force(now)]
        actor = Actor(SYSTEM.name, "its time was over")
        for record in over:
            event = self._event(EventKind.UNFROZEN, record, actor, since=record.at.isoformat())
            try:
                await self._store.lift_freeze(record, event)
            except Conflict:
                continue  # somebody froze it anew, or lifted it
        if over:
            self._forget()
        return len(over)

    def _forget(self) -> None:
        """Read anew before the next look: something changed."""
        self._changes += 1
        self._read_at = None
        self.on_changed()

    def _event(self, kind: EventKind, record: FreezeRecord, actor: Actor, **data: object) -> Event:
        is_account = record.kind is FreezeKind.ACCOUNT
        return Event(
            kind=kind,
            at=self._clock.now(),
            actor=actor,
            community=record.community or None,
            account_id=record.subject if is_account else None,
            upstream=record.subject if record.kind is FreezeKind.UPSTREAM else None,
            data={
                "what": record.kind.value,
                "subject": record.subject,
                "name": record.name,
                **{key: value for key, value in data.items() if value is not None},
            },
        )


async def verify_unfrozen(
    freezes: Freezes | None,
    account: AccountRecord,
    resource: str,
    *,
    order_id: str | None = None,
) -> None:
    """See that nothing stops *account*; without *freezes* nothing does."""
    if freezes is not None:
        await freezes.verify_free(account, resource, order_id=order_id)
