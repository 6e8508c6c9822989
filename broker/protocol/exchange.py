"""The client side of ACME as a conversation: one request, from its nonce to its answer.

Whoever drives an `Exchange` asks it for the next step and tells it what came of the last one:
fetch a nonce, sign these octets, send this request.  The exchange knows the rules of RFC 8555 §6,
the driver has the connection, the key and the clock.  A conversation ends with an `Answer` or one
of three exceptions, cut by what to do next: `Problem` (the CA refused), `Unavailable` (try later),
`ProtocolError` (the CA broke the protocol).

No request leaves for a place that the operator did not name: every URL, whoever handed it out, is
held against `TrustedOrigins` first, and redirects are not followed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from urllib.parse import urljoin

from broker.protocol.encoding import is_base64url, parse_json_object
from broker.protocol.headers import parse_links, parse_media_type, parse_retry_after
from broker.protocol.jws import Jwk, seal, signing_input
from broker.protocol.members import ProtocolError
from broker.protocol.origins import TrustedOrigins
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = [
    "JSON",
    "PEM_CHAIN",
    "Answer",
    "Call",
    "Exchange",
    "HttpRequest",
    "HttpResponse",
    "SigningInput",
    "Unavailable",
    "failure_of",
    "is_nonce_refused",
]

MAX_ANSWER_BYTES: Final = 64 * 1024
"""Largest body that is read from a CA, in bytes; an order for 100 names takes 20 KiB."""

MAX_CERTIFICATE_BYTES: Final = 100 * 1000
"""Largest certificate chain that is read, in bytes: ten certificates with 100 names each."""

MAX_NONCE_TRIES: Final = 5
"""How often one request is sent when its nonce is refused each time.

RFC 8555 §6.5 allows a CA to refuse good nonces; five in a row is an outage.
"""

MAX_NONCE_CHARS: Final = 512
"""Longest nonce that is taken from a CA, in characters; longer ones count as none."""

JSON: Final = "application/json"
PEM_CHAIN: Final = "application/pem-certificate-chain"
_PROBLEM_JSON: Final = "application/problem+json"
_JOSE_JSON: Final = "application/jose+json"

_TRY_LATER: Final = frozenset({408, 425, 429})
"""Statuses below 500 that say nothing against the request itself."""

_NEVER: Final = frozenset({501, 505})
"""Statuses from 500 on that no waiting will change: the CA does not do this at all."""

_GONE: Final = frozenset({404, 410})


class Unavailable(Exception):
    """The CA cannot answer now: try later, at ``retry_at`` if it named a time.

    ``status`` is the HTTP status that said so, None where no status is to blame.
    """

    def __init__(
        self, reason: str, *, retry_at: datetime | None = None, status: int | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_at = retry_at
        self.status = status


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What the driver has to send, without following redirects."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = field(default=None, repr=False)
    max_answer_bytes: int = MAX_ANSWER_BYTES
    """Where to stop reading the answer; a longer one is handed in with ``is_cut``."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """What came back, headers in their order."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(default=b"", repr=False)
    is_cut: bool = False
    """Whether the body went on past what may be read."""

    def header(self, name: str) -> str | None:
        """Return the first value of a header, or None."""
        return next(iter(self.header_values(name)), None)

    def header_values(self, name: str) -> tuple[str, ...]:
        """Return every value of a header."""
        wanted = name.lower()
        return tuple(value for key, value in self.headers if key.lower() == wanted)


