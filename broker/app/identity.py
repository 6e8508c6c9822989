"""The broker's own TLS certificate: from files, from the built-in CA, or from an ACME upstream.

What is issued is kept across restarts, and replaced in time by the same source.  Whatever fails
leaves the certificate in use as it is; how long that may go on is told to probes and metrics.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.app.own_files import Pair, PairFiles, ask_for_clients, new_context
from broker.config import Config
from broker.config.upstreams import BuiltinUpstream
from broker.issuance.accounts import new_id
from broker.issuance.errors import Broken, Conflict, Refused, Unreachable
from broker.issuance.key_ports import ReadSecret
from broker.issuance.own_certificate import OwnCertificates, OwnOrder
from broker.issuance.ports import Clock, UpstreamRequest
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.upstreams.builtin import BuiltinCa

__all__ = ["Identity", "own_names"]

RENEW_SHARE: Final = 3
"""A third of the lifetime before its end, the certificate is replaced."""

ORDER_WAIT: Final = timedelta(seconds=5)
"""How long one look waits for an own order: a fast CA is done within it, another at a later one."""


class Identity:
    """Keeps the TLS context of the ACME listener up to date."""

    def __init__(
        self,
        config: Config,
        *,
        passphrase: ReadSecret,
        find_authority: Callable[[str], BuiltinCa | None],
        clock: Clock,
        own: OwnCertificates | None = None,
        is_held: Callable[[], bool] = lambda: False,
    ) -> None:
        """Keep the certificate that *config* asks for.

        *own* orders it, where it comes from an ACME upstream.  While *is_held* says so, as on a
        restored broker, nothing is ordered.  *passphrase* is that of the key that is ours.
        """
        self._config = config
        self._find_authority = find_authority
        self._clock = clock
        self._own = own
        self._read_passphrase = passphrase
        self._is_held = is_held
        self._front = new_context()
        self._front.sni_callback = self._choose
        self._client_anchors = config.listen.acme.client_anchors
        if self._client_anchors is not None:
            self._front.verify_mode = ssl.CERT_OPTIONAL
        self._pair: Pair | None = None
        self._shown: ssl.SSLContext | None = None
        """Of the pair that was loaded last, whatever became of its files since."""
        self._renew_at: datetime | None = None
        self._looking = asyncio.Lock()
        self.trouble: str | None = None
        """Why the last attempt to renew or reload failed; None when it did not."""
        self.failures = 0
        """Failed attempts since the start."""
        listener = config.listen.acme
        directory = config.state / "tls"
        if listener.certificate is not None and listener.key is not None:
            self._files = PairFiles(listener.certificate, listener.key, b"")
        else:
            self._files = PairFiles(directory / "tls.crt", directory / "tls.key", None)

    # ------------------------------------------------------------------------------ what is told

    @property
    def files(self) -> PairFiles:
        """Return where the pair lies, for a listener that shows it on terms of its own."""
        return self._files

    @property
    def is_usable(self) -> bool:
        """Whether there is a certificate to serve with, ended or not."""
        return self._pair is not None

    @property
    def not_after(self) -> datetime | None:
        """Return the end of the certificate in use."""
        return self._pair.leaf.not_valid_after_utc if self._pair is not None else None

    def fault(self) -> str | None:
        """Return why clients cannot be served, None when they can."""
        end = self.not_after
        if end is None:
            return f"no certificate yet: {self.trouble or 'it is being ordered'}"
        if self._clock.now() >= end:
            return f"ended {end:%Y-%m-%dT%H:%M:%SZ}: {self.trouble or 'it is being renewed'}"
        return None

    def warning(self) -> str | None:
        """Return what a person should look at while clients are served all the same."""
        end = self.not_after
        if end is None or self.trouble is None:
            return None
        return f"ends {end:%Y-%m-%dT%H:%M:%SZ}, and its renewal fails: {self.trouble}"

    # ------------------------------------------------------------------------------ what is done

    async def context(self) -> ssl.SSLContext:
        """Return the listener's context, which shows the newest pair that could be loaded.

        There is one, unless an ACME upstream has yet to give it, or the built-in CA, whose key is
        away, or the passphrase lies in a Vault that is.

        Raises:
            Broken: The files cannot be used, or the built-in CA has not been made.
        """
        # What is there is served; what is not is waited for like that of any other CA.
        with suppress(Unreachable):
            if self._own is None:
                await self.refresh()
            else:
                await self._prepare()
                await asyncio.to_thread(self._load_ours)
        return self._front

    async def refresh(self) -> None:
        """Renew the certificate if it is ours and due, and load it anew if its files changed.

        New connections get the new one; those that are open keep theirs.  What cannot be used
        leaves everything as it was.

        Raises:
            Broken: The files cannot be used, the CA refuses, or its order did.
            Unreachable: The CA cannot issue now.
        """
        async with self._looking:
            try:
                await self._refresh()
            except (Broken, Unreachable) as error:
                self.failures += 1
                is_new, self.trouble = self.trouble != error.reason, error.reason
                # The same failure again is told by probes and metrics, and not every few seconds
                # by the log.
                if is_new:
                    raise
            else:
                self.trouble = None

    async def _refresh(self) -> None:
        issuer = self._config.listen.acme.issued_by
        if issuer is None:
            await asyncio.to_thread(self._load_files)
            return
        await self._prepare()
        await asyncio.to_thread(self._load_ours)
        if not self._is_due() or (self._is_held() and self._pair is not None):
            return
        if self._own is None:
            await self._issue(issuer)
        else:
            await self._order(self._own)

    async def _prepare(self) -> None:
        """See that the passphrase is known; raises Unreachable while it is not to be had."""
        if self._files.passphrase is None:
            self._files.passphrase = await self._read_passphrase()

    def _load_files(self) -> None:
        stamp = self._files.stamp()
        if self._pair is None or stamp is None or stamp != self._pair.stamp:
            self._use(self._files.load())

    def _load_ours(self) -> None:
        """Load what lies in the state directory; what is missing or damaged is no certificate."""
        stamp = self._files.stamp()
        if stamp is None or (self._pair is not None and stamp == self._pair.stamp):
            if stamp is None:
                self._pair = None
            return
        self._files.seal_key()
        try:
            self._use(self._files.load())
        except Broken:
            self._pair = None
        self._renew_at = None

    def _use(self, pair: Pair) -> None:
        ask_for_clients(pair.context, self._client_anchors)
        self._pair, self._shown = pair, pair.context

    def _choose(
        self, handshake: ssl.SSLObject, _name: str | None, _front: ssl.SSLContext, /
    ) -> int | None:
        """Give a handshake the pair in use, whole: also called where the client names no host.

        To load another pair into the context in use would leave it without a key for as long as
        the passphrase is stretched, and every handshake meanwhile would fail.
        """
        if self._shown is None:
            return int(ssl.ALERT_DESCRIPTION_INTERNAL_ERROR)
        handshake.context = self._shown
        return None

    def _is_due(self) -> bool:
        if self._pair is None or not self._is_for_host(self._pair.leaf):
            return True
        leaf = self._pair.leaf
        lifetime = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        due = leaf.not_valid_after_utc - lifetime / RENEW_SHARE
        return self._clock.now() >= min(due, self._renew_at or due)

    # ------------------------------------------------------------------------ the built-in CA

    async def _issue(self, upstream: str) -> None:
        ca = self._find_authority(upstream)
        if ca is None:
            raise Broken(f"built-in CA '{upstream}' has not been made; run penstock ca init first")
        private = ec.generate_private_key(ec.SECP256R1())
        request = UpstreamRequest(
            reference=new_id(),
            identifiers=own_names(self._config),
            profile=self._profile(upstream),
            not_after=None,
        )
        try:
            chain = await ca.certify(request, _spki(private))
        except Refused as refusal:
            raise Broken(
                f"built-in CA '{upstream}' refuses the broker's own certificate: "
                f"{refusal.problem.detail}"
            ) from refusal
        await asyncio.to_thread(self._files.put, chain, private)
        await asyncio.to_thread(self._load_ours)

    def _profile(self, upstream: str) -> str | None:
        section = self._config.upstreams[upstream]
        return section.server_profile if isinstance(section, BuiltinUpstream) else None

    # ----------------------------------------------------------------------- an ACME upstream

    async def _order(self, own: OwnCertificates) -> None:
        """Take what was ordered, wait for it, or order: one order at a time, restarts or not."""
        latest, key = await own.latest(), await asyncio.to_thread(self._files.read_next_key)
        is_under_way = latest is not None and key is not None and _is_for(latest, key)
        if latest is not None and latest.refusal is not None:
            if latest.retry_at is None or self._clock.now() < latest.retry_at:
                raise Broken(f"order {latest.order_id} for it was refused: {latest.refusal}")
            is_under_way = False
        if not is_under_way:
            key = ec.generate_private_key(ec.SECP256R1())
            await asyncio.to_thread(self._files.keep_next_key, key)
            try:
                await own.begin(_csr(key, own_names(self._config)))
            except Conflict as lost:
                raise Unreachable(lost.reason) from lost
            latest = await own.latest()
        if latest is not None and latest.chain_pem is None and latest.refusal is None:
            await own.settled(latest.order_id, ORDER_WAIT)
            latest = await own.latest()
        await self._take(latest)

    async def _take(self, order: OwnOrder | None) -> None:
        if order is None or order.chain_pem is None:
            where = f"order {order.order_id}" if order is not None else "an order"
            said = order.refusal if order is not None else None
            if said is not None:
                raise Broken(f"{where} for it was refused: {said}")
            raise Unreachable(f"{where} for it is on its way; see penstock order show")
        await asyncio.to_thread(self._files.take_next, order.chain_pem)
        await asyncio.to_thread(self._load_ours)

    async def follow_window(self) -> None:
        """Renew when the CA suggests it, if it says anything (RFC 9773 §4.2)."""
        if self._own is None or self._pair is None:
            return
        window = await self._own.window()
        if window is not None:
            self._renew_at = _moment_within(*window, self._pair.leaf)

    # --------------------------------------------------------------------------------- together

    def _is_for_host(self, leaf: x509.Certificate) -> bool:
        try:
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return False
        has = set(names.get_values_for_type(x509.DNSName))
        has |= {str(one) for one in names.get_values_for_type(x509.IPAddress)}
        return has >= {one.value for one in own_names(self._config)}


def own_names(config: Config) -> tuple[Identifier, ...]:
    """Return the names that the broker is reached by, the one of clients first."""
    host = urlsplit(config.external_url).hostname or ""
    return tuple(dict.fromkeys(_own_name(one) for one in (host, *config.listen.acme.names)))


def _own_name(host: str) -> Identifier:
    try:
        return Identifier(IdentifierType.IP, str(ipaddress.ip_address(host)))
    except ValueError:
        return Identifier(IdentifierType.DNS, host)


def _spki(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _is_for(order: OwnOrder, key: ec.EllipticCurvePrivateKey) -> bool:
    return order.spki_sha256 == hashlib.sha256(_spki(key)).hexdigest()


def _csr(key: ec.EllipticCurvePrivateKey, names: Sequence[Identifier]) -> bytes:
    general = [
        x509.IPAddress(ipaddress.ip_address(name.value))
        if name.type is IdentifierType.IP
        else x509.DNSName(name.value)
        for name in names
    ]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _moment_within(start: datetime, end: datetime, leaf: x509.Certificate) -> datetime:
    """Return a moment of the window, drawn by the certificate: the same at every look."""
    drawn = int.from_bytes(leaf.fingerprint(hashes.SHA256())[:4], "big") / 2**32
    return start + (end - start) * drawn
