"""The broker's own certificate and key as files: written whole, read as a pair, never in halves.

The key that the broker makes is kept under the key passphrase.  A pair that somebody else keeps is
read as it is.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.issuance.errors import Broken, Unreachable
from broker.keys.encryption import decrypt_private_key, encrypt_private_key

__all__ = ["Pair", "PairFiles", "Stamp", "ask_for_clients", "new_context"]

KEY_MODE: Final = 0o600
"""Mode of the key's file: nobody but the broker reads it."""

CERTIFICATE_MODE: Final = 0o644
"""Mode of the certificate's file: every client is shown it anyway."""

Stamp = tuple[tuple[int, int, int, int], ...]
"""What changes when either file does: device, inode, size and time.  Where a directory of links is
swapped, as Kubernetes does it, the inode changes though path and time may not."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate that fits its key, as it was loaded."""

    leaf: x509.Certificate
    stamp: Stamp
    context: ssl.SSLContext
    """Shows this pair and no other."""


class PairFiles:
    """A certificate file and a key file."""

    def __init__(self, certificate: Path, key: Path, passphrase: bytes | None) -> None:
        self.certificate = certificate
        self.key = key
        self.passphrase = passphrase
        """None until it could be read: it may lie in Vault."""

    @property
    def next_key(self) -> Path:
        """Where the key lies whose certificate has been ordered and is not here yet."""
        return self.key.with_name(f"next-{self.key.name}")

    def stamp(self) -> Stamp | None:
        """Return the stamp of both files as they are now, None when one is missing.

        Raises:
            Broken: One of them cannot be looked at.
        """
        try:
            found = [path.stat() for path in (self.certificate, self.key)]
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise Broken(
                f"TLS certificate {self.certificate} or key {self.key} cannot be read: {reason}"
            ) from error
        return tuple((one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) for one in found)

    def _known_passphrase(self) -> bytes:
        if self.passphrase is None:
            raise Unreachable(f"passphrase of {self.key} could not be read yet")
        return self.passphrase

    def load(self) -> Pair:
        """Return the pair, with a TLS context of its own.

        Raises:
            Broken: The files cannot be read or do not fit.
            Unreachable: The passphrase could not be read yet.
        """
        before = self.stamp()
        context = new_context()
        try:
            context.load_cert_chain(self.certificate, self.key, password=self._known_passphrase())
            leaf = x509.load_pem_x509_certificates(self.certificate.read_bytes())[0]
        except (OSError, ssl.SSLError, ValueError) as error:
            reason = (getattr(error, "strerror", None) or str(error)).lower()
            raise Broken(
                f"TLS certificate {self.certificate} with key {self.key} cannot be used: {reason}"
            ) from error
        # Taken before reading: what changed since is seen at the next look.
        return Pair(leaf, before or (), context)

    def seal_key(self) -> None:
        """Put a key that an earlier version kept in the clear under the passphrase."""
        try:
            pem = self.key.read_bytes()
            if b"ENCRYPTED" in pem:
                return
            key = load_pem_private_key(pem, None)
        except (OSError, ValueError, TypeError):
            return
        if isinstance(key, ec.EllipticCurvePrivateKey):
            write_whole(self.key, encrypt_private_key(key, self._known_passphrase()), KEY_MODE)

    def read_next_key(self) -> ec.EllipticCurvePrivateKey | None:
        """Return the key whose certificate is on its way, or None."""
        try:
            key = decrypt_private_key(self.next_key.read_bytes(), self._known_passphrase())
        except (OSError, ValueError):
            return None
        return key if isinstance(key, ec.EllipticCurvePrivateKey) else None

    def keep_next_key(self, key: ec.EllipticCurvePrivateKey) -> None:
        """Keep a key before its certificate is ordered.

        Raises:
            Broken: It cannot be written.
        """
        self._write((self.next_key, encrypt_private_key(key, self._known_passphrase()), KEY_MODE))

    def take_next(self, chain: bytes) -> None:
        """Put *chain* and the key that was kept for it in place of the pair.

        Raises:
            Broken: They cannot be written.
        """
        try:
            key = self.next_key.read_bytes()
        except OSError as error:
            raise Broken(f"{self.next_key} cannot be read: {error.strerror}") from error
        # When the process ends between the two they do not fit, and this is done once more.
        self._write((self.key, key, KEY_MODE), (self.certificate, chain, CERTIFICATE_MODE))
        self.next_key.unlink(missing_ok=True)

    def put(self, chain: bytes, key: ec.EllipticCurvePrivateKey) -> None:
        """Write both; when the second does not follow, they do not fit and are made anew.

        Raises:
            Broken: They cannot be written.
        """
        sealed = encrypt_private_key(key, self._known_passphrase())
        self._write((self.key, sealed, KEY_MODE), (self.certificate, chain, CERTIFICATE_MODE))

    def _write(self, *files: tuple[Path, bytes, int]) -> None:
        folder = self.certificate.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path, data, mode in files:
                write_whole(path, data, mode)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Broken(f"{folder} cannot be written: {reason}") from error


def new_context() -> ssl.SSLContext:
    """Return a context for the listener, without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def ask_for_clients(context: ssl.SSLContext, anchors: Path | None) -> None:
    """Have *context* ask clients for a certificate of the CAs in the PEM file *anchors*, which
    they may leave out; None: it asks for none.

    Raises:
        Broken: The file cannot be used.
    """
    if anchors is None:
        return
    try:
        context.load_verify_locations(cafile=anchors)
    except (OSError, ssl.SSLError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise Broken(f"client anchors {anchors} cannot be used: {reason}") from error
    context.verify_mode = ssl.CERT_OPTIONAL


def write_whole(path: Path, data: bytes, mode: int) -> None:
    """Write beside and rename, so that nobody ever reads half a file."""
    temporary = path.with_name(f".{path.name}.new")
    # One that is left over keeps its mode when it is opened again.
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
