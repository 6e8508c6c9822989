"""The broker's own TLS certificate: from files, or once from the built-in CA and then kept."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from broker.config import Config
from broker.config.upstreams import BuiltinUpstream
from broker.issuance.accounts import new_id
from broker.issuance.errors import Broken, Refused
from broker.issuance.ports import Clock, UpstreamRequest
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.upstreams.builtin import BuiltinCa

__all__ = ["Identity"]

RENEW_SHARE: Final = 3
"""A third of the lifetime before its end, the certificate is replaced."""

KEY_MODE: Final = 0o600
"""Mode of the key's file: nobody but the broker reads it."""

CERTIFICATE_MODE: Final = 0o644
"""Mode of the certificate's file: every client is shown it anyway."""


class Identity:
    """Keeps the TLS context of the ACME listener up to date."""

    def __init__(
        self, config: Config, *, find_authority: Callable[[str], BuiltinCa | None], clock: Clock
    ) -> None:
        self._config = config
        self._find_authority = find_authority
        self._clock = clock
        self._context = _new_context()
        self._stamp: tuple[int, int] | None = None

    async def context(self) -> ssl.SSLContext:
        """Return the context, its certificate in place.

        Raises:
            Broken: The files cannot be used, or the built-in CA has not been made.
            Unreachable: The built-in CA cannot issue now.
        """
        await self.refresh()
        return self._context

    async def refresh(self) -> None:
        """Renew the certificate if it is ours and due, and load it anew if its files changed.

        New connections get the new one; those that are open keep theirs.  What cannot be used
        leaves everything as it was.

        Raises:
            Broken: The files cannot be used, or the built-in CA refuses.
            Unreachable: The built-in CA cannot issue now.
        """
        issued_by = self._config.listen.acme.issued_by
        if issued_by is not None and not await asyncio.to_thread(self._is_good):
            await self._issue(issued_by)
        await asyncio.to_thread(self._load_if_changed)

    def _load_if_changed(self) -> None:
        certificate, key = self._files()
        try:
            stamp = (certificate.stat().st_mtime_ns, key.stat().st_mtime_ns)
            if stamp == self._stamp:
                return
            # Tried apart first: one that is replaced at this moment may not fit its key yet, and
            # would leave the context in use without either.
            _new_context().load_cert_chain(certificate, key, password="")
            self._context.load_cert_chain(certificate, key, password="")
        except (OSError, ssl.SSLError) as error:
            reason = (error.strerror or str(error)).lower()
            raise Broken(
                f"TLS certificate {certificate} with key {key} cannot be used: {reason}"
            ) from error
        self._stamp = stamp

    def _files(self) -> tuple[Path, Path]:
        listener = self._config.listen.acme
        if listener.certificate is not None and listener.key is not None:
            return listener.certificate, listener.key
        directory = self._config.state / "tls"
        return directory / "tls.crt", directory / "tls.key"

    async def _issue(self, upstream: str) -> None:
        ca = self._find_authority(upstream)
        if ca is None:
            raise Broken(f"built-in CA '{upstream}' has not been made; run penstock ca init first")
        private = ec.generate_private_key(ec.SECP256R1())
        spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        request = UpstreamRequest(
            reference=new_id(),
            identifiers=(self._host(),),
            profile=self._profile(upstream),
            not_after=None,
        )
        try:
            chain = await ca.certify(request, spki)
        except Refused as refusal:
            raise Broken(
                f"built-in CA '{upstream}' refuses the broker's own certificate: "
                f"{refusal.problem.detail}"
            ) from refusal
        key = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        await asyncio.to_thread(self._keep, chain, key)

    def _profile(self, upstream: str) -> str | None:
        section = self._config.upstreams[upstream]
        return section.server_profile if isinstance(section, BuiltinUpstream) else None

    def _keep(self, chain: bytes, key: bytes) -> None:
        """Write both; when the second does not follow, they do not fit and are made anew."""
        certificate_file, key_file = self._files()
        try:
            certificate_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(key_file, key, KEY_MODE)
            _write(certificate_file, chain, CERTIFICATE_MODE)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise Broken(f"{certificate_file.parent} cannot be written: {reason}") from error

    def _host(self) -> Identifier:
        host = urlsplit(self._config.external_url).hostname or ""
        try:
            return Identifier(IdentifierType.IP, str(ipaddress.ip_address(host)))
        except ValueError:
            return Identifier(IdentifierType.DNS, host)

    def _is_good(self) -> bool:
        """Return whether there is a certificate that is not due, for our host and of our key."""
        certificate_file, key_file = self._files()
        try:
            leaf = x509.load_pem_x509_certificates(certificate_file.read_bytes())[0]
            key = load_pem_private_key(key_file.read_bytes(), None)
        except (OSError, ValueError, TypeError):
            return False
        lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        is_due = self._clock.now() >= leaf.not_valid_after_utc - lifetime / RENEW_SHARE
        return not is_due and leaf.public_key() == key.public_key() and self._is_for_host(leaf)

    def _is_for_host(self, leaf: x509.Certificate) -> bool:
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return False
        host = self._host()
        if host.type is IdentifierType.IP:
            return host.value in {str(one) for one in names.get_values_for_type(x509.IPAddress)}
        return host.value in names.get_values_for_type(x509.DNSName)


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _write(path: Path, data: bytes, mode: int) -> None:
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
