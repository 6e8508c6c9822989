"""The part of the desk about the audit trail: how it is, what it says, and its lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

import structlog

from broker.audit.feeding import SinkState, entries_of
from broker.issuance.audit_chain import ChainedRecord
from broker.issuance.audit_ports import CheckpointRecord
from broker.issuance.events import Actor
from broker.operations.parties import AuditParty
from broker.operations.rooms import Desk
from broker.operations.views import View, time_view
from broker.web.operator import OperationError

__all__ = ["MAX_TRACED", "AuditDesk", "checkpoint_view", "in_order", "record_view", "serial_of"]

MAX_LINES: Final = 1000
"""Most records of one page of an export."""

MAX_TRACED: Final = 1000
"""Most records of one trace; ``--json`` has as many."""

_log = structlog.get_logger("penstock.audit")


class AuditDesk(Desk):
    """Commands about the audit trail."""

    @property
    def _audit(self) -> AuditParty:
        if self._rooms.audit is None:
            raise OperationError("this desk has no audit trail")
        return self._rooms.audit

    async def audit_status(self) -> Any:
        """Return how far the chain, its checkpoints and its sinks have come."""
        audit = self._audit
        newest = await audit.store.last_audit_record()
        checkpoint = await audit.store.last_checkpoint()
        last = 0 if newest is None else newest[0]
        covered = 0 if checkpoint is None else checkpoint.seq
        return {
            "last_record": last,
            "digest": None if newest is None else newest[1].hex(),
            "checkpoint": None if checkpoint is None else checkpoint_view(checkpoint),
            "not_covered": last - covered,
            "checkpoint_fault": audit.keeper.checkpoint_fault,
            "sinks": [_sink_view(state, last) for state in audit.keeper.states()],
        }

    async def audit_checkpoint(self, *, actor: Actor) -> Any:
        """Have the chain signed as far as it has come, and return the newest checkpoint.

        Who asked for it stands in the log, and an event is kept where it was asked by the API: one
        that came after it would be a record that the next one has to cover.
        """
        _log.info("checkpoint asked for", actor=actor.name, reason=actor.reason)
        made = await self._audit.keeper.take_checkpoint()
        newest = await self._audit.store.last_checkpoint()
        if newest is None:
            raise OperationError("there is no record yet, so there is nothing to sign")
        return {**checkpoint_view(newest), "made_now": made is not None, "jws": newest.jws}

    async def audit_public_key(self) -> Any:
        """Return the public half of the key that signs checkpoints."""
        key_id, pem = await self._audit.keeper.public_key()
        return {"key": key_id, "pem": pem}

    async def audit_export(
        self, *, after: int = 0, checkpoint: int = 0, limit: int = MAX_LINES
    ) -> Any:
        """Return lines past record *after* and past checkpoint number *checkpoint*."""
        if not 0 < limit <= MAX_LINES:
            raise OperationError(f"limit {limit} is not between 1 and {MAX_LINES}")
        store = self._audit.store
        records = await store.audit_records(after=after, limit=limit)
        last = records[-1].seq if records else after
        waiting = await store.checkpoints(after=checkpoint, limit=MAX_LINES)
        # What another one covers stays for its page, and the rest of many for the next.
        checkpoints = [one for one in waiting if one.seq <= last]
        return {
            "lines": [entry.line for entry in entries_of(records, checkpoints)],
            "after": last,
            "checkpoint": checkpoints[-1].number if checkpoints else checkpoint,
            "is_all": len(records) < limit and len(checkpoints) < MAX_LINES,
        }

    async def audit_trace(self, *, reference: str) -> Any:
        """Return the records about an order, a certificate, a node, an account or anything else
        that has a name; a certificate also by its serial number."""
        found = await self.records_about(reference)
        if not found:
            raise OperationError(
                f"no record is about '{reference}'",
                "give the id of an order, account or certificate, a fingerprint, a serial number, "
                "or a node's name",
            )
        return [record_view(one) for one in found[-MAX_TRACED:]]

    async def records_about(self, reference: str) -> Sequence[ChainedRecord]:
        """Return the records that name *reference*, oldest first."""
        trail = self._audit.trail
        words = [reference]
        for certificate_id in await trail.certificates_with_serial(serial_of(reference)):
            words.append(certificate_id)
        certificate = await self._store.find_certificate(words[-1])
        if certificate is None:
            fingerprint = reference.replace(":", "").lower()
            certificate = await self._store.find_certificate_by_fingerprint(fingerprint)
        orders = [reference]
        if certificate is not None:
            words += [certificate.certificate_id, certificate.fingerprint]
            orders.append(certificate.order_id)
        found = [await trail.records_of_order(one) for one in orders]
        found.append(await trail.records_of_account(reference, MAX_TRACED))
        found.append(await trail.records_mentioning(list(dict.fromkeys(words)), MAX_TRACED))
        return in_order(one for part in found for one in part)


def in_order(records: Iterable[ChainedRecord]) -> Sequence[ChainedRecord]:
    """Return each of *records* once, oldest first."""
    by_seq = {one.seq: one for one in records}
    return [by_seq[seq] for seq in sorted(by_seq)]


def serial_of(text: str) -> str:
    """Return a serial number as the store has it: lower case hex, two digits an octet."""
    digits = text.replace(":", "").replace(" ", "").lower().removeprefix("0x").lstrip("0")
    return f"0{digits}" if len(digits) % 2 else digits


def record_view(record: ChainedRecord) -> View:
    """Return a record as a person sees it, with its place in the chain."""
    kind, _, actor, reason, community, account_id, order_id, upstream, _ = record.columns
    return {
        "record": record.seq,
        "at": _moment(record.at),
        "kind": kind,
        "actor": actor,
        "reason": reason,
        "community": community,
        "account": account_id,
        "order": order_id,
        "upstream": upstream,
        "data": dict(record.data),
        "digest": None if record.digest is None else record.digest.hex(),
    }


def checkpoint_view(checkpoint: CheckpointRecord) -> View:
    """Return a checkpoint without its signature."""
    return {
        "number": checkpoint.number,
        "record": checkpoint.seq,
        "at": time_view(checkpoint.at),
        "key": checkpoint.key_id,
        "vault_request": checkpoint.vault_request,
    }


def _sink_view(state: SinkState, last: int) -> View:
    position = state.position
    return {
        "sink": position.name,
        "is_up": state.fault is None,
        "record": position.seq,
        "waiting": last - position.seq,
        "checkpoint": position.checkpoint,
        "confirmed": time_view(position.at),
        "fault": state.fault,
        "since": time_view(state.since) if state.fault is not None else None,
    }


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
