"""The channel to the broker, as the agent lives it: be known, listen, come back.

One thread.  It sees to an identity first, then holds a stream, or polls where something in between
holds streams back, and hands on each message once it is written down.  Whatever happens here, the
certificates in place are served on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Final

from agents import wire
from agents.clock import Clock
from agents.errors import ClocksDiffer, Impostor, NotKnown, Refused, Silent, Unreachable
from agents.identity import Identities, Waiting
from agents.log import Log
from agents.mailbox import Inbox
from agents.pauses import Pauses
from agents.sending import Sender, patience_of
from agents.state import StateFault
from agents.transport import SILENT_SECONDS, Stream, Transport

__all__ = ["Session"]

FIRST_LINE_SECONDS: Final = 30.0
"""How long a stream may take to bring its first line, in seconds: the broker beats every 20 s, so
longer means that something in between holds the lines back."""

POLL_SECONDS: Final = 25
"""How long the broker holds a poll that has nothing to bring, in seconds: proxies end at 30."""

STREAM_AGAIN_SECONDS: Final = 1_800.0
"""After how many seconds of polling a stream is tried again: proxies are replaced seldom."""

STEADY_SECONDS: Final = 60.0
"""After how many seconds a connection counts as good, so that the next wait is a short one."""

REFUSED_SECONDS: Final = (30.0, 600.0)
"""Shortest and longest wait after a refusal, in seconds: a person has to change something first."""

MAX_GOAWAY_SECONDS: Final = 60.0
"""Longest wait that a broker which goes away can ask for, in seconds."""

OnMessage = Callable[[wire.Message], None]


class Session:
    """Keeps the node connected."""

    def __init__(
        self,
        *,
        transport: Transport,
        identities: Identities,
        inbox: Inbox,
        sender: Sender,
        on_message: OnMessage,
        on_new_node: Callable[[], None],
        stopped: threading.Event,
        clock: Clock,
        log: Log,
        waits: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._transport = transport
        self._identities = identities
        self._inbox = inbox
        self._sender = sender
        self._on_message = on_message
        self._on_new_node = on_new_node
        self._stopped = stopped
        self._clock = clock
        self._log = log
        self._waits = waits
        self._pauses = Pauses()
        self._refusals = Pauses(shortest=REFUSED_SECONDS[0], longest=REFUSED_SECONDS[1])
        self._awake = threading.Event()
        self._stream: Stream | None = None
        self._is_unknown = False
        self._is_renewal_asked = False
        self._is_interrupted = False
        self._poll_until = 0.0
        self.is_connected = False
        self.connections = 0
        self.last_contact: float | None = None

    def run(self) -> None:
        """Be connected until the agent stops."""
        while not self._stopped.is_set():
            wait = self.turn()
            if wait > 0 and not self._stopped.is_set():
                self._awake.wait(wait)
            self._awake.clear()

    def hurry(self) -> None:
        """Try again now: something has changed, or the agent stops."""
        self._awake.set()

    def interrupt(self) -> None:
        """End the connection that there is, and try again."""
        self._is_interrupted = True
        stream = self._stream
        if stream is not None:
            stream.interrupt()
        self._awake.set()

    def renew_identity(self) -> None:
        """Have the identity renewed before anything else."""
        self._is_renewal_asked = True
        self.interrupt()

    # ------------------------------------------------------------------------------ a turn

    def turn(self) -> float:
        """Be connected for as long as it goes, and return how many seconds to wait then."""
        begun = self._clock.monotonic()
        self._is_interrupted = False
        try:
            self.see_to_identity()
            self._attend()
            wait = self._pauses.next() if self._clock.monotonic() - begun < STEADY_SECONDS else 1.0
        except Waiting as waiting:
            self._log.info("enrolment waits for approval", fingerprint=waiting.fingerprint)
            self._waits(f"enrolment {waiting}")
            wait = waiting.retry_seconds
        except NotKnown as refusal:
            self._waits(f"the broker does not know this node: {refusal}")
            self._log.warning("the broker does not know this node", reason=refusal)
            wait = self._refusals.next() if self._is_unknown else self._pauses.next()
            self._is_unknown = True
        except Refused as refusal:
            self._log.error("the broker refuses this node", reason=refusal)
            self._waits(f"the broker refuses this node: {refusal}")
            wait = self._refusals.next()
        except _Goaway as goaway:
            self._pauses.reset()
            wait = goaway.seconds
        except (Unreachable, StateFault) as fault:
            if self._is_interrupted:
                return 0.0
            if self._clock.monotonic() - begun >= STEADY_SECONDS:
                self._pauses.reset()
            wait = self._pauses.next(getattr(fault, "retry_seconds", None))
            said = "not the broker" if isinstance(fault, Impostor) else "the broker is away"
            tell = self._log.error if isinstance(fault, Impostor) else self._log.warning
            tell(said, reason=fault, retry_seconds=round(wait, 1))
            self._waits(f"{said}: {fault}")
        finally:
            self.is_connected = False
            self._sender.close()
        return wait

    def see_to_identity(self) -> None:
        """Have an identity that the broker knows; raises like ``Identities.enrol``."""
        identities = self._identities
        if self._is_unknown or not identities.is_usable():
            self._enrol()
        elif self._is_renewal_asked or identities.is_renewal_due():
            self._renew()
        current = identities.current
        if current is not None:
            former = self._inbox.begin(current.node_id)
            if former is not None:
                self._log.warning("the broker takes this for a new node", former=former)
                self._on_new_node()

    def _enrol(self) -> None:
        """Be let in, or go on as who it was where only the clocks stand against it.

        By this node's clock its identity has ended.  TLS is judged by the broker's, so that the
        channel may hold, and what is wrong can be told.
        """
        try:
            identity = self._identities.enrol()
        except ClocksDiffer as fault:
            if self._is_unknown or self._identities.pair() is None:
                raise
            self._log.error("the identity seems to have ended, and is still tried", reason=fault)
            return
        self._is_unknown = False
        self._refusals.reset()
        self._log.info("enrolled", node=identity.node, node_id=identity.node_id)

    def _renew(self) -> None:
        """Renew an identity that is still alive; a failure keeps nobody from using that."""
        try:
            identity = self._identities.renew()
        except NotKnown:
            raise
        except Refused as refusal:
            self._log.error("the identity was not renewed", reason=refusal)
        except Unreachable as fault:
            self._log.warning("the identity could not be renewed", reason=fault)
            return
        else:
            self._log.info("identity renewed", not_after=identity.not_after.isoformat())
        self._is_renewal_asked = False

    def _attend(self) -> None:
        if self._clock.monotonic() < self._poll_until:
            self._poll()
            return
        try:
            stream = self._transport.open_stream(
                wire.PATHS["stream"],
                query=f"after={self._inbox.taken}",
                pair=self._identities.pair(),
                sign=self._identities.signer(),
            )
        except Silent:
            self._give_up_streams()
            return
        self._stream = stream
        try:
            if not self._stopped.is_set():
                self._listen(stream)
        finally:
            self._stream = None
            stream.close()

    def _listen(self, stream: Stream) -> None:
        try:
            lines = [stream.line(FIRST_LINE_SECONDS)]
        except TimeoutError:
            self._give_up_streams()
            return
        self._connected("stream")
        event = _Event()
        while not self._stopped.is_set():
            for line in lines:
                self.last_contact = self._clock.monotonic()
                found = event.read(line)
                if found is not None:
                    self._receive(*found)
            try:
                lines = [stream.line(SILENT_SECONDS)]
            except TimeoutError:
                raise Unreachable(f"nothing came for {SILENT_SECONDS:g} s") from None

    def _give_up_streams(self) -> None:
        """Poll from now on: something holds the stream back, its head or all that follows."""
        self._poll_until = self._clock.monotonic() + STREAM_AGAIN_SECONDS
        self._log.warning("the stream stays silent, polling instead")

    def _poll(self) -> None:
        while not self._stopped.is_set() and self._clock.monotonic() < self._poll_until:
            # The first one tells that polling works, and lets everything else begin.
            wait = POLL_SECONDS if self.is_connected else 0
            answer = self._transport.call(
                "GET",
                wire.PATHS["messages"],
                query=f"after={self._inbox.taken}&wait={wait}",
                pair=self._identities.pair(),
                sign=self._identities.signer(),
                seconds=wait + 30.0,
            )
            try:
                reply = wire.parse_reply(answer.body)
            except wire.WireFault as fault:
                raise Unreachable(f"the answer to a poll cannot be read: {fault}") from None
            if not self.is_connected:
                self._connected("poll")
            self.last_contact = self._clock.monotonic()
            for message in reply.messages:
                self._take(message)
            if self._is_renewal_asked or self._identities.is_renewal_due():
                self.see_to_identity()

    def _connected(self, how: str) -> None:
        self.is_connected = True
        self.connections += 1
        self._log.info("connected", by=how)
        self._waits("")
        self._sender.state_anew()
        self._sender.open()

    # ---------------------------------------------------------------------------- messages

    def _receive(self, kind: str, data: str, retry_seconds: float | None) -> None:
        if kind == "goaway":
            seconds = 1.0 if retry_seconds is None else min(retry_seconds, MAX_GOAWAY_SECONDS)
            raise _Goaway(self._pauses.next(seconds))
        if kind != "message":
            return
        try:
            document = json.loads(data)
        except (ValueError, RecursionError):
            raise Unreachable("the stream brought something that is no JSON") from None
        try:
            self._take(wire.parse_message(document))
        except wire.WireFault as fault:
            self._log.error("a message cannot be read", reason=fault)
            seq = document.get("seq") if isinstance(document, dict) else None
            if isinstance(seq, int) and not isinstance(seq, bool):
                self._inbox.pass_over(seq)
                self._sender.kick()

    def _take(self, message: wire.Message) -> None:
        if message.kind in wire.NODE_KINDS or message.seq <= 0:
            self._log.error("a message that is no broker's", kind=message.kind)
            return
        taken = self._inbox.take(message)
        self._sender.be_patient(patience_of(message))
        self._sender.kick()
        if taken is not None and taken.is_known:
            self._on_message(taken)


class _Goaway(Exception):
    """The broker ends the stream and names when to come back."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"in {seconds:g} s")
        self.seconds = seconds


class _Event:
    """Puts the lines of a stream together, as the HTML standard has it for event streams."""

    def __init__(self) -> None:
        self._clear()
        self._retry: float | None = None

    def _clear(self) -> None:
        self._kind = "message"
        self._data: list[str] = []
        self._size = 0

    def read(self, line: str) -> tuple[str, str, float | None] | None:
        """Return kind, data and retry time of the event that *line* ends, or None."""
        if not line:
            made = None
            if self._data or self._kind != "message":
                made = (self._kind, "\n".join(self._data), self._retry)
            self._clear()
            return made
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._kind = value
        elif name == "data":
            self._size += len(value)
            if self._size > wire.MAX_BATCH_BYTES:
                raise Unreachable("the stream brought an event past the limit")
            self._data.append(value)
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) < 10:
            self._retry = int(value) / 1_000
        return None
