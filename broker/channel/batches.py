"""What agents tell: each message checked, handed to whom it concerns, and answered for itself.

A message that is refused says nothing about its neighbours.  What is not known is kept, that is
acknowledged and left alone, so that an agent that is newer than this broker is not held up.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

import structlog

from agents import wire
from broker.channel.ports import ChannelRooms
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.events import Actor, EventKind
from broker.issuance.node_ports import (
    DeliveryStage,
    NodeMessage,
    NodeRecord,
    Receipt,
    Statement,
)
from broker.protocol.identifiers import parse_name_or_address
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = ["Batches", "read_batch"]

MAX_NOTE_CHARS: Final = 500
"""Longest sentence of an agent that is kept, in characters."""

MAX_STATEMENTS: Final = 10_000
"""Most certificates that one node states: twice the largest host that we know of."""

MAX_COUNT: Final = 2**53
"""Largest count that is believed: what every reader of JSON can hold (RFC 8259 §6)."""

_log = structlog.get_logger("penstock.channel")

Handler = Callable[[NodeRecord, Mapping[str, Any]], Awaitable[None]]


def read_batch(body: bytes) -> tuple[wire.Batch, tuple[wire.Refusal, ...]]:
    """Return what was posted, and the refusals of messages in it that cannot be read.

    Raises:
        Problem: The whole of it cannot be read.
    """
    try:
        return wire.parse_batch(body), ()
    except wire.WireFault as fault:
        return _salvage(body, fault)


def _salvage(body: bytes, fault: wire.WireFault) -> tuple[wire.Batch, tuple[wire.Refusal, ...]]:
    """Return what can be read of a batch in which a message is at fault."""
    try:
        document = json.loads(body) if len(body) <= wire.MAX_BATCH_BYTES else {}
        told = document.get("messages") if isinstance(document, dict) else None
        if not isinstance(told, list) or len(told) > wire.MAX_BATCH:
            raise fault
        rest = wire.parse_batch(json.dumps({**document, "messages": []}).encode())
    except (ValueError, RecursionError):
        raise Problem(ProblemType.MALFORMED, f"batch cannot be read: {fault}") from fault
    kept, refusals = [], []
    for one in told:
        try:
            kept.append(wire.parse_message(one))
        except wire.WireFault as why:
            named = one.get("id") if isinstance(one, dict) else None
            if not isinstance(named, str):
                raise Problem(ProblemType.MALFORMED, f"batch cannot be read: {why}") from why
            refusals.append(wire.Refusal(named[: wire.MAX_ID_CHARS], str(why), is_final=True))
    return wire.Batch(rest.version, rest.ack, tuple(kept)), tuple(refusals)


class Batches:
    """Takes in what agents post."""

    def __init__(self, rooms: ChannelRooms) -> None:
        self._rooms = rooms
        self._handlers: Mapping[str, Handler] = {
            "stated": self._stated,
            "adopted": self._adopted,
            "csr": self._offered,
            "receipt": self._receipted,
            "unable": self._unable,
            "challenge-answered": self._answered,
            "challenge-failed": self._failed,
            "bundle-installed": self._bundle,
        }

    async def take(self, node: NodeRecord, body: bytes) -> wire.Reply:
        """Take in a batch and return which of its messages are kept.

        Raises:
            Problem: It cannot be read, or is in a version that is not spoken here.
        """
        batch, unread = read_batch(body)
        try:
            version = wire.negotiate(batch.version)
        except wire.WireFault as fault:
            raise Problem(ProblemType.MALFORMED, str(fault)) from fault
        if batch.ack > MAX_COUNT:
            raise Problem(ProblemType.MALFORMED, f"ack is no count up to {MAX_COUNT}")
        await self._acknowledge(node, batch.ack)
        await self._note(node, batch)
        accepted, refused = [], list(unread)
        for told in _together(batch.messages):
            for message, refusal in await self._hand_on(node, told):
                if refusal is None:
                    accepted.append(message.id)
                else:
                    refused.append(refusal)
        return wire.Reply(version, tuple(accepted), tuple(refused))

    async def _acknowledge(self, node: NodeRecord, seq: int) -> None:
        if seq > node.acknowledged:
            await self._rooms.store.acknowledge(node.node_id, seq)
        if seq:
            self._rooms.connections.acknowledged(node.node_id, seq)

    async def _note(self, node: NodeRecord, batch: wire.Batch) -> None:
        agent = next((one.body["agent"] for one in batch.messages if one.kind == "stated"), None)
        version = str(batch.version)
        if agent is None and version == node.wire_version:
            return
        await self._rooms.store.note_seen(
            node.node_id,
            self._rooms.clock.now(),
            agent_version=None if agent is None else printable(str(agent), 80),
            wire_version=version,
        )

    async def _hand_on(
        self, node: NodeRecord, told: Sequence[wire.Message]
    ) -> list[tuple[wire.Message, wire.Refusal | None]]:
        """Hand on messages that go together, and return with each why it is not kept, if so.

        Where one of several is at fault each is handed on by itself: what is said of it is said of
        no other.
        """
        if len(told) > 1:
            with suppress(Problem, Refused, wire.WireFault, Unreachable, Conflict, Broken):
                await self._rooms.reports.receipted(node, [_receipt(one.body) for one in told])
                for one in told:
                    self._rooms.observer.received(one.kind, "accepted")
                return [(one, None) for one in told]
        return [(one, await self._hand_on_alone(node, one)) for one in told]

    async def _hand_on_alone(self, node: NodeRecord, message: wire.Message) -> wire.Refusal | None:
        """Hand one message to whom it concerns, and return why it is not kept, if it is not."""
        handler = self._handlers.get(message.kind)
        if handler is None:
            self._rooms.observer.received("other", "accepted")
            return None
        try:
            await handler(node, message.body)
        except (Problem, Refused, wire.WireFault) as refusal:
            problem = refusal.problem if isinstance(refusal, Refused) else refusal
            reason = problem.detail if isinstance(problem, Problem) else str(problem)
            self._rooms.observer.received(message.kind, "refused")
            await self._record(node, message, reason)
            return wire.Refusal(message.id, reason, is_final=True)
        except (Unreachable, Conflict, Broken) as later:
            self._rooms.observer.received(message.kind, "later")
            _log.warning("message not taken", node=node.name, kind=message.kind, why=later.reason)
            return wire.Refusal(message.id, "cannot be taken in now, send again", is_final=False)
        self._rooms.observer.received(message.kind, "accepted")
        return None

    async def _record(self, node: NodeRecord, message: wire.Message, reason: str) -> None:
        data = {
            "node_id": node.node_id,
            "node": node.name,
            "kind": message.kind,
            "reason": printable(reason, MAX_NOTE_CHARS),
        }
        await self._rooms.refusals.record(
            EventKind.NODE_REQUEST_REFUSED,
            node.node_id,
            data,
            actor=Actor(f"node:{node.name}"),
            community=node.community,
        )

    # ---------------------------------------------------------------------------- the messages

    async def _stated(self, node: NodeRecord, body: Mapping[str, Any]) -> None:
        told = body["certificates"]
        if len(told) > MAX_STATEMENTS:
            raise Problem(
                ProblemType.MALFORMED, f"{len(told)} certificates, the limit is {MAX_STATEMENTS}"
            )
        statements: list[Statement] = []
        refusals: list[NodeMessage] = []
        for one in told:
            try:
                statements.append(_statement(one))
            except (Problem, wire.WireFault) as fault:
                # One that is misconfigured must not keep its neighbours from being renewed.
                refusals.append(_refusal(node, one["name"], fault))
        await self._rooms.reports.stated(node, statements)
        wanted = body.get("bundles")
        if isinstance(wanted, list):
            names = [one["name"] for one in wanted if isinstance(one, dict) and "name" in one]
            await self._rooms.bundles.wanted(node, [printable(str(name), 200) for name in names])
        if refusals:
            await self._rooms.store.queue_messages(refusals)
            self._rooms.connections.wake(node.node_id)

    async def _adopted(self, node: NodeRecord, body: Mapping[str, Any]) -> None:
        await self._rooms.reports.adopted(node, body["certificate"], body["chain_pem"].encode())

    async def _offered(self, node: NodeRecord, body: Mapping[str, Any]) -> None:
        csr_der = wire.decode_bytes(body["csr_der"], "csr_der")
        await self._rooms.reports.offered(node, body["delivery"], csr_der)

    async def _receipted(self, node: NodeRecord, body: Mapping[str, Any]) -> None:
        await self._rooms.reports.receipted(node, [_receipt(body)])

    async def _unable(self, node: NodeRecord, body: Mapping[str, Any]) -> None:
        reason = printable(body["reason"], MAX_NOTE_CHARS)
        await self._rooms.reports.unable(node, body["delivery"], reason, is_final=body["is_final"])

    async def _answered(self, node: NodeRecord, body: Mapping[str, Any]) -> None:
        self._rooms.challenges.answered(node.node_id, body["challenge"])

    async def _failed(self, node: NodeRecord, body: Mapping[str, Any]) -> None:
        reason = printable(body["reason"], MAX_NOTE_CHARS)
        self._rooms.challenges.failed(node.node_id, body["challenge"], reason)

    async def _bundle(self, node: NodeRecord, body: Mapping[str, Any]) -> None:
        await self._rooms.bundles.installed(
            node.node_id, body["bundle"], _count(body["version"], "version")
        )


def _together(messages: Sequence[wire.Message]) -> Iterator[Sequence[wire.Message]]:
    """Yield what is handed on in one go: receipts of one delivery that follow each other, and every
    other message alone."""

    def subject(message: wire.Message) -> tuple[str, str]:
        is_receipt = message.kind == "receipt"
        return ("delivery", message.body["delivery"]) if is_receipt else ("message", message.id)

    for _, told in groupby(messages, subject):
        yield tuple(told)


def _receipt(body: Mapping[str, Any]) -> Receipt:
    if body["stage"] not in wire.STAGES:
        raise wire.WireFault(f"stage {body['stage'][:40]!r} is none of {', '.join(wire.STAGES)}")
    note = body.get("note")
    return Receipt(
        delivery_id=body["delivery"],
        generation=_count(body["generation"], "generation"),
        stage=DeliveryStage(body["stage"]),
        fingerprint=body["fingerprint"],
        at=_moment(body["at"]),
        note=printable(note, MAX_NOTE_CHARS) if isinstance(note, str) else None,
    )


def _statement(told: Mapping[str, Any]) -> Statement:
    fingerprint, fault, profile = (
        _optional_text(told, name) for name in ("fingerprint", "fault", "profile")
    )
    generation = told.get("generation", 0)
    return Statement(
        name=printable(told["name"], 200),
        identifiers=tuple(parse_name_or_address(name) for name in told["names"]),
        profile=profile,
        key_kind=printable(told["key_kind"], 40),
        fingerprint=fingerprint,
        not_after=_moment(told["not_after"]) if told.get("not_after") is not None else None,
        generation=generation if _is_count(generation) else 0,
        is_seen=told.get("is_seen") is True,
        fault=None if fault is None else printable(fault, MAX_NOTE_CHARS),
    )


def _refusal(node: NodeRecord, name: str, fault: Problem | wire.WireFault) -> NodeMessage:
    reason = fault.detail if isinstance(fault, Problem) else str(fault)
    return NodeMessage(
        node_id=node.node_id,
        kind="refused",
        subject=f"refused/{name[:200]}",
        body={"certificate": name[:200], "reason": reason},
    )


def _optional_text(told: Mapping[str, Any], name: str) -> str | None:
    found = told.get(name)
    return found if isinstance(found, str) else None


def _is_count(value: object) -> bool:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, int) and is_number and 0 <= value <= MAX_COUNT


def _count(value: int, what: str) -> int:
    if not _is_count(value):
        raise wire.WireFault(f"{what} is no count up to {MAX_COUNT}")
    return value


def _moment(seconds: object) -> datetime:
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise wire.WireFault("time is no number of seconds since 1970")
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):
        raise wire.WireFault(f"time {seconds} is none") from None