@dataclass(frozen=True, slots=True)
class SigningInput:
    """Octets to be signed with the account key."""

    octets: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """A success, with everything in its headers that ACME knows how to read."""

    url: str
    status: int
    body: bytes = field(repr=False)
    media_type: str | None
    location: str | None
    """The Location header, made absolute and held against the trusted origins."""
    retry_at: datetime | None
    next_url: str | None
    """The Link of relation ``next``, treated like Location."""
    alternates: tuple[str, ...] = ()
    """The Links of relation ``alternate`` (RFC 8555 §7.4.2), each once, without any that leads
    to an origin that is not trusted: nothing is lost by not going there."""

    def json(self) -> dict[str, Any]:
        """Return the body's JSON object.

        Raises:
            ProtocolError: It is of another media type, or does not parse strictly.
        """
        self.verify_media_type(JSON)
        try:
            return parse_json_object(self.body, what=f"answer of {self.url}")
        except Problem as problem:
            raise ProtocolError(problem.detail) from problem

    def verify_media_type(self, expected: str) -> bytes:
        """Return the body, proven to be labelled as *expected*.

        Raises:
            ProtocolError: It is of another media type.
        """
        if self.media_type != expected:
            raise ProtocolError(
                f"{self.url} answered {self.status} as {self.media_type or 'nothing at all'}, "
                f"expected {expected}"
            )
        return self.body


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One signed request: where to, what, and who says so.

    ``payload`` is None for a POST-as-GET (RFC 8555 §6.3).  Exactly one of ``kid`` and ``jwk`` is
    set (RFC 8555 §6.2).
    """

    url: str
    payload: Mapping[str, Any] | None
    alg: str
    kid: str | None = None
    jwk: Jwk | None = None
    accept: str = JSON
    max_answer_bytes: int = MAX_ANSWER_BYTES

    def __post_init__(self) -> None:
        if (self.kid is None) == (self.jwk is None):
            raise ValueError("a call is made with a kid or a jwk, not with both or neither")


class Exchange:
    """One signed request, from its nonce to its answer."""

    def __init__(
        self, call: Call, *, nonce_url: str, origins: TrustedOrigins, nonce: str | None = None
    ) -> None:
        """Begin; *nonce* is one that an earlier answer left behind, None to fetch one.

        Raises:
            ProtocolError: One of the URLs leads to an origin that is not trusted.
        """
        self._call = call
        self._origins = origins
        self._url = origins.verify_url(call.url, "request URL")
        self._nonce_url = origins.verify_url(nonce_url, "directory.newNonce")
        self._nonce = nonce
        self._octets: bytes | None = None
        self._body: bytes | None = None
        self._tries = 0

    @property
    def spare_nonce(self) -> str | None:
        """Return the nonce that the last answer left and nobody has used: keep it for another."""
        return self._nonce if self._octets is None else None

    def next_request(self) -> HttpRequest | SigningInput:
        """Return what has to be sent or signed now; asking twice changes nothing."""
        if self._body is not None:
            headers = {"Content-Type": _JOSE_JSON, "Accept": self._call.accept}
            return HttpRequest("POST", self._url, headers, self._body, self._call.max_answer_bytes)
        if self._nonce is None:
            return HttpRequest("HEAD", self._nonce_url, {"Cache-Control": "no-store"})
        if self._octets is None:
            self._octets = signing_input(self._protected(self._nonce), self._payload())
        return SigningInput(self._octets)

    def receive_signature(self, signature: bytes) -> None:
        """Take the signature over the octets that `next_request` gave out."""
        if self._octets is None or self._body is not None:
            raise RuntimeError("a signature came that nobody asked for")
        self._body = seal(self._octets, signature)

    def receive_response(self, response: HttpResponse, now: datetime) -> Answer | None:
        """Take the answer to the request that `next_request` gave out; None: go on asking.

        Raises:
            Problem: The CA refused.
            Unavailable: The CA cannot answer now, or refuses every nonce.
            ProtocolError: The CA broke the protocol.
        """
        was_sent = self._body is not None
        self._nonce, self._octets, self._body = _read_nonce(response), None, None
        url = self._url if was_sent else self._nonce_url
        if response.is_cut:
            limit = self._call.max_answer_bytes if was_sent else MAX_ANSWER_BYTES
            raise ProtocolError(f"{url} answered more than {limit} bytes")
        if not was_sent:
            self._check_nonce_answer(response, now)
            return None
        self._tries += 1
        if is_nonce_refused(response):
            if self._tries >= MAX_NONCE_TRIES:
                raise Unavailable(f"{url} refused {self._tries} nonces in a row")
            return None
        if not 200 <= response.status <= 299:
            raise failure_of(url, response, now, is_read=self._call.payload is None)
        return self._answer(response, now)

    def _check_nonce_answer(self, response: HttpResponse, now: datetime) -> None:
        if not 200 <= response.status <= 299:
            raise failure_of(self._nonce_url, response, now)
        if self._nonce is None:
            raise ProtocolError(f"{self._nonce_url} gave no nonce (RFC 8555 §7.2)")

    def _protected(self, nonce: str) -> dict[str, Any]:
        call = self._call
        who = {"kid": call.kid} if call.jwk is None else {"jwk": call.jwk.to_json()}
        return {"alg": call.alg, "nonce": nonce, "url": call.url, **who}

    def _payload(self) -> bytes:
        if self._call.payload is None:
            return b""
        return json.dumps(self._call.payload, separators=(",", ":")).encode("utf-8")

    def _answer(self, response: HttpResponse, now: datetime) -> Answer:
        links = parse_links(response.header_values("Link"))
        return Answer(
            url=self._url,
            status=response.status,
            body=response.body,
            media_type=parse_media_type(response.header("Content-Type")),
            # An empty reference leads back to the request (RFC 3986 §4.4): it names nothing made.
            location=self._absolute(response.header("Location") or None, "Location header"),
            retry_at=parse_retry_after(response.header("Retry-After"), now),
            next_url=self._absolute(dict(reversed(links)).get("next"), "Link header"),
            alternates=self._trusted(target for name, target in links if name == "alternate"),
        )

    def _trusted(self, targets: Iterable[str]) -> tuple[str, ...]:
        """Return those of *targets* that may be followed, each once."""
        found: list[str] = []
        for target in targets:
            with suppress(ProtocolError):
                url = self._absolute(target, "Link header")
                if url is not None and url not in (*found, self._url):
                    found.append(url)
        return tuple(found)

    def _absolute(self, url: str | None, what: str) -> str | None:
        if url is None:
            return None
        try:
            joined = urljoin(self._url, url)
        except ValueError:
            raise ProtocolError(f"{what}: '{printable(url, 300)}' is no URL") from None
        return self._origins.verify_url(joined, what)


def _read_nonce(response: HttpResponse) -> str | None:
    """Return the nonce an answer brings; RFC 8555 §6.5.1: an invalid one is ignored."""
    nonce = response.header("Replay-Nonce")
    if nonce is None or len(nonce) > MAX_NONCE_CHARS or not is_base64url(nonce):
        return None
    return nonce


def _read_problem(response: HttpResponse) -> Problem | None:
    if parse_media_type(response.header("Content-Type")) != _PROBLEM_JSON:
        return None
    try:
        document = parse_json_object(response.body)
    except Problem:
        return None
    return Problem.from_json(document, response.status)


def is_nonce_refused(response: HttpResponse) -> bool:
    """Return whether the CA refused a request for its nonce alone (RFC 8555 §6.5)."""
    if response.status < 400:
        return False
    problem = _read_problem(response)
    return problem is not None and problem.type is ProblemType.BAD_NONCE


def failure_of(
    url: str, response: HttpResponse, now: datetime, *, is_read: bool = False
) -> Problem | Unavailable | ProtocolError:
    """Return what an answer other than success means to the caller.

    *is_read* says that the request was a POST-as-GET: a bare 404 with a nonce is the CA's own.
    """
    status, problem = response.status, _read_problem(response)
    retry_at = parse_retry_after(response.header("Retry-After"), now)
    said = f": {problem.token}: {problem.detail}" if problem is not None else ""
    if status in _TRY_LATER or (500 <= status <= 599 and status not in _NEVER):
        return Unavailable(f"{url} answered {status}{said}", retry_at=retry_at, status=status)
    if problem is not None and problem.type is ProblemType.RATE_LIMITED:
        return Unavailable(f"{url} answered {status}{said}", retry_at=retry_at, status=429)
    if 300 <= status <= 399:
        return ProtocolError(f"{url} answered {status}, a redirect, and none is followed")
    if problem is None and is_read and status in _GONE and _read_nonce(response) is not None:
        # Some CAs send a bare 404 for what they do not know.  With a nonce it is the CA's own
        # and no page of a proxy's.
        problem = Problem(ProblemType.MALFORMED, f"{url} is not there", status=status)
    if problem is None or not 400 <= status <= 499:
        return ProtocolError(f"{url} answered {status}{said or ' without a problem document'}")
    problem.retry_after = retry_at - now if retry_at is not None else None
    return problem
