"""Bearer tokens of people: read strictly, verified with keys of their issuer, held to its terms.

An access token is a JWT (RFC 9068) in an ``Authorization`` header and nowhere else (RFC 6750 §2.1).
The algorithm is one of those that are configured for the issuer, none of them symmetric, and is
tied to the kind of the key; nothing in the token can bring a key along (RFC 8725 §3.1, §3.10).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry

from broker.issuance.ports import Clock
from broker.protocol.encoding import parse_base64url, parse_json_object
from broker.protocol.problems import Problem, printable
from broker.web.issuer_keys import SigningKey

__all__ = [
    "ALGORITHMS",
    "KeyFinder",
    "TokenRejected",
    "TokenTerms",
    "TokenVerifier",
    "VerifiedToken",
]

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
                     "ES512", "EdDSA")  # fmt: skip
"""What an issuer may be configured to sign with: `none` and MACs are not among it."""

UNTYPED: Final = "none"
"""How a configuration says that tokens have no ``typ``, as those of a Kubernetes cluster."""

MAX_TOKEN_CHARS: Final = 8 * 1024
"""Longest token that is read, in characters; one with a hundred groups has about 5,000."""

LEEWAY: Final = timedelta(seconds=30)
"""How far the issuer's clock and ours may be apart; hosts keep time."""

MAX_GROUPS: Final = 1000
"""Most groups of a token that are looked at; providers leave them out past about 200."""

MAX_SUBJECT_CHARS: Final = 255
"""Longest subject, in characters (OpenID Connect Core 1.0)."""

# Beside these a header could bring a key, name a place to fetch one from, or something that has to
# be understood.  x5t names a certificate and brings none.
_HEADERS: Final = frozenset({"alg", "kid", "typ", "x5t", "x5t#S256"})


class TokenRejected(Exception):
    """A token that proves nothing; the text says why, and repeats nothing secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTerms:
    """What a token has to say so that it is meant for us."""

    name: str
    """What the configuration calls the issuer."""
    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    types: tuple[str, ...]
    """What ``typ`` has to be, in lower case and without ``application/``."""
    longest: timedelta
    """Longest time between issue and expiry."""
    groups_claim: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedToken:
    """Whom a token was proven to be of, and for whom it is meant."""

    issuer_name: str
    issuer: str
    subject: str
    groups: frozenset[str]
    token_id: str | None
    ends_at: datetime


class KeyFinder(Protocol):
    """Knows an issuer's keys."""

    async def find(self, key_id: str) -> SigningKey | None:
        """Return the key of that id; raises Unreachable."""
        ...


@dataclass(frozen=True, slots=True)
class _Parsed:
    text: str = field(repr=False)
    header: Mapping[str, Any] = field(repr=False)
    claims: Mapping[str, Any] = field(repr=False)


class TokenVerifier:
    """Verifies tokens of the issuers that are configured."""

    def __init__(self, issuers: Sequence[tuple[TokenTerms, KeyFinder]], clock: Clock) -> None:
        self._issuers = {terms.issuer: (terms, keys) for terms, keys in issuers}
        self._clock = clock

    async def verify(self, text: str, certificate_der: bytes | None) -> VerifiedToken:
        """Return whose *text* is; *certificate_der* is what its sender showed in TLS.

        Raises:
            TokenRejected: It proves nothing.
            Unreachable: Its issuer's keys cannot be had.
        """
        parsed = _parse(text)
        claimed = parsed.claims.get("iss")
        known = self._issuers.get(claimed) if isinstance(claimed, str) else None
        if known is None:
            raise TokenRejected("token is of an issuer that is not configured")
        terms, keys = known
        alg, key_id = _read_header(parsed.header, terms)
        # What costs nothing is looked at before anything is fetched or computed.
        verified = _read_claims(parsed.claims, terms, self._clock.now())
        _verify_binding(parsed.claims, certificate_der)
        key = await keys.find(key_id)
        if key is None:
            raise TokenRejected("token is signed by a key that its issuer does not publish")
        _verify_signature(parsed.text, key, alg)
        return verified


def _parse(text: str) -> _Parsed:
    if len(text) > MAX_TOKEN_CHARS:
        raise TokenRejected(f"token is longer than {MAX_TOKEN_CHARS} characters")
    parts = text.split(".")
    if len(parts) != 3:
        raise TokenRejected("token does not have three parts")
    try:
        header, claims, _ = (parse_base64url(part) for part in parts)
        return _Parsed(
            text,
            parse_json_object(header, what="token header"),
            parse_json_object(claims, what="token claims"),
        )
    except Problem as problem:
        raise TokenRejected(problem.detail) from None
    except ValueError as error:
        raise TokenRejected(f"token {error}") from None


