"""Sends what the outbox holds, with the acknowledgement of what has come in.

The thread that sends is there only while there is something to send, and as long as the connection
for it is kept.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from agents import wire
from agents.errors import NotKnown, Refused, Unreachable
from agents.identity import Identities
from agents.log import Log
from agents.mailbox import SENT_AT_ONCE, Inbox, Outbox, new_id
from agents.pauses import Pauses, draw
from agents.state import StateFault
from agents.transport import Transport

__all__ = ["Sender", "patience_of"]

GATHER_SECONDS: Final = 0.05
"""How long a message waits for others to travel with, in seconds."""

STAGES_SECONDS: Final = 0.45
"""How much longer a stage of a delivery waits that others will follow, in seconds: most reloads are
over by then, and all of the delivery shares one request, which costs the broker far more than what
is in it."""

COMPANY_SECONDS: Final = 0.15
"""How long an acknowledgement waits before that for a message to travel with, in seconds: most
messages are answered at once, and the broker repeats what is not acknowledged only much later."""

UNTOLD: Final = 16
"""How many messages may have come in before they are acknowledged whatever else is waited for: the
broker sends no more than twice as many ahead."""

KEEP_SECONDS: Final = 10.0
"""How long the connection is kept for the next request, in seconds: reloads and looks take a few,
and who waits for longer shall be small."""

LONGEST_PATIENCE_SECONDS: Final = 60.0
"""Longest time that the broker may have this node wait before it tells, in seconds."""

URGENT_KINDS: Final = frozenset({"csr"})
"""What waits for nothing: the broker orders a certificate as soon as it has this."""

STACK_BYTES: Final = 512 * 1024
"""Stack of a thread, in bytes; TLS and JSON take less than a fifth of it."""


def is_on_the_way(kind: str, body: Mapping[str, Any]) -> bool:
    """Return whether this tells a stage of a delivery that others will follow."""
    return kind == "receipt" and body.get("stage") not in wire.ENDS


def patience_of(message: wire.Message, draw: Callable[[], float] = draw) -> float:
    """Return how many seconds the node waits before it tells how it went with *message*: drawn from
    those that the broker leaves it, so that a wave of thousands does not tell at once."""
    asked = message.body.get("tell_within") if message.kind == "certificate" else None
    if not isinstance(asked, int) or asked <= 0:
        return 0.0
    return draw() * min(asked, LONGEST_PATIENCE_SECONDS)


class Sender:
    """Posts batches until nothing waits."""

    def __init__(
        self,
        *,
        transport: Transport,
        identities: Identities,
        inbox: Inbox,
        outbox: Outbox,
        statement: Callable[[], Mapping[str, Any]],
        stopped: threading.Event,
        log: Log,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        self._transport = transport
        self._identities = identities
        self._inbox = inbox
        self._outbox = outbox
        self._statement = statement
        self._stopped = stopped
        self._log = log
        self._keep_seconds = keep_seconds
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._is_open = False
        self._is_statement_due = False
        self._is_urgent = False
        self._is_awaited = False
        self._patient_until = 0.0
        """By the monotonic clock: until then what went well is not told."""
        self._acknowledged = -1
        self._at_once = SENT_AT_ONCE
        self._pauses = Pauses()

    def open(self) -> None:
        """Begin to send: the broker has been reached."""
        with self._changed:
            self._is_open = True
        self.kick()

    def close(self) -> None:
        """Keep what there is until the broker is reached again."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()

    def state_anew(self) -> None:
        """Send the node's statement with what goes out next."""
        with self._changed:
            self._is_statement_due = self._is_awaited = True
        self.kick()

    def kick(self, kind: str = "", body: Mapping[str, Any] | None = None) -> None:
        """Send what waits, now such a message too, if the broker can be reached."""
        with self._changed:
            self._is_urgent = self._is_urgent or kind in URGENT_KINDS
            if body is not None and not self._may_wait(kind, body):
                self._is_awaited = True
            if not self._is_open or not self._has_work():
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="send", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def be_patient(self, seconds: float) -> None:
        """Tell nothing of what went well for so long, unless something else is to be told.

        One patience is never made longer by the next, so that what is to be told is told.
        """
        if seconds <= 0:
            return
        with self._changed:
            now = time.monotonic()
            if self._patient_until <= now:
                self._patient_until = now + seconds

    def send_once(self) -> None:
        """Send one batch now; raises Unreachable, Refused."""
        self._is_urgent = self._is_awaited = False
        named = self._outbox.next(self._at_once)
        messages = [message for _, message in named]
        statement = self._take_statement()
        if statement is not None:
            messages.insert(0, statement)
        taken = self._inbox.taken
        batch = wire.Batch(wire.VERSION, taken, tuple(messages))
        try:
            answer = self._transport.call(
                "POST",
                wire.PATHS["messages"],
                body=batch.encode(),
                pair=self._identities.pair(),
                sign=self._identities.signer(),
                is_repeatable=True,  # the broker takes a message once, by its id
            )
            reply = wire.parse_reply(answer.body)
            wire.negotiate(reply.version)
        except wire.WireFault as fault:
            self._put_back(statement)
            raise Unreachable(f"the broker's answer cannot be read: {fault}") from None
        except (Unreachable, Refused):
            self._put_back(statement)
            raise
        self._acknowledged = taken
        self._settle(named, reply, statement)

    # ------------------------------------------------------------------------------ inside

    def _run(self) -> None:
        while self._await_work():
            self._gather()
            try:
                self.send_once()
                self._pauses.reset()
            except NotKnown as refusal:
                self._log.warning("messages were refused", reason=refusal)
                self.close()
            except Refused as refusal:
                self._log.error("messages were refused", reason=refusal)
                self.single_out()
                self._stopped.wait(self._pauses.next())
            except (Unreachable, StateFault) as fault:
                self._log.warning("messages could not be sent", reason=fault)
                asked = fault.retry_seconds if isinstance(fault, Unreachable) else None
                self._stopped.wait(self._pauses.next(asked))

    def _await_work(self) -> bool:
        """Return whether there is work, at the latest when the connection is kept no longer."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_over() or self._has_work(), self._keep_seconds)
            if self._has_work() and not self._is_over():
                return True
            self._transport.release()
            self._thread = None
            return False

    def _gather(self) -> None:
        """Wait for what may travel together, and until it is time to tell."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_over() or self._has_messages() or self._is_full(),
                self._at_least(COMPANY_SECONDS),
            )
            self._changed.wait_for(lambda: self._is_over() or self._is_urgent, GATHER_SECONDS)
            if self._has_messages():
                self._changed.wait_for(
                    lambda: self._is_over() or self._is_awaited or self._is_full(),
                    self._at_least(STAGES_SECONDS),
                )

    def _at_least(self, seconds: float) -> float:
        """Return *seconds*, or what is left of the patience where that is longer."""
        return max(seconds, self._patient_until - time.monotonic())

    def _may_wait(self, kind: str, body: Mapping[str, Any]) -> bool:
        """Whether nobody waits for this now: a stage on the way, or a good end while patient."""
        is_well = kind == "receipt" and body.get("stage") == "seen"
        return is_on_the_way(kind, body) or (is_well and time.monotonic() < self._patient_until)

    def _is_full(self) -> bool:
        """Whether no other message could travel along, or come in: for none is waited then."""
        untold = self._inbox.taken - self._acknowledged
        return len(self._outbox) >= self._at_once or untold >= UNTOLD

    def _is_over(self) -> bool:
        return not self._is_open or self._stopped.is_set()

    def single_out(self) -> None:
        """Find the one that spoils a batch: send each alone, and give up one refused alone."""
        if self._at_once > 1:
            self._at_once = 1
            return
        for name, message in self._outbox.next(1):
            self._log.error("a message is given up", kind=message.kind, id=message.id)
            self._outbox.drop(name)

    def _has_work(self) -> bool:
        return self._has_messages() or self._inbox.taken != self._acknowledged

    def _has_messages(self) -> bool:
        return self._is_statement_due or len(self._outbox) > 0

    def _take_statement(self) -> wire.Message | None:
        with self._changed:
            is_due, self._is_statement_due = self._is_statement_due, False
        return wire.Message(new_id(), "stated", self._statement()) if is_due else None

    def _put_back(self, statement: wire.Message | None) -> None:
        if statement is not None:
            with self._changed:
                self._is_statement_due = True

    def _settle(
        self,
        named: list[tuple[str, wire.Message]],
        reply: wire.Reply,
        statement: wire.Message | None,
    ) -> None:
        accepted = set(reply.accepted)
        refused = {one.id: one for one in reply.refused}
        is_stuck = False
        for name, message in named:
            if message.id in accepted:
                self._outbox.drop(name)
                continue
            is_stuck = True
            refusal = refused.get(message.id)
            if refusal is not None and refusal.is_final:
                self._log.warning("message was refused", kind=message.kind, reason=refusal.reason)
                self._outbox.drop(name)
                is_stuck = False
            elif refusal is not None:
                self._outbox.put_behind(name)
        if statement is not None and statement.id not in accepted:
            refusal = refused.get(statement.id)
            if refusal is not None and refusal.is_final:
                self._log.error("the node's statement was refused", reason=refusal.reason)
            else:
                is_stuck = True
                self._put_back(statement)
        if is_stuck:
            raise Unreachable("the broker could not take every message")
