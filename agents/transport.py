"""HTTPS to the broker: one request, one answer, or one stream of lines.

Knows how a connection is made (proxy, anchors, client certificate), how long it may be silent and
how much may come over it.  Does not know what the messages mean.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agents.answers import Answer, judge, printable
from agents.clock import Clock
from agents.config import BrokerSection
from agents.errors import ClocksDiffer, Impostor, NotKnown, Silent, Unreachable
from agents.exchange import Exchange, HttpFault
from agents.kept import Kept
from agents.proxies import Proxy, ProxyFault, find_proxy, split_address
from agents.wire import MAX_BATCH_BYTES

__all__ = ["Answer", "ClientPair", "Signer", "Stream", "Transport"]

CONNECT_SECONDS: Final = 15.0
"""How long a connection may take to be made, in seconds: one lost packet of each handshake."""

ANSWER_SECONDS: Final = 30.0
"""How long an answer may take in all, in seconds, where nothing else is said."""

SILENT_SECONDS: Final = 60.0
"""After how many seconds without a line a stream is given up: the broker beats every 20 s, and two
beats may be lost with a proxy that sends late."""

HTTPS_PORT: Final = 443
"""Port of a broker whose URL names none."""

STALE: Final = "stale-signature"
"""How the broker names a signature that it cannot believe because it is from before its start."""

_OUT_OF_TIME: Final = (9, 10)
"""What OpenSSL calls a certificate whose time has not come, or is over (X509_V_ERR)."""

_UNKNOWN_CLIENT: Final = (
    "CERTIFICATE_EXPIRED",
    "CERTIFICATE_REVOKED",
    "CERTIFICATE_UNKNOWN",
    "BAD_CERTIFICATE",
    "UNKNOWN_CA",
    "CERTIFICATE_REQUIRED",
)
"""Alerts by which a server refuses a client certificate (RFC 8446 §6.2)."""


@dataclass(frozen=True, slots=True)
class ClientPair:
    """PEM files of a client certificate and its key."""

    certificate: str
    key: str


Signer = Callable[[str, str, str, bytes], Mapping[str, str]]
"""Signs a request: method, path, query with its ``?``, body → headers to send with it."""


@dataclass(frozen=True, slots=True)
class _Request:
    """A request as it is to be sent, perhaps twice."""

    method: str
    path: str
    query: str
    body: bytes
    pair: ClientPair | None
    sign: Signer | None
    seconds: float
    is_repeatable: bool = False


class Stream:
    """Lines as they come; closing it from another thread ends the wait for the next one."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._buffer = b""

    def line(self, seconds: float = SILENT_SECONDS) -> str:
        """Return the next line without its end.

        Raises:
            TimeoutError: Nothing came for so long.
            Unreachable: The stream has ended, or is not one.
        """
        parts = [self._buffer]
        size = len(self._buffer)
        self._exchange.socket.settimeout(seconds)
        while b"\n" not in parts[-1]:
            if size > MAX_BATCH_BYTES:
                raise Unreachable("the stream has a line past the limit")
            parts.append(self._next())
            size += len(parts[-1])
        line, _, self._buffer = b"".join(parts).partition(b"\n")
        return line.rstrip(b"\r").decode("utf-8", "replace")

    def _next(self) -> bytes:
        try:
            octets = self._exchange.receive()
        except TimeoutError:
            raise
        except (OSError, HttpFault, ValueError) as error:
            raise Unreachable(f"the stream broke off: {_name(error)}") from None
        if not octets:
            raise Unreachable("the stream ended")
        return octets

    def interrupt(self) -> None:
        """End the wait of whoever reads a line; may be called from another thread."""
        with contextlib.suppress(OSError):
            # The plain socket's own shutdown: that of TLS would pull the state from below a reader.
            socket.socket.shutdown(self._exchange.socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the connection back."""
        self._exchange.close()


class Transport:
    """Makes connections to the broker."""

    def __init__(
        self,
        broker: BrokerSection,
        *,
        clock: Clock,
        environment: Mapping[str, str] = os.environ,
        agent: str = "",
    ) -> None:
        self.use(broker)
        self._clock = clock
        self._environment = environment
        self._agent = agent
        self._kept = Kept()

    def use(self, broker: BrokerSection) -> None:
        """Speak to that broker from the next connection on."""
        address, stroke, below = broker.url.partition("://")[2].partition("/")
        host, port = split_address(address)
        self._host, self._port = host, port or HTTPS_PORT
        self._below = stroke + below
        bracketed = f"[{host}]" if ":" in host else host
        self._host_field = f"{bracketed}:{self._port}"
        self._broker = broker

    def call(
        self,
        method: str,
        path: str,
        *,
        query: str = "",
        body: bytes = b"",
        pair: ClientPair | None = None,
        sign: Signer | None = None,
        seconds: float = ANSWER_SECONDS,
        is_repeatable: bool = False,
    ) -> Answer:
        """Send a request and return the answer.

        A refusal for the age of its signature is answered by a new signature, once: what was signed
        before the broker started is not believed.  If that is not believed either, the clocks do
        not agree, which says nothing of who asks.  What is repeatable goes over the connection that
        is kept, and once more over a new one where the broker has closed that without an answer.

        Raises:
            Refused: The broker says no.
            NotKnown: It does not know who asks.
            Unreachable: No answer, or one that asks to come again later.
        """
        request = _Request(
            method, self._below + path, query, body, pair, sign, seconds, is_repeatable
        )
        try:
            return self._call(request)
        except NotKnown as refusal:
            if sign is None or refusal.type != STALE:
                raise
        with self._clocks_in_mind():
            return self._call(request)

    def release(self) -> None:
        """Close the connection that is kept."""
        self._kept.release()

    def open_stream(
        self,
        path: str,
        *,
        query: str = "",
        pair: ClientPair | None = None,
        sign: Signer | None = None,
        seconds: float = ANSWER_SECONDS,
    ) -> Stream:
        """Return a stream of lines; raises like ``call``."""
        request = _Request("GET", self._below + path, query, b"", pair, sign, seconds)
        try:
            return self._open(request)
        except NotKnown as refusal:
            if sign is None or refusal.type != STALE:
                raise
        with self._clocks_in_mind():
            return self._open(request)

    @contextlib.contextmanager
    def _clocks_in_mind(self) -> Iterator[None]:
        """Take a signature made just now that is refused for its time for what it is."""
        try:
            yield
        except NotKnown as refusal:
            if refusal.type != STALE:
                raise
            said = self._clock_said()
            raise ClocksDiffer(f"the broker believes no signature of now: {said}") from None

    def _call(self, request: _Request) -> Answer:
        exchange, status, fields = self._send(request)
        return self._answer(exchange, status, fields, request)

    def _open(self, request: _Request) -> Stream:
        exchange, status, fields = self._send(request)
        if status == 200 and fields.get("content-type", "").startswith("text/event-stream"):
            return Stream(exchange)
        self._answer(exchange, status, fields, request)
        raise Unreachable("what answers is no stream: something else answers for the broker")

    def _answer(
        self, exchange: Exchange, status: int, fields: Mapping[str, str], request: _Request
    ) -> Answer:
        is_kept = False
        try:
            octets = self._read(exchange, request.seconds)
            is_kept = request.is_repeatable and status < 300 and exchange.is_lasting
        finally:
            if not is_kept:
                exchange.close()
        if is_kept:
            self._kept.give(self._way(request), exchange)
        return judge(status, fields, octets)

    # ------------------------------------------------------------------------- one connection

    def _way(self, request: _Request) -> Hashable:
        """Return what a connection has to have in common with that of *request*."""
        pair = request.pair
        made = None
        if pair is not None:
            with contextlib.suppress(OSError):
                made = os.stat(pair.certificate).st_mtime_ns  # renewed in place
        return self._broker, pair, made

    def _send(self, request: _Request) -> tuple[Exchange, int, dict[str, str]]:
        head = self._head(request)
        kept = self._kept.take(self._way(request)) if request.is_repeatable else None
        if kept is not None:
            try:
                return kept, *self._ask(kept, request, *head)
            except Unreachable as fault:
                if kept.has_answered or isinstance(fault, Silent):
                    raise
            head = self._head(request)  # a signature is good once
        exchange = self._connect(request.pair)
        return exchange, *self._ask(exchange, request, *head)

    def _head(self, request: _Request) -> tuple[str, dict[str, str]]:
        fields = {
            "Host": self._host_field,
            "User-Agent": self._agent,
            "Accept": "text/event-stream, application/json",
            "Connection": "keep-alive" if request.is_repeatable else "close",
        }
        if request.body:
            fields["Content-Type"] = "application/json"
        target = request.path
        if request.sign is not None:
            query = f"?{request.query}"
            fields.update(request.sign(request.method, request.path, query, request.body))
        if request.query:
            target += f"?{request.query}"
        return target, fields

    def _ask(
        self, exchange: Exchange, request: _Request, target: str, fields: Mapping[str, str]
    ) -> tuple[int, dict[str, str]]:
        """Send the request and return the answer's head; closes the connection on a fault."""
        try:
            exchange.socket.settimeout(request.seconds)
            exchange.send(request.method, target, fields, request.body)
            return exchange.receive_head()
        except TimeoutError:
            exchange.close()
            raise Silent(f"no answer within {request.seconds:g} s") from None
        except (OSError, HttpFault, ValueError) as error:
            exchange.close()
            raise self._fault(error) from None

    def _connect(self, pair: ClientPair | None) -> Exchange:
        try:
            proxy = find_proxy(self._broker.proxy, self._host, self._port, self._environment)
        except ProxyFault as fault:
            raise Unreachable(str(fault)) from None
        context = self._context(pair)
        host, port = (self._host, self._port) if proxy is None else (proxy.host, proxy.port)
        plain: socket.socket | None = None
        try:
            # As octets: text would be put through IDNA, which brings all of Unicode into memory.
            address: Any = (host.encode("ascii"), port)
            plain = socket.create_connection(address, CONNECT_SECONDS)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if proxy is not None:
                self._ask_for_tunnel(plain, proxy)
            return Exchange(context.wrap_socket(plain, server_hostname=self._host.encode("ascii")))
        except (OSError, HttpFault, ValueError) as error:
            if plain is not None:
                plain.close()
            raise self._fault(error, None if proxy is None else f"by {proxy}") from None

    def _ask_for_tunnel(self, plain: socket.socket, proxy: Proxy) -> None:
        """Have the proxy CONNECT (RFC 9110 §9.3.6)."""
        fields = {"Host": self._host_field, "User-Agent": self._agent}
        if proxy.authorization is not None:
            fields["Proxy-Authorization"] = proxy.authorization
        exchange = Exchange(plain)
        exchange.send("CONNECT", self._host_field, fields)
        status, _ = exchange.receive_head(is_tunnel=True)
        if not 200 <= status < 300:
            raise HttpFault(f"the proxy answers {status}")

    def _context(self, pair: ClientPair | None) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            if self._broker.anchors == "system":
                context.load_default_certs()
            else:
                context.load_verify_locations(self._broker.anchors)
            if pair is not None:
                context.load_cert_chain(pair.certificate, pair.key)
        except (OSError, ValueError) as error:
            said = f"broker.anchors or the identity cannot be read: {_name(error)}"
            raise Unreachable(said) from None
        return context

    def _read(self, exchange: Exchange, seconds: float) -> bytes:
        """Return the whole body, of a bounded size and in a bounded time."""
        until = self._clock.monotonic() + seconds
        parts: list[bytes] = []
        size = 0
        try:
            while part := exchange.receive():
                parts.append(part)
                size += len(part)
                left = until - self._clock.monotonic()
                if size > MAX_BATCH_BYTES or left <= 0:
                    raise Unreachable("the answer is too long or too slow")
                exchange.socket.settimeout(left)
        except (OSError, HttpFault, ValueError) as error:
            raise self._fault(error) from None
        return b"".join(parts)

    # ------------------------------------------------------------------------------- verdicts

    def _fault(self, error: Exception, way: str | None = None) -> Exception:
        where = f"{self._host}:{self._port}" + (f" {way}" if way else "")
        if isinstance(error, ssl.SSLCertVerificationError):
            return Impostor(f"{where} is not the broker: {self._why_not(error)}")
        if isinstance(error, ssl.SSLError):
            reason = error.reason or type(error).__name__
            if any(alert in reason for alert in _UNKNOWN_CLIENT) and "ALERT" in reason:
                return NotKnown(401, "tls", f"the client certificate was refused: {reason}")
            return Unreachable(f"{where}: TLS failed: {reason}")
        if isinstance(error, TimeoutError):
            return Unreachable(f"{where}: no answer in time")
        return Unreachable(f"{where}: {_name(error)}")

    def _why_not(self, error: ssl.SSLCertVerificationError) -> str:
        said = error.verify_message
        if error.verify_code in _OUT_OF_TIME:
            return f"{said}; {self._clock_said()}"
        return f"{said}; look at broker.anchors and at who answers there"

    def _clock_said(self) -> str:
        now = self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"the clock of this node says {now}, look whether that is right"


def _name(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else str(error)
    return printable(text or type(error).__name__, 200)
