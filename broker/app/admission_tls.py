"""The certificate that admission shows to the API server: files that an agent beside it keeps.

They are taken up when they change; a pair that cannot be used leaves the one before it in use.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import datetime

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.own_files import Pair, PairFiles, new_context
from broker.issuance.errors import Broken, Unreachable
from broker.issuance.ports import Clock
from broker.protocol.certificates import ChainError, parse_chain, verify_chain_anchored

__all__ = ["AdmissionTls"]

log = structlog.get_logger("penstock.admission")


class AdmissionTls:
    """Keeps the TLS context up to date with the files."""

    def __init__(
        self, files: PairFiles, clock: Clock, on_change: Callable[[], None] = lambda: None
    ) -> None:
        """*on_change* is told whenever another pair is shown."""
        self._on_change = on_change
        self._files = files
        self._clock = clock
        self._shown: Pair | None = None
        self._refused: object = None
        self.front = new_context()
        """What the listener is started with; each handshake is then given the newest."""
        self.front.sni_callback = self._choose

    @property
    def not_after(self) -> datetime | None:
        """The end of what is shown, None while there is nothing."""
        return None if self._shown is None else self._shown.leaf.not_valid_after_utc

    def refresh(self) -> None:
        """Take in a new pair, if there is one that can be used."""
        stamp = self._files.stamp()
        if stamp is None or stamp == self._refused:
            return
        if self._shown is not None and stamp == self._shown.stamp:
            return
        try:
            self._shown = self._files.load()
        except (Broken, Unreachable) as error:
            self._refused = stamp
            log.error("a new certificate cannot be used, the former stays", reason=error.reason)
            return
        log.info("certificate taken up", not_after=self._shown.leaf.not_valid_after_utc.isoformat())
        self._on_change()

    def is_by(self, roots: str) -> bool:
        """Tell whether what is shown leads to one of *roots*, in PEM, now."""
        if self._shown is None:
            return False
        try:
            found = x509.load_pem_x509_certificates(roots.encode("ascii"))
            anchors = [one.public_bytes(Encoding.DER) for one in found]
            chain = parse_chain(self._files.certificate.read_bytes())
            verify_chain_anchored(chain, anchors, self._clock.now())
        except (ChainError, OSError, ValueError) as error:
            log.error("the roots are not those of our own certificate", reason=str(error))
            return False
        return True

    async def why_not(self) -> str | None:
        """Return why nobody can be served, None when they can."""
        ends = self.not_after
        if ends is None:
            return "there is no certificate yet"
        return None if self._clock.now() < ends else f"certificate ended {ends.isoformat()}"

    def _choose(
        self, handshake: ssl.SSLObject, _name: str | None, _front: ssl.SSLContext, /
    ) -> int | None:
        if self._shown is None:
            return int(ssl.ALERT_DESCRIPTION_INTERNAL_ERROR)
        handshake.context = self._shown.context
        return None
