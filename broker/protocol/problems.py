"""The one table of ACME problem types, and the exception that carries one.

Everything that names a problem type (constructors, the documentation page, the
tests) is made from `ProblemType`.  This module does not know how a problem
reaches a client: headers such as ``Retry-After`` are kept as plain values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final, Protocol

from broker.protocol import drafts

URN_PREFIX: Final = "urn:ietf:params:acme:error:"
"""Prefix of every registered type.  RFC 8555 §6.7 forbids inventing names under it."""

MAX_DETAIL_CHARS: Final = 1024
"""Longest ``detail`` that is kept, in characters.

Our own sentences stay far below it; the limit is for text that a peer chose.
"""

MAX_SUBPROBLEMS: Final = 100
"""Most subproblems that are read from a peer: one for each identifier of the largest order."""


def printable(text: str, limit: int = MAX_DETAIL_CHARS) -> str:
    """Return *text* with every unprintable character escaped, at most *limit* long.

    Control characters, bidirectional overrides, line separators and lone
    surrogates become ``\\uXXXX``: a peer's text must not steer a terminal, forge
    a log line or break an encoder.
    """
    clipped = text[: limit + 1]
    escaped = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in clipped)
    return escaped if len(escaped) <= limit else escaped[: limit - 1] + "…"


class ProblemType(Enum):
    """A registered ACME problem type: token, HTTP status, source and sentence."""

    MALFORMED = ("malformed", 400, "RFC 8555 §6.7", "the request is malformed")
    BAD_NONCE = ("badNonce", 400, "RFC 8555 §6.5", "the nonce is missing, unknown or spent")
    BAD_CSR = ("badCSR", 400, "RFC 8555 §6.7", "the CSR is unacceptable")
    BAD_PUBLIC_KEY = ("badPublicKey", 400, "RFC 8555 §6.7", "the public key is unacceptable")
    BAD_SIGNATURE_ALGORITHM = (
        "badSignatureAlgorithm",
        400,
        "RFC 8555 §6.2",
        "the signature algorithm is not accepted",
    )
    BAD_REVOCATION_REASON = (
        "badRevocationReason",
        400,
        "RFC 8555 §7.6",
        "the revocation reason is not allowed",
    )
    ALREADY_REVOKED = ("alreadyRevoked", 400, "RFC 8555 §7.6", "the certificate is already revoked")
    ACCOUNT_DOES_NOT_EXIST = (
        "accountDoesNotExist",
        400,
        "RFC 8555 §7.3.1",
        "the account does not exist",
    )
    CAA = ("caa", 403, "RFC 8555 §6.7", "CAA records forbid the issuance")
    COMPOUND = ("compound", 400, "RFC 8555 §6.7.1", "several things are wrong, see subproblems")
    CONNECTION = ("connection", 400, "RFC 8555 §6.7", "the validation target cannot be reached")
    DNS = ("dns", 400, "RFC 8555 §6.7", "a DNS query failed during validation")
    TLS = ("tls", 400, "RFC 8555 §6.7", "TLS failed during validation")
    EXTERNAL_ACCOUNT_REQUIRED = (
        "externalAccountRequired",
        403,
        "RFC 8555 §7.3.4",
        "an external account binding is required",
    )
    INCORRECT_RESPONSE = (
        "incorrectResponse",
        400,
        "RFC 8555 §6.7",
        "the challenge was answered with something else",
    )
    INVALID_CONTACT = ("invalidContact", 400, "RFC 8555 §7.3", "a contact URL is invalid")
    UNSUPPORTED_CONTACT = (
        "unsupportedContact",
        400,
        "RFC 8555 §7.3",
        "a contact URL has an unsupported scheme",
    )
    ORDER_NOT_READY = ("orderNotReady", 403, "RFC 8555 §7.4", "the order is not ready")
    RATE_LIMITED = ("rateLimited", 429, "RFC 8555 §6.6", "the rate limit is reached")
    REJECTED_IDENTIFIER = (
        "rejectedIdentifier",
        400,
        "RFC 8555 §6.7",
        "no certificate is issued for the identifier",
    )
    SERVER_INTERNAL = ("serverInternal", 500, "RFC 8555 §6.7", "the server failed")
    UNAUTHORIZED = ("unauthorized", 403, "RFC 8555 §6.7", "the client is not authorized")
    UNSUPPORTED_IDENTIFIER = (
        "unsupportedIdentifier",
        400,
        "RFC 8555 §6.7",
        "the identifier type is not supported",
    )
    USER_ACTION_REQUIRED = (
        "userActionRequired",
        403,
        "RFC 8555 §7.3.3",
        "a person has to act at the instance URL",
    )
    ALREADY_REPLACED = (
        "alreadyReplaced",
        409,
        "RFC 9773 §5",
        "the certificate is already marked as replaced",
    )
    INVALID_PROFILE = (
        drafts.INVALID_PROFILE_TOKEN,
        400,
        f"{drafts.PROFILES} §4",
        "the profile is not offered or does not fit the request",
    )

    def __init__(self, token: str, http_status: int, source: str, sentence: str) -> None:
        self.token = token
        self.http_status = http_status
        self.source = source
        self.sentence = sentence

    @property
    def urn(self) -> str:
        """Return the value of the ``type`` member."""
        return URN_PREFIX + self.token


_BY_URN: Final[Mapping[str, ProblemType]] = {member.urn: member for member in ProblemType}


class Subject(Protocol):
    """An identifier that a subproblem speaks of."""

    @property
    def type(self) -> str:
        """Return the identifier's type as on the wire."""

    @property
    def value(self) -> str:
        """Return the identifier's value as on the wire."""


