"""The JWS envelope of ACME: requests are opened here, and sealed here.

Nothing from the network reaches josepy before the envelope has been checked, for
josepy lets through what ACME forbids: no signatures at all, a MAC under an embedded
key, unprotected headers, an algorithm of another curve.  Accepted is the flattened
form with three members and a protected header of four, nothing else.  One reading
of ours: RFC 8555 §6.2 does not forbid further header members, we do; a header that
is not understood must not be signed for nothing.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from josepy import jwa

from broker.protocol.encoding import (
    encode_base64url,
    is_base64url,
    parse_json_object,
)
from broker.protocol.flattened import MAX_HEADER_URL_CHARS, open_flattened, read_visible
from broker.protocol.jwk import Jwk, jwk_from_public_key, parse_jwk
from broker.protocol.problems import Problem, ProblemType, printable

__all__ = [
    "ALGORITHMS",
    "BINDING_ALGORITHMS",
    "Jwk",
    "ParsedBinding",
    "ParsedRequest",
    "VerifiedBinding",
    "VerifiedRequest",
    "binding_refused",
    "jwk_from_public_key",
    "parse_binding",
    "parse_jwk",
    "parse_request",
    "read_algorithm",
    "seal",
    "seal_binding",
    "signing_input",
    "verify_binding",
    "verify_request",
    "verify_signature",
]

ALGORITHMS: Final = ("ES256", "ES384", "ES512", "EdDSA", "Ed25519", "RS256")
"""Every signature algorithm that is accepted.

RFC 8555 §6.2 wants ES256 and suggests EdDSA; Ed25519 is the name RFC 9864 gives the
latter.  RS256 is what certbot and most appliances have used for years.
"""

BINDING_ALGORITHMS: Final[Mapping[str, str]] = {
    "HS256": "sha256",
    "HS384": "sha384",
    "HS512": "sha512",
}
"""Every MAC that an external account binding may use, with its hash (RFC 7518 §3.2)."""

MAX_NONCE_CHARS: Final = 512
"""Longest nonce that is read, in characters; ours are far shorter."""

MAX_KEY_ID_CHARS: Final = 256
"""Longest key id of an external account binding that is read, in characters."""

_REQUEST_HEADERS: Final = frozenset({"alg", "nonce", "url", "jwk", "kid"})
_BINDING_HEADERS: Final = frozenset({"alg", "kid", "url"})


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A request whose envelope is well formed; its signature is NOT verified yet.

    Exactly one of ``jwk`` and ``kid`` is set.
    """

    alg: str
    nonce: str
    url: str
    jwk: Jwk | None
    kid: str | None
    payload: bytes
    signing_input: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class VerifiedRequest:
    """A request that the holder of ``key`` signed for this URL.

    The nonce is not spent yet; whoever holds the nonces does that.
    """

    payload: bytes
    key: Jwk
    kid: str | None
    url: str
    nonce: str

    @property
    def is_post_as_get(self) -> bool:
        """Return whether this is a POST-as-GET: an empty payload (RFC 8555 §6.3)."""
        return self.payload == b""

    def json(self) -> dict[str, Any]:
        """Return the payload's JSON object.

        Raises:
            Problem: malformed, if it is none.  Tell the client.
        """
        if self.is_post_as_get:
            _malformed("payload is empty, expected a JSON object")
        return parse_json_object(self.payload, what="payload")


@dataclass(frozen=True, slots=True)
class ParsedBinding:
    """An external account binding that fits its request; its MAC is NOT verified yet."""

    key_id: str
    alg: str
    signing_input: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class VerifiedBinding:
    """The key id of an external account whose MAC key the client holds."""

    key_id: str


