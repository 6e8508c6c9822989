"""TLS of the agents' listener: the broker's own certificate, and client certificates that come
from the node CA or from a CA by whose certificates nodes may enrol.

Client certificates are optional: where a load balancer ends TLS, agents sign instead.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

from broker.app.own_files import PairFiles, Stamp, new_context
from broker.issuance.errors import Broken, Unreachable

__all__ = ["AgentTls"]

_log = structlog.get_logger("penstock")


class AgentTls:
    """Keeps the agents' TLS context up to date with the pair and the anchors."""

    _STAYS = "TLS of the agents' listener stays as it was"

    def __init__(
        self, files: PairFiles, anchors: Callable[[], frozenset[bytes]], further: Path | None
    ) -> None:
        """Show the pair of *files*; believe *anchors*, and those in the PEM file *further*."""
        self._files = files
        self._anchors = anchors
        self._further = further
        self._made_of: tuple[Stamp | None, frozenset[bytes]] | None = None
        self._shown: ssl.SSLContext | None = None
        self.front = self._context()
        """What the listener is started with; each handshake is then given the newest."""
        self.front.sni_callback = self._choose

    def refresh(self) -> None:
        """Take in a new pair or new anchors; what cannot be used leaves all as it was."""
        made_of = (self._files.stamp(), self._anchors())
        if made_of == self._made_of:
            return
        try:
            self._shown = self._make(made_of[1])
        except (Broken, Unreachable) as error:
            _log.error(self._STAYS, reason=error.reason)
            return
        self._made_of = made_of

    def _make(self, anchors: frozenset[bytes]) -> ssl.SSLContext:
        context = self._context()
        files = self._files
        if files.passphrase is None:
            raise Unreachable("passphrase of the broker's own key could not be read yet")
        try:
            context.load_cert_chain(files.certificate, files.key, password=files.passphrase)
            for anchor in anchors:
                context.load_verify_locations(cadata=anchor)
            if self._further is not None:
                context.load_verify_locations(cafile=self._further)
        except (OSError, ssl.SSLError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise Broken(f"certificate or anchors cannot be used: {reason}") from error
        return context

    def _context(self) -> ssl.SSLContext:
        context = new_context()
        # An issuing CA is believed for itself, so that one under a former root still is.
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
        context.verify_mode = ssl.CERT_OPTIONAL
        return context

    def _choose(
        self, handshake: ssl.SSLObject, _name: str | None, _front: ssl.SSLContext, /
    ) -> int | None:
        if self._shown is None:
            return int(ssl.ALERT_DESCRIPTION_INTERNAL_ERROR)
        handshake.context = self._shown
        return None
