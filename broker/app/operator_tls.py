"""TLS of the operator API: 1.3 alone, the broker's own certificate, and people's certificates from
the anchors that the configuration names.

Client certificates are optional, because tokens are another way in.  No session is resumed: each
connection is verified by the anchors that hold when it begins.
"""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.agent_tls import AgentTls
from broker.app.own_files import PairFiles, new_context
from broker.issuance.errors import Broken

__all__ = ["OperatorTls", "read_anchors"]


class OperatorTls(AgentTls):
    """Keeps the operators' TLS context up to date with the pair and the anchors."""

    _STAYS = "TLS of the operators' listener stays as it was"

    def __init__(self, files: PairFiles, anchors: Callable[[], frozenset[bytes]]) -> None:
        """Show the pair of *files*, and believe *anchors* alone."""
        self._made_with: WeakKeyDictionary[ssl.SSLContext, frozenset[bytes]] = WeakKeyDictionary()
        self._anchors_now = anchors
        self._making = threading.Lock()
        super().__init__(files, anchors, None)

    def refresh(self) -> None:
        """Take in a new pair or new anchors; one at a time, so that the newest stay."""
        with self._making:
            super().refresh()

    def is_current(self, connection: ssl.SSLObject) -> bool:
        """Return whether *connection* began with the anchors that hold now."""
        return self._made_with.get(connection.context) == self._anchors_now()

    def _make(self, anchors: frozenset[bytes]) -> ssl.SSLContext:
        context = super()._make(anchors)
        self._made_with[context] = anchors
        return context

    def _context(self) -> ssl.SSLContext:
        context = new_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
        context.verify_mode = ssl.CERT_OPTIONAL
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
        return context


def read_anchors(path: Path | None) -> frozenset[bytes]:
    """Return the certificates of a PEM file in DER; none without a file.

    Raises:
        Broken: It cannot be read, or holds none, or one that OpenSSL would believe nothing from.
    """
    if path is None:
        return frozenset()
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Broken(f"anchors {path} cannot be read: {reason}") from error
    except ValueError:
        raise Broken(f"anchors {path} are no PEM certificates") from None
    for one in found:
        if not _is_issuer(one):
            raise Broken(
                f"anchors {path}: '{one.subject.rfc4514_string()}' has no key usage keyCertSign, so"
                " nobody whom it certifies would come in"
            )
    return frozenset(one.public_bytes(Encoding.DER) for one in found)


def _is_issuer(certificate: x509.Certificate) -> bool:
    """Return whether X509_V_FLAG_X509_STRICT lets it issue: RFC 5280 §4.2.1.3 demands the key usage
    of a CA, and what ``openssl req -x509`` makes by itself has none."""
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError):
        return False
