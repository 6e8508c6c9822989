"""The audit trail of one broker: its checkpoints, its sinks, and what Vault signed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, Protocol

import structlog

from broker.app.audit_metrics import AuditMetrics
from broker.app.checkpoint_keys import ConfiguredCheckpointKeys, Rings
from broker.audit.feeding import Feeder, Sink, SinkState
from broker.audit.streams import FileSink, StdoutSink
from broker.audit.syslog import SyslogForm
from broker.audit.syslog_tls import SyslogTls, TlsSettings
from broker.config import Config
from broker.config.audit import AuditFile, AuditSyslog, SinkSection
from broker.issuance.audit_ports import CheckpointRecord
from broker.issuance.checkpoints import Checkpointing
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.events import Event
from broker.issuance.ports import Clock, Signer
from broker.issuance.signatures import SignatureNotes
from broker.keys.vault_session import VaultConnections
from broker.storage.sqlite import SqliteStore
from broker.telemetry import Telemetry

__all__ = ["AuditRooms", "SigningRings", "make_audit"]

NOTES_SECONDS: Final = 1.0
"""Longest that a signature waits for a commit that takes it along, in seconds: so much of what
Vault signed may be missing here after a kill, and ``audit reconcile`` names it."""

LAST_CHECKPOINT_SECONDS: Final = 3.0
"""Longest that the last checkpoint may take at the end, in seconds."""

log = structlog.get_logger("penstock")


class SigningRings(Signer, Rings, Protocol):
    """Keys that sign, wherever they lie, and the two places apart."""


class AuditRooms:
    """All that makes up the trail beside the chain itself, which the store makes."""

    def __init__(
        self,
        config: Config,
        store: SqliteStore,
        *,
        notes: SignatureNotes,
        checkpointing: Checkpointing,
        clock: Clock,
    ) -> None:
        self.store = store
        self.notes = notes
        self.checkpointing = checkpointing
        self.feeders = {
            name: Feeder(name, _sink(section), store, clock)
            for name, section in config.audit.sinks.items()
        }
        self.checkpoint_fault: str | None = None
        """Why no checkpoint can be made now."""
        self.newest: CheckpointRecord | None = None
        """The last one that was made since the start."""
        self._seconds = config.audit.checkpoints.every.total_seconds()
        self._records = config.audit.checkpoints.records
        self._uncovered = 0
        self._is_due = asyncio.Event()
        self._taking = asyncio.Lock()

    def states(self) -> Sequence[SinkState]:
        """Return how the sinks are."""
        return [feeder.state() for feeder in self.feeders.values()]

    def on_events(self, events: Sequence[Event]) -> None:
        """Note that there is more to send and to sign."""
        self._uncovered += len(events)
        if self._uncovered >= self._records:
            self._is_due.set()
        for feeder in self.feeders.values():
            feeder.wake()

    async def take_checkpoint(self) -> CheckpointRecord | None:
        """Take a checkpoint now; None where the last one covers everything.

        Raises:
            Unreachable: The key cannot be reached now.
            Broken: A person has to see to it.
        """
        async with self._taking:
            self._uncovered = 0
            try:
                made = await self.checkpointing.take()
            except (Unreachable, Broken) as error:
                self.checkpoint_fault = error.reason
                raise
            self.checkpoint_fault = None
        if made is not None:
            self.newest = made
            for feeder in self.feeders.values():
                feeder.wake()
        return made

    async def public_key(self) -> tuple[str, str]:
        """Return the id of the key that signs now, and its public half as PEM.

        Raises:
            Unreachable: The key cannot be reached now.
            Broken: There is none, and nobody of ours may make it.
        """
        return await self.checkpointing.public_key()

    async def flush(self) -> None:
        """Write what waits for a commit; raises Unreachable and Broken."""
        if self.notes.is_waiting:
            await self.store.write_along()

    async def begin(self, stack: AsyncExitStack) -> None:
        """Sign and send from now on; the stack ends it."""
        for feeder in self.feeders.values():
            await feeder.begin()
        stack.push_async_callback(self._end)
        for run, name in ((self._sign, "audit checkpoints"), (self._write_notes, "audit notes")):
            task = asyncio.create_task(run(), name=name)
            stack.callback(task.cancel)

    async def _sign(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_due.wait(), self._seconds)
            self._is_due.clear()
            was_fine = self.checkpoint_fault is None
            try:
                await self.take_checkpoint()
            except (Unreachable, Broken) as error:
                if was_fine:
                    log.error("no checkpoint of the audit chain can be made", reason=error.reason)

    async def _write_notes(self) -> None:
        while True:
            await asyncio.sleep(NOTES_SECONDS)
            with contextlib.suppress(Unreachable, Broken):  # told by whoever writes next
                await self.flush()

    async def _end(self) -> None:
        """Sign what is not covered yet, where that worked before, and send what is left."""
        if self.newest is not None and self.checkpoint_fault is None:
            with contextlib.suppress(Unreachable, Broken, TimeoutError):
                await asyncio.wait_for(self.take_checkpoint(), LAST_CHECKPOINT_SECONDS)
        await asyncio.gather(*(feeder.stop() for feeder in self.feeders.values()))


def make_audit(
    config: Config,
    store: SqliteStore,
    rings: SigningRings,
    *,
    vault: VaultConnections | None,
    telemetry: Telemetry,
    clock: Clock,
) -> AuditRooms:
    """Return the trail's rooms over *store*, which writes signatures along from now on."""
    notes = SignatureNotes(clock)
    store.take_along(notes.take)
    if vault is not None:
        vault.watch_signatures(notes.note)
    keys = ConfiguredCheckpointKeys(config, rings)
    checkpointing = Checkpointing(store, keys, rings, broker=config.external_url, clock=clock)
    rooms = AuditRooms(config, store, notes=notes, checkpointing=checkpointing, clock=clock)
    metrics = AuditMetrics(telemetry.registry)
    telemetry.before_render.append(lambda: metrics.show(rooms.states(), rooms.newest))
    return rooms


def _sink(section: SinkSection) -> Sink:
    if isinstance(section, AuditFile):
        return FileSink(section.path)
    if not isinstance(section, AuditSyslog):
        return StdoutSink()
    settings = TlsSettings(
        host=section.address.host,
        port=section.address.port,
        server_name=section.server_name or section.address.host,
        ca_bundle=section.ca_bundle,
        certificate=section.certificate,
        key=section.key,
        is_close_strict=section.strict_close,
    )
    form = SyslogForm(
        hostname=socket.gethostname(),
        process=str(os.getpid()),
        facility=section.facility,
        enterprise=section.enterprise,
        max_bytes=section.message,
    )
    return SyslogTls(settings, form)