def parse_request(body: bytes) -> ParsedRequest:
    """Return the parts of a request body, checked for form and algorithm.

    Raises:
        Problem: malformed, badNonce for an absent nonce, badSignatureAlgorithm, or
            badPublicKey for an embedded key.  Tell the client.
    """
    envelope = open_flattened(parse_json_object(body, what="request body"), "JWS", _REQUEST_HEADERS)
    header = envelope.header
    if ("jwk" in header) == ("kid" in header):
        _malformed("protected header has both or neither of jwk and kid, expected one")
    url = read_visible(header, "url", MAX_HEADER_URL_CHARS)
    kid = read_visible(header, "kid", MAX_HEADER_URL_CHARS) if "kid" in header else None
    alg = read_algorithm(header)
    nonce = _nonce(header)
    return ParsedRequest(
        alg=alg,
        nonce=nonce,
        url=url,
        jwk=parse_jwk(header["jwk"]) if kid is None else None,
        kid=kid,
        payload=envelope.payload,
        signing_input=envelope.signing_input,
        signature=envelope.signature,
    )


def verify_request(parsed: ParsedRequest, *, key: Jwk, expected_url: str) -> VerifiedRequest:
    """Return the request, proven to be signed by *key* for *expected_url*.

    For a request with an embedded key, pass that key: it speaks for itself and for
    nobody else.

    Raises:
        Problem: unauthorized if it was signed for another URL (RFC 8555 §6.4),
            badSignatureAlgorithm if the algorithm does not fit the key, malformed if
            the signature does not verify.  Tell the client.
    """
    if parsed.url != expected_url:
        raise Problem(
            ProblemType.UNAUTHORIZED,
            f"request was signed for url '{printable(parsed.url, 300)}', "
            f"expected '{printable(expected_url, 300)}'",
        )
    if parsed.jwk is not None and parsed.jwk != key:
        raise Problem(ProblemType.UNAUTHORIZED, "request embeds another key than the account's")
    verify_signature(parsed.alg, key, parsed.signing_input, parsed.signature)
    return VerifiedRequest(parsed.payload, key, parsed.kid, parsed.url, parsed.nonce)


def verify_signature(alg: str, key: Jwk, message: bytes, signature: bytes) -> None:
    """Prove that the holder of *key* signed *message* by *alg*.

    Raises:
        Problem: badSignatureAlgorithm if the algorithm does not fit the key, malformed if the
            signature does not verify.  Tell the client.
    """
    if alg not in key.algorithms:
        raise Problem(
            ProblemType.BAD_SIGNATURE_ALGORITHM,
            f"alg '{alg}' does not fit the key, expected {' or '.join(key.algorithms)}",
            algorithms=key.algorithms,
        )
    try:
        _verify_octets(alg, key, message, signature)
    except InvalidSignature:
        _malformed("signature does not verify")


def _verify_octets(alg: str, key: Jwk, message: bytes, signature: bytes) -> None:
    public_key = key.public_key
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        public_key.verify(signature, message)
        return
    if isinstance(public_key, rsa.RSAPublicKey):
        algorithm: jwa.JWASignature = jwa.RS256
    elif isinstance(public_key, ec.EllipticCurvePublicKey):
        algorithm = {"ES256": jwa.ES256, "ES384": jwa.ES384, "ES512": jwa.ES512}[alg]
    if not algorithm.verify(public_key, message, signature):
        raise InvalidSignature


def binding_refused() -> Problem:
    """Return the one refusal for an unknown key id and for a MAC that does not verify.

    The same words for both: else the answer would tell which key ids exist.
    """
    return Problem(
        ProblemType.UNAUTHORIZED,
        "external account binding is refused: unknown key id, or the MAC does not verify",
    )


def parse_binding(inner: object, *, expected_url: str, account_key: Jwk) -> ParsedBinding:
    """Return an external account binding that is meant for this URL and this key.

    All the checks of RFC 8555 §7.3.4 but the MAC's, which needs the key of
    ``key_id``: look it up, and for an unknown one call `verify_binding` with a key
    of your own making, so that both cases take the same time.

    Raises:
        Problem: malformed for its form, unauthorized for another URL or key.
    """
    if not isinstance(inner, Mapping):
        _malformed("externalAccountBinding is not an object")
    envelope = open_flattened(inner, "externalAccountBinding", _BINDING_HEADERS)
    header = envelope.header
    key_id = read_visible(header, "kid", MAX_KEY_ID_CHARS)
    url = read_visible(header, "url", MAX_HEADER_URL_CHARS)
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in BINDING_ALGORITHMS:
        _malformed(
            f"externalAccountBinding has alg '{printable(str(alg), 32)}', expected "
            + ", ".join(BINDING_ALGORITHMS)
        )
    if url != expected_url:
        raise Problem(
            ProblemType.UNAUTHORIZED,
            f"externalAccountBinding was made for url '{printable(url, 300)}', "
            f"expected '{printable(expected_url, 300)}'",
        )
    bound = parse_jwk(parse_json_object(envelope.payload, what="externalAccountBinding payload"))
    if bound != account_key:
        raise Problem(
            ProblemType.UNAUTHORIZED, "externalAccountBinding was made for another account key"
        )
    return ParsedBinding(key_id, alg, envelope.signing_input, envelope.signature)


