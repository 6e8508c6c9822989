"""The resident process: puts the parts together and keeps them going.

The main thread waits for signals, for callers of the local port and for what falls due; one thread
holds the channel; threads that send and threads that do deliveries are there only while they have
work.  Nothing that goes wrong on the channel touches what is being served.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

from agents import __version__, config, metrics, ready
from agents.clock import Clock
from agents.config import AgentConfig
from agents.hands import NodeHands
from agents.identity import Identities
from agents.log import Log
from agents.mailbox import Inbox, Outbox, new_id
from agents.notify import Notifier
from agents.records import Records
from agents.renew import Renewals
from agents.sending import STACK_BYTES, Sender
from agents.services import Services
from agents.session import Session
from agents.state import State, StateFault
from agents.steps import HandFault
from agents.transport import Transport
from agents.waits import Waits
from agents.wire import Message
from agents.workers import Workers

__all__ = ["Agent"]

APART_SECONDS: Final = 2.0
"""How long reloads of one target lie apart, in seconds: what comes meanwhile is done together."""

TICK_SECONDS: Final = 30.0
"""How often the main thread looks at what may have fallen due, in seconds."""

ONCE_TICK_SECONDS: Final = 0.25
"""How often ``once`` looks whether it may end, in seconds; people wait for it."""

AGAIN_SECONDS: Final = 30.0
"""After how many seconds work is tried again that could not be written down, as on a full disk."""

STOP_SECONDS: Final = 20.0
"""How long a delivery under way has to end at a stop, in seconds; what is cut off goes on at the
next start.  Kubernetes kills after 30."""

DAY_SECONDS: Final = 86_400.0
"""How often previous keys whose time is over are taken away, in seconds."""

TOKEN_SECONDS: Final = 600.0
"""After how many seconds a token is asked first, and again where it failed: a host that is started
every day has none that is older than a day."""

ABOUT_CERTIFICATES: Final = frozenset({"want-csr", "certificate", "refused", "waits"})
"""Kinds of messages that are about one certificate."""


class Agent:
    """One agent."""

    def __init__(
        self,
        path: str,
        clock: Clock,
        log: Log,
        *,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._path = path
        self._clock = clock
        self._log = log
        self._config = config.load(path)
        self._state = State(self._config.node.state)
        self._state.hold()
        self._stopped = threading.Event()
        self._notifier = Notifier(clock, environment)
        self._instance = new_id()
        self._is_config_good = True
        self._records = Records(self._state.certificates)
        self._inbox = Inbox(self._state.inbox, self._state.own)
        self._outbox = Outbox(self._state.outbox)
        agent = f"penstock-agent/{__version__}"
        self._transport = Transport(
            self._config.broker, clock=clock, environment=environment, agent=agent
        )
        self._identities = Identities(self._config, self._state.identity, self._transport, clock)
        self._make_workers()
        self._make_channel()
        self._again: list[Message] = []
        self._again_lock = threading.Lock()
        self._again_at = 0.0
        self._identity_at = 0.0
        self._tidy_at = clock.monotonic() + (
            TOKEN_SECONDS if self._hands.has_token else DAY_SECONDS
        )
        self._waker, self._wakes = os.pipe()
        for end in (self._waker, self._wakes):
            os.set_blocking(end, False)
        self._port: metrics.LocalPort | None = None

    def _make_workers(self) -> None:
        self._hands = NodeHands(lambda: self._config, self._clock, self._log)
        self._renewals = Renewals(
            config=lambda: self._config,
            records=self._records,
            outbox=self._outbox,
            hands=self._hands,
            done=self._inbox.done,
            clock=self._clock,
            log=self._log,
        )
        self._services = Services(
            config=lambda: self._config,
            folder=self._state.bundles,
            outbox=self._outbox,
            done=self._inbox.done,
            clock=self._clock,
            log=self._log,
        )
        self._workers: Workers[Message] = Workers(
            self._work,
            limit=self._config.node.workers,
            clock=self._clock,
            apart=lambda key: APART_SECONDS if key.startswith("reload ") else 0.0,
        )

    def _make_channel(self) -> None:
        self._waiting = Waits(self._state.own)
        self._sender = Sender(
            transport=self._transport,
            identities=self._identities,
            inbox=self._inbox,
            outbox=self._outbox,
            statement=self._statement,
            stopped=self._stopped,
            log=self._log,
        )
        self._outbox.on_put = self._sender.kick
        self._session = Session(
            transport=self._transport,
            identities=self._identities,
            inbox=self._inbox,
            sender=self._sender,
            on_message=self._dispatch,
            on_new_node=self._records.forget_generations,
            stopped=self._stopped,
            clock=self._clock,
            log=self._log,
            waits=self._waits,
        )

    def _waits(self, reason: str) -> None:
        """Tell systemd and probes what the channel waits for; nothing: it is connected."""
        self._notifier.status(reason or "connected")
        self._waiting.tell(reason)

    # ------------------------------------------------------------------------------ running

    def run(self, *, until_ready: float | None = None) -> int:
        """Run until a signal ends it; with *until_ready* until all is in place, or so many seconds.

        Returns 0, or 1 when the certificates were not in place in that time.
        """
        threading.stack_size(STACK_BYTES)
        self._catch_signals()
        self._open_port()
        self._recover()
        self._log.info("started", version=__version__, certificates=len(self._config.certificates))
        for message in self._inbox.waiting():
            self._dispatch(message)
        channel = self._start_channel()
        self._notifier.ready()
        until = None if until_ready is None else self._clock.monotonic() + until_ready
        result = 0
        while not self._stopped.is_set():
            self._wait(TICK_SECONDS if until is None else ONCE_TICK_SECONDS)
            if not channel.is_alive() and not self._stopped.is_set():
                self._log.error("the channel's thread has ended, starting another")
                channel = self._start_channel()
            self._tick()
            if until is not None and (found := self._is_finished(until)) is not None:
                result = found
                break
        self._stop(channel)
        return result

    def _start_channel(self) -> threading.Thread:
        channel = threading.Thread(target=self._session.run, name="channel", daemon=True)
        channel.start()
        return channel

    def _is_finished(self, until: float) -> int | None:
        is_idle = not len(self._workers) and not len(self._outbox)
        if is_idle and not self._findings():
            return 0
        return 1 if self._clock.monotonic() >= until else None

    def _wait(self, most: float) -> None:
        poll = select.poll()
        poll.register(self._waker, select.POLLIN)
        if self._port is not None:
            poll.register(self._port.listener, select.POLLIN)
        seconds = min(most, self._notifier.watchdog_seconds or most)
        for descriptor, _ in poll.poll(seconds * 1_000):
            if descriptor == self._waker:
                with contextlib.suppress(BlockingIOError):
                    self._handle(os.read(self._waker, 64))
            elif self._port is not None:
                self._port.accept()

    def _tick(self) -> None:
        self._notifier.alive()
        self._services.tick()
        now = self._clock.monotonic()
        if now >= self._again_at:
            with self._again_lock:
                again, self._again = self._again, []
            for message in again:
                self._dispatch(message)
        if now >= self._tidy_at:
            self._tidy_at = now + DAY_SECONDS
            threading.Thread(target=self._clear_previous, name="tidy", daemon=True).start()
        if now >= self._identity_at and self._identities.is_renewal_due():
            self._identity_at = now + self._identities.renewal_pause()
            self._session.renew_identity()

    def _stop(self, channel: threading.Thread) -> None:
        self._notifier.stopping()
        self._log.info("stopping")
        if self._workers.stop(STOP_SECONDS):
            self._log.warning("a delivery under way was cut off, it goes on at the next start")
        self._stopped.set()
        self._session.interrupt()
        channel.join(2.0)
        if self._port is not None:
            self._port.close()
        self._services.stop()
        self._state.release()
        self._log.info("stopped")

    # ------------------------------------------------------------------------------ signals

    def _catch_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, _ignore)
        signal.set_wakeup_fd(self._wakes, warn_on_full_buffer=False)

    def wake(self) -> None:
        """Have the main thread look now."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wakes, b"\0")

    def _handle(self, numbers: bytes) -> None:
        if signal.SIGHUP in numbers:
            self._reload()
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            self._workers.stop(0)
            self._stopped.set()

    def _reload(self) -> None:
        """Read the configuration anew; one with a fault never unloads a good one."""
        self._notifier.reloading()
        before = self._config
        try:
            self._config = config.load(self._path)
            self._is_config_good = True
        except config.ConfigFault as fault:
            self._is_config_good = False
            for one in fault.faults:
                self._log.error("configuration refused, the old one stays", fault=one)
        else:
            self._log.info("configuration read", certificates=len(self._config.certificates))
            self._take_up(before)
        self._notifier.ready()

    def _take_up(self, before: AgentConfig) -> None:
        now = self._config
        if (now.node.state, now.node.metrics) != (before.node.state, before.node.metrics):
            self._log.warning("node.state and node.metrics are taken up at the next start")
        self._transport.use(now.broker)
        self._identities.use(now)
        if (now.challenges, now.certificates) != (before.challenges, before.certificates):
            self._services.take_up()
        if (now.broker, now.enrol) != (before.broker, before.enrol):
            self._session.interrupt()
        self._sender.state_anew()
        self._session.hurry()

    # ----------------------------------------------------------------------------- messages

    def _dispatch(self, message: Message) -> None:
        if message.kind == "renew-identity":
            self._inbox.done(message)
            self._session.renew_identity()
        elif message.kind in ABOUT_CERTIFICATES:
            self._workers.submit(self._renewals.key_of(message), message)
        else:
            self._workers.submit(self._services.key_of(message), message)

    def _work(self, key: str, messages: Sequence[Message]) -> None:
        try:
            if messages[0].kind in ABOUT_CERTIFICATES:
                self._renewals.work(messages)
            else:
                self._services.work(messages)
        except (HandFault, StateFault) as fault:
            self._log.error("work is put off", key=key, reason=fault)
            self._again_at = self._clock.monotonic() + AGAIN_SECONDS
            with self._again_lock:
                self._again += messages
        self.wake()

    def _recover(self) -> None:
        """Clear away what was cut off, in a process of its own: what that takes is given back."""
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                self._clear_away()
                code = 0
            finally:
                os._exit(code)
        os.waitpid(child, 0)

    def _clear_previous(self) -> None:
        """Take away previous keys whose time is over; what failed is tried again soon."""
        if self._hands.tidy():
            self._tidy_at = self._clock.monotonic() + TOKEN_SECONDS

    def _clear_away(self) -> None:
        from agents.recovery import recover

        node = self._config.node
        for one in recover(
            self._config.certificates,
            allowed=node.allowed,
            state_dir=node.state,
            now=self._clock.now(),
        ):
            self._log.warning("what an install left could not be cleared away", reason=one)

    # ------------------------------------------------------------------------------ telling

    def _statement(self) -> dict[str, Any]:
        return ready.statement(
            self._config,
            self._records.get,
            self._services.version,
            instance=self._instance,
            agent=__version__,
        )

    def _findings(self) -> list[str]:
        return ready.check_ready(self._config, self._records.get, self._clock.now())

    def _open_port(self) -> None:
        address = self._config.node.metrics
        if address is None:
            return
        try:
            self._port = metrics.LocalPort(address, metrics.Answers(self._metrics, self._findings))
        except OSError as error:
            self._log.error("metrics cannot be served", address=address, reason=error.strerror)

    def _metrics(self) -> str:
        identity = self._identities.current
        records = [self._records.get(one.name) for one in self._config.certificates]
        return metrics.render(
            metrics.Figures(
                version=__version__,
                is_connected=self._session.is_connected,
                is_ready=not self._findings(),
                is_config_good=self._is_config_good,
                connections=self._session.connections,
                waiting_out=len(self._outbox),
                waiting_work=len(self._workers),
                identity_not_after=identity.not_after.timestamp() if identity else None,
                deliveries=dict(self._renewals.counts),
                reloads=dict(self._renewals.reloads),
                certificates=[(r.name, r.not_after, r.generation, r.is_seen) for r in records],
            )
        )


def _ignore(_number: int, _frame: object) -> None:
    """Leave the signal to the main loop, which the wake-up descriptor tells of it."""