def _read_header(header: Mapping[str, Any], terms: TokenTerms) -> tuple[str, str]:
    for name in header:
        if name not in _HEADERS:
            raise TokenRejected(f"token header has the member '{printable(name, 64)}'")
    alg, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ")
    if alg not in terms.algorithms or alg not in ALGORITHMS:
        expected = " or ".join(terms.algorithms)
        raise TokenRejected(f"token has alg '{printable(str(alg), 32)}', expected {expected}")
    if not isinstance(key_id, str) or not key_id:
        raise TokenRejected("token does not say which key signed it")
    # RFC 9068 §4: so that no ID token is taken for one that gives access.
    shown = kind.lower().removeprefix("application/") if isinstance(kind, str) else ""
    if kind is None:
        shown = UNTYPED
    elif shown == UNTYPED:
        shown = ""
    if shown not in terms.types:
        expected = " or ".join(terms.types)
        raise TokenRejected(f"token has typ '{printable(str(kind), 32)}', expected {expected}")
    return str(alg), key_id


def _read_claims(claims: Mapping[str, Any], terms: TokenTerms, now: datetime) -> VerifiedToken:
    audience = claims.get("aud")
    if audience != terms.audience and (
        not isinstance(audience, list) or terms.audience not in audience
    ):
        raise TokenRejected("token is for another audience")
    ends_at, issued_at = _moment(claims, "exp"), _moment(claims, "iat")
    if now - LEEWAY >= ends_at:  # an end that nothing can be added to is an end as well
        raise TokenRejected("token has expired")
    if issued_at > now + LEEWAY or ("nbf" in claims and _moment(claims, "nbf") > now + LEEWAY):
        raise TokenRejected("token is not valid yet")
    if ends_at - issued_at > terms.longest:
        hours = terms.longest.total_seconds() / 3600
        raise TokenRejected(f"token lasts longer than {hours:g} h")
    subject, token_id = claims.get("sub"), claims.get("jti")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS:
        raise TokenRejected("token has no subject")
    if not subject.isprintable():
        raise TokenRejected("token has a subject that cannot be printed")
    return VerifiedToken(
        issuer_name=terms.name,
        issuer=terms.issuer,
        subject=subject,
        groups=_groups(claims.get(terms.groups_claim)),
        token_id=printable(token_id, 128) if isinstance(token_id, str) else None,
        ends_at=ends_at,
    )


def _groups(value: object) -> frozenset[str]:
    if value is None:
        return frozenset()
    if not isinstance(value, list) or len(value) > MAX_GROUPS:
        raise TokenRejected(f"token has groups that are no list of at most {MAX_GROUPS}")
    if not all(isinstance(one, str) for one in value):
        raise TokenRejected("token has groups that are no text")
    return frozenset(value)


def _moment(claims: Mapping[str, Any], name: str) -> datetime:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TokenRejected(f"token has no {name}")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise TokenRejected(f"token has an {name} that is no time") from None


def _verify_binding(claims: Mapping[str, Any], certificate_der: bytes | None) -> None:
    """Verify that a token which is bound to a certificate came with it (RFC 8705 §3)."""
    binding = claims.get("cnf")
    if binding is None:
        return
    if not isinstance(binding, Mapping) or set(binding) != {"x5t#S256"}:
        raise TokenRejected("token is bound to a proof that is not known here")
    if certificate_der is None:
        raise TokenRejected("token is bound to a certificate that was not shown")
    digest = base64.urlsafe_b64encode(hashlib.sha256(certificate_der).digest()).rstrip(b"=")
    if binding["x5t#S256"] != digest.decode("ascii"):
        raise TokenRejected("token is bound to another certificate than was shown")


def _verify_signature(text: str, key: SigningKey, alg: str) -> None:
    if key.alg is not None and key.alg != alg:
        raise TokenRejected("token has another alg than its key is for")
    try:
        jws.deserialize_compact(text, key.key, registry=JWSRegistry(algorithms=[alg]))
    except (JoseError, ValueError, TypeError):
        raise TokenRejected("token's signature is not by the key that it names") from None