def verify_binding(parsed: ParsedBinding, mac_key: bytes) -> VerifiedBinding:
    """Return the binding, proven to be made by a holder of *mac_key*.

    Raises:
        Problem: `binding_refused`.  Tell the client.
        ValueError: If *mac_key* is empty; that is our bug.
    """
    expected = _mac(mac_key, parsed.alg, parsed.signing_input)
    if not hmac.compare_digest(expected, parsed.signature):
        raise binding_refused()
    return VerifiedBinding(parsed.key_id)


def _mac(mac_key: bytes, alg: str, message: bytes) -> bytes:
    if not mac_key:
        raise ValueError("an empty MAC key binds nothing")
    return hmac.digest(mac_key, message, BINDING_ALGORITHMS[alg])


def signing_input(protected: Mapping[str, Any], payload: bytes) -> bytes:
    """Return the octets to sign for a request of ours, the first half of sealing it.

    The signature is made elsewhere, where the key is; `seal` is the second half.
    """
    header = json.dumps(protected, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    return f"{encode_base64url(header)}.{encode_base64url(payload)}".encode("ascii")


def seal(signing_input: bytes, signature: bytes) -> bytes:
    """Return the request body: the signed octets and their signature as flattened JWS."""
    return json.dumps(_flattened(signing_input, signature), separators=(",", ":")).encode("ascii")


def seal_binding(
    key_id: str, mac_key: bytes, alg: str, url: str, account_jwk: Jwk
) -> dict[str, Any]:
    """Return the external account binding that a CA wants to see (RFC 8555 §7.3.4).

    Raises:
        ValueError: For an algorithm other than HS256, HS384, HS512 or an empty key.
    """
    if alg not in BINDING_ALGORITHMS:
        raise ValueError(f"alg '{alg}' is no MAC, expected {', '.join(BINDING_ALGORITHMS)}")
    message = signing_input(
        {"alg": alg, "kid": key_id, "url": url}, account_jwk.canonical.encode("ascii")
    )
    return _flattened(message, _mac(mac_key, alg, message))


def _flattened(message: bytes, signature: bytes) -> dict[str, Any]:
    protected, _, payload = message.decode("ascii").partition(".")
    return {
        "protected": protected,
        "payload": payload,
        "signature": encode_base64url(signature),
    }


def read_algorithm(header: Mapping[str, Any]) -> str:
    """Return the ``alg`` of a header, one of `ALGORITHMS`; raises Problem."""
    alg = header.get("alg")
    if not isinstance(alg, str):
        _malformed("protected header has no alg")
    if alg not in ALGORITHMS:
        raise Problem(
            ProblemType.BAD_SIGNATURE_ALGORITHM,
            f"alg '{printable(alg, 32)}' is not accepted, expected {', '.join(ALGORITHMS)}",
            algorithms=ALGORITHMS,
        )
    return alg


def _nonce(header: Mapping[str, Any]) -> str:
    nonce = header.get("nonce")
    if nonce is None or nonce == "":
        # RFC 8555 §6.5: an absent nonce is answered like a bad one, so the client retries.
        raise Problem(ProblemType.BAD_NONCE, "protected header has no nonce")
    if not isinstance(nonce, str) or len(nonce) > MAX_NONCE_CHARS or not is_base64url(nonce):
        _malformed(f"nonce is not base64url of at most {MAX_NONCE_CHARS} characters")
    return nonce


def _malformed(detail: str) -> NoReturn:
    raise Problem(ProblemType.MALFORMED, detail)