@dataclass(frozen=True, slots=True)
class ReportedIdentifier:
    """An identifier as a peer spelled it in a problem document: for people, not for decisions."""

    type: str
    value: str


class Problem(Exception):
    """A refusal that a client is told of, or that an upstream CA told us.

    Attributes:
        type: The registered type, or None for one that only a peer knows.
        raw_type: The ``type`` member as it stands on the wire.
        detail: A sentence for a person; unprintable characters are escaped.
        status: The HTTP status; the table's unless given.
        identifier: Whom a subproblem is about.  Never serialised at the top level.
        subproblems: Problems of single identifiers (RFC 8555 §6.7.1).
        retry_after: What the ``Retry-After`` header says.
        instance: The URL a person should visit.
        algorithms: The accepted algorithms, with badSignatureAlgorithm (RFC 8555 §6.2).
        links: ``Link`` headers to send along, as (rel, url).
        location: The ``Location`` header to send along.
    """

    def __init__(
        self,
        type: ProblemType | None,  # noqa: A002 - the member's name on the wire
        detail: str,
        *,
        status: int | None = None,
        identifier: Subject | None = None,
        subproblems: Sequence[Problem] = (),
        retry_after: timedelta | None = None,
        instance: str | None = None,
        algorithms: tuple[str, ...] | None = None,
        links: tuple[tuple[str, str], ...] = (),
        location: str | None = None,
        raw_type: str | None = None,
    ) -> None:
        if type is None and raw_type is None:
            raise ValueError("a problem without a registered type needs its raw type")
        self.type = type
        self.raw_type = type.urn if type is not None else printable(raw_type or "")
        self.detail = printable(detail)
        self.status = status or (type.http_status if type is not None else 500)
        self.identifier = identifier
        self.subproblems = tuple(subproblems)
        self.retry_after = retry_after
        self.instance = instance
        self.algorithms = algorithms
        self.links = links
        self.location = location
        super().__init__(f"{self.token}: {self.detail}")

    @property
    def token(self) -> str:
        """Return the type without its URN prefix."""
        return self.raw_type.removeprefix(URN_PREFIX)

    def to_json(self) -> dict[str, object]:
        """Return the problem document.

        ``identifier`` appears in subproblems only: RFC 8555 §6.7.1 forbids it at
        the top level.
        """
        document: dict[str, object] = {
            "type": self.raw_type,
            "detail": self.detail,
            "status": self.status,
        }
        if self.instance is not None:
            document["instance"] = self.instance
        if self.algorithms is not None:
            document["algorithms"] = list(self.algorithms)
        if self.subproblems:
            document["subproblems"] = [sub._to_subproblem() for sub in self.subproblems]
        return document

    def _to_subproblem(self) -> dict[str, object]:
        document = self.to_json()
        if self.identifier is not None:
            document["identifier"] = {
                "type": str(self.identifier.type),
                "value": self.identifier.value,
            }
        return document

    @classmethod
    def from_json(cls, obj: object, http_status: int | None = None) -> Problem:
        """Read the problem document of a peer; never fails.

        Nonsense becomes a problem that says so: an upstream that answers an error
        with HTML must not turn into a fault of ours.  *http_status* is the status
        of the answer that carried the document and wins over the ``status``
        member; None means that the document was embedded in another object.
        """
        return _read_problem(obj, http_status, depth=0)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Problem):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash((self.raw_type, self.status, self.detail))

    def _key(self) -> tuple[object, ...]:
        return (
            self._to_subproblem(),
            self.retry_after,
            self.links,
            self.location,
        )


def _read_problem(obj: object, http_status: int | None, depth: int) -> Problem:
    document = obj if isinstance(obj, Mapping) else {}
    raw_type = _text(document.get("type")) or "about:blank"
    known = _BY_URN.get(raw_type)
    detail = _text(document.get("detail")) or _text(document.get("title"))
    if detail is None:
        detail = known.sentence if known else "the peer gave no reason"
    algorithms = document.get("algorithms")
    return Problem(
        known,
        detail,
        raw_type=raw_type,
        status=http_status or _read_status(document.get("status")),
        identifier=_read_identifier(document.get("identifier")) if depth else None,
        subproblems=_read_subproblems(document.get("subproblems"), depth),
        instance=_text(document.get("instance")),
        algorithms=_read_names(algorithms) if isinstance(algorithms, list) else None,
    )


def _read_subproblems(value: object, depth: int) -> tuple[Problem, ...]:
    # RFC 8555 §6.7.1 knows one level; deeper ones are dropped, which bounds the recursion.
    if depth or not isinstance(value, list):
        return ()
    return tuple(_read_problem(entry, None, depth + 1) for entry in value[:MAX_SUBPROBLEMS])


def _read_status(value: object) -> int | None:
    is_status = isinstance(value, int) and not isinstance(value, bool) and 400 <= value <= 599
    return value if is_status and isinstance(value, int) else None


def _read_identifier(value: object) -> ReportedIdentifier | None:
    if not isinstance(value, Mapping):
        return None
    kind, name = _text(value.get("type")), _text(value.get("value"))
    return ReportedIdentifier(kind, name) if kind is not None and name is not None else None


def _read_names(values: Sequence[object]) -> tuple[str, ...]:
    return tuple(printable(value, 64) for value in values[:64] if isinstance(value, str))


def _text(value: object) -> str | None:
    return printable(value) if isinstance(value, str) and value else None
