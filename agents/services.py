"""What the broker asks beside certificates: answers to challenges, and bundles of anchors.

Knows which messages there are; how a challenge is answered and how a bundle is written is for
``agents.challenges`` and ``agents.bundles``, which are imported when they are first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from agents.clock import Clock
from agents.config import AgentConfig
from agents.log import Log
from agents.mailbox import Outbox
from agents.state import Folder, StateFault
from agents.wire import Message

__all__ = ["Services"]


class Services:
    """Does what messages ask that are about no certificate."""

    def __init__(
        self,
        *,
        config: Callable[[], AgentConfig],
        folder: Folder,
        outbox: Outbox,
        done: Callable[[Message], None],
        clock: Clock,
        log: Log,
    ) -> None:
        self._config = config
        self._folder = folder
        self._outbox = outbox
        self._done = done
        self._clock = clock
        self._log = log
        self._responder: Any = None

    def key_of(self, message: Message) -> str:
        """Return what *message* has to be done in turn with."""
        if message.kind == "bundle":
            return f"bundle {message.body['bundle']}"
        return "challenges"

    def version(self, bundle: str) -> int:
        """Return which version of a bundle is installed; 0: none."""
        found = self._folder.get(bundle) or {}
        version = found.get("version", 0)
        return version if isinstance(version, int) else 0

    def stop(self) -> None:
        """Answer no challenge any more."""
        if self._responder is not None:
            self._responder.close()

    def tick(self) -> None:
        """Take back answers whose time is over."""
        if self._responder is not None:
            self._responder.expire()

    def take_up(self) -> None:
        """The configuration has changed: answers are given by the new one from now on."""
        self.stop()
        self._responder = None

    def work(self, messages: Sequence[Message]) -> None:
        """Do *messages*, which share a key, in their order; raises StateFault to be asked again."""
        for message in messages:
            if message.kind == "bundle":
                self._install(message)
            elif message.kind == "answer-challenge":
                self._answer(message)
            elif message.kind == "withdraw-challenge" and self._responder is not None:
                self._responder.withdraw(str(message.body["challenge"]))
            self._done(message)

    def _answer(self, message: Message) -> None:
        from agents.challenges import ChallengeFault, Responder

        challenge = str(message.body["challenge"])
        try:
            if self._responder is None:
                config = self._config()
                names = {name for one in config.certificates for name in one.names}
                self._responder = Responder(config.challenges, names, clock=self._clock)
            self._responder.answer(message.body)
        except ChallengeFault as fault:
            self._log.error("a challenge is not answered", challenge=challenge, reason=fault)
            body = {"challenge": challenge, "reason": str(fault)[:500]}
            self._outbox.put("challenge-failed", body, re=message.id)
        else:
            self._log.info("a challenge is answered", challenge=challenge)
            self._outbox.put("challenge-answered", {"challenge": challenge}, re=message.id)

    def _install(self, message: Message) -> None:
        from agents.bundles import BundleFault, install_bundle

        name, version = str(message.body["bundle"]), int(message.body["version"])
        section = self._config().bundle(name)
        if section is None:
            self._log.warning("a bundle that is not configured here", bundle=name[:80])
            return
        node = self._config().node
        try:
            installed = install_bundle(
                section, message.body, state=node.state, allowed=node.allowed
            )
        except BundleFault as fault:
            self._log.error("a bundle is not installed", bundle=name, reason=fault)
            if not fault.is_final:
                # The broker sends it again only when it changes, so it stays in the inbox.
                raise StateFault(str(fault)) from None
            return
        self._log.info("bundle installed", bundle=name, version=version)
        body = {"bundle": name, "version": installed.version}
        self._outbox.put("bundle-installed", body, re=message.id)
