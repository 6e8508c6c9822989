"""The part of the desk that stops issuance, and lets it go on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from broker.issuance.errors import Conflict
from broker.issuance.events import Actor
from broker.issuance.freeze_ports import FreezeKind, FreezePlace, FreezeRecord
from broker.issuance.freezes import LONGEST_TOLD, Freezes
from broker.operations.rooms import Desk
from broker.operations.views import View, time_view
from broker.policy.units import parse_duration
from broker.web.operator import OperationError

__all__ = ["FreezeDesk", "parse_until"]

ONE_THING: Final = "one of community, account, EAB key, node or upstream"


class FreezeDesk(Desk):
    """Commands about freezes."""

    @property
    def _freezes(self) -> Freezes:
        if self._rooms.freezes is None:
            raise OperationError("this broker knows no freezes")
        return self._rooms.freezes

    async def freeze(
        self,
        *,
        actor: Actor,
        community: str | None = None,
        account: str | None = None,
        eab: str | None = None,
        node: str | None = None,
        upstream: str | None = None,
        until: str | None = None,
        tell: str | None = None,
        ask: str | None = None,
    ) -> Any:
        """Stop issuance for one thing until it is lifted, or *until*; frozen anew it is as said
        now."""
        named = {"account": account, "eab": eab, "node": node, "upstream": upstream}
        place, name = await self._place(community, named)
        now = self._rooms.clock.now()
        for what, text in (("tell", tell), ("ask", ask)):
            if text is not None and not (0 < len(text) <= LONGEST_TOLD and text.isprintable()):
                raise OperationError(f"{what} is no line of at most {LONGEST_TOLD} characters")
        record = FreezeRecord(
            kind=place.kind,
            community=place.community,
            subject=place.subject,
            name=name,
            at=now,
            actor=actor.name,
            reason=_reason(actor),
            told=tell,
            ask=ask,
            until=None if until is None else parse_until(until, now),
        )
        await self._freezes.freeze(record, actor)
        return _view(record)

    async def unfreeze(
        self,
        *,
        actor: Actor,
        community: str | None = None,
        account: str | None = None,
        eab: str | None = None,
        node: str | None = None,
        upstream: str | None = None,
    ) -> Any:
        """Let what is frozen go on."""
        named = {"account": account, "eab": eab, "node": node, "upstream": upstream}
        place, name = await self._place(community, named)
        _reason(actor)
        try:
            return _view(await self._freezes.unfreeze(place, actor))
        except Conflict as conflict:
            raise OperationError(
                f"{place.kind} '{name}' is not frozen", "see penstock frozen"
            ) from conflict

    async def frozen(self) -> Any:
        """Return what is frozen, the newest first."""
        found = (await self._freezes.in_force()).values()
        return [_view(one) for one in sorted(found, key=lambda one: one.at, reverse=True)]

    async def _place(
        self, community: str | None, named: dict[str, str | None]
    ) -> tuple[FreezePlace, str]:
        """Return what is meant, and what people call it."""
        given = {what: value for what, value in named.items() if value is not None}
        if len(given) > 1 or not (given or community):
            raise OperationError(f"name {ONE_THING}", "each freeze is of one thing")
        if community is not None:
            self._check_community(community)
        if not given:
            return FreezePlace(FreezeKind.COMMUNITY, community or "", community or ""), (
                community or ""
            )
        ((what, value),) = given.items()
        if what == "eab":
            return await self._eab_key(community or "default", value)
        if community is not None:
            raise OperationError(f"--community stands alone, or with --eab, not with --{what}")
        if what == "upstream":
            return self._upstream(value)
        return await (self._of_account(value) if what == "account" else self._of_node(value))

    async def _eab_key(self, community: str, key_id: str) -> tuple[FreezePlace, str]:
        if await self._store.find_eab_key(community, key_id) is None:
            raise OperationError(
                f"community '{community}' has no EAB key '{key_id}'", "see penstock eab list"
            )
        return FreezePlace(FreezeKind.EAB_KEY, community, key_id), key_id

    def _upstream(self, name: str) -> tuple[FreezePlace, str]:
        known = [entry.name for entry in self._rooms.upstreams.entries()]
        if name not in known:
            raise OperationError(f"no upstream is called '{name}'", f"there is {', '.join(known)}")
        return FreezePlace(FreezeKind.UPSTREAM, "", name), name

    async def _of_account(self, account_id: str) -> tuple[FreezePlace, str]:
        account = await self._account(account_id)
        place = FreezePlace(FreezeKind.ACCOUNT, account.community, account.account_id)
        return place, account.account_id

    async def _of_node(self, reference: str) -> tuple[FreezePlace, str]:
        node = await self._store.find_node(reference)
        if node is None:
            raise OperationError(f"there is no node '{reference}'", "see penstock node list")
        return FreezePlace(FreezeKind.NODE, node.community, node.node_id), node.name


def parse_until(text: str, now: datetime) -> datetime:
    """Return the moment that *text* names: a length from now such as ``2h``, or a time in UTC.

    Raises:
        OperationError: It is neither, or is over already.
    """
    try:
        moment = now + parse_duration(text)
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            raise OperationError(
                f"'{text[:40]}' is neither a length such as 2h nor a time such as "
                "2027-03-15T08:00:00Z"
            ) from None
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    if moment <= now:
        raise OperationError(f"a freeze until {text[:40]} would be over already")
    return moment.astimezone(UTC)


def _reason(actor: Actor) -> str:
    if not (actor.reason or "").strip():
        raise OperationError("this takes a reason", "--reason TEXT, kept with the event")
    return actor.reason or ""


def _view(record: FreezeRecord) -> View:
    return {
        "what": record.kind.value,
        "name": record.name,
        "id": record.subject,
        "community": record.community or None,
        "since": time_view(record.at),
        "until": time_view(record.until),
        "by": record.actor,
        "reason": record.reason,
        "told": record.told,
        "ask": record.ask,
    }
