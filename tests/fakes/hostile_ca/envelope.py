"""Opening signed requests: this CA lies in its answers, but is strict in what it takes.

Its own reading of RFC 8555 §6.2 on top of cryptography alone, so that our broker's
JWS code is never checked against itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

CURVES: Final[Mapping[str, tuple[str, ec.EllipticCurve, hashes.HashAlgorithm]]] = {
    "ES256": ("P-256", ec.SECP256R1(), hashes.SHA256()),
    "ES384": ("P-384", ec.SECP384R1(), hashes.SHA384()),
    "ES512": ("P-521", ec.SECP521R1(), hashes.SHA512()),
}
THUMBPRINT_MEMBERS: Final = {"EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n")} | {
    "OKP": ("crv", "kty", "x")
}


class Refused(Exception):
    """A request that a strict CA refuses, with the problem it is answered with."""

    def __init__(self, status: int, problem: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.problem = problem
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Opened:
    """A request whose signature, nonce and URL have been verified."""

    header: Mapping[str, Any]
    payload: Any
    """None for POST-as-GET."""

    jwk: Mapping[str, Any]


def open_request(
    body: bytes,
    url: str,
    *,
    redeem_nonce: Callable[[str], bool],
    jwk_of_account: Callable[[str], Mapping[str, Any] | None],
) -> Opened:
    """Return the verified request.

    Raises:
        Refused: Not a flattened JWS of this URL under a known key and a fresh nonce.
    """
    jws = _object(body, "the body")
    if set(jws) != {"protected", "payload", "signature"}:
        raise Refused(400, "malformed", "a flattened JWS has protected, payload and signature")
    header = _object(unb64(jws["protected"]), "the protected header")
    if not redeem_nonce(str(header.get("nonce"))):
        raise Refused(400, "badNonce", "this nonce is not good, or not good any more")
    if header.get("url") != url:
        raise Refused(403, "unauthorized", f"the header's url is not {url}")
    if ("jwk" in header) == ("kid" in header):
        raise Refused(400, "malformed", "exactly one of jwk and kid")
    jwk = header["jwk"] if "jwk" in header else jwk_of_account(str(header["kid"]))
    if jwk is None:
        raise Refused(400, "accountDoesNotExist", "no such account")
    signing_input = f"{jws['protected']}.{jws['payload']}".encode()
    verify(jwk, str(header.get("alg")), signing_input, unb64(jws["signature"]))
    payload = unb64(jws["payload"])
    return Opened(header, _object(payload, "the payload") if payload else None, jwk)


def verify(jwk: Mapping[str, Any], algorithm: str, signed: bytes, signature: bytes) -> None:
    """Check a JWS signature (RFC 7515 §5.2, RFC 7518 §3).

    Raises:
        Refused: The algorithm doesn't fit the key, or the signature is wrong.
    """
    try:
        key = public_key(jwk, algorithm)
        if isinstance(key, ec.EllipticCurvePublicKey):
            half = (key.curve.key_size + 7) // 8
            if len(signature) != 2 * half:
                raise Refused(400, "malformed", f"an {algorithm} signature has {2 * half} bytes")
            r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(CURVES[algorithm][2]))
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, signed)
        else:
            key.verify(signature, signed, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise Refused(400, "malformed", "the signature is wrong") from None
    except (KeyError, ValueError, TypeError) as error:
        raise Refused(400, "badPublicKey", f"no key can be read: {error}") from None


def public_key(jwk: Mapping[str, Any], algorithm: str) -> PublicKey:
    """Return the key of *jwk* for use with *algorithm* and no other.

    Raises:
        Refused: The algorithm is none of ours, or not this key's.
    """
    if algorithm in CURVES:
        name, curve, _ = CURVES[algorithm]
        if (jwk["kty"], jwk["crv"]) == ("EC", name):
            numbers = ec.EllipticCurvePublicNumbers(_integer(jwk["x"]), _integer(jwk["y"]), curve)
            return numbers.public_key()
    elif algorithm == "EdDSA":
        if (jwk["kty"], jwk["crv"]) == ("OKP", "Ed25519"):
            return ed25519.Ed25519PublicKey.from_public_bytes(unb64(jwk["x"]))
    elif algorithm == "RS256" and jwk["kty"] == "RSA":
        return rsa.RSAPublicNumbers(_integer(jwk["e"]), _integer(jwk["n"])).public_key()
    raise Refused(400, "badSignatureAlgorithm", f"{algorithm} is none of ours, or not this key's")


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the name by which a key is known (RFC 7638)."""
    members = {name: jwk[name] for name in THUMBPRINT_MEMBERS[jwk["kty"]]}
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return b64(hashlib.sha256(canonical.encode()).digest())


def check_binding(
    binding: Mapping[str, Any], mac_keys: Mapping[str, str], jwk: Mapping[str, Any], url: str
) -> str:
    """Return the kid of an external account binding that holds (RFC 8555 §7.3.4).

    Raises:
        Refused: Unknown kid, wrong MAC, or a binding of another key or URL.
    """
    header = _object(unb64(binding["protected"]), "the binding's header")
    kid = str(header.get("kid"))
    secret = unb64(mac_keys.get(kid, ""))
    signed = f"{binding['protected']}.{binding['payload']}".encode()
    expected = hmac.digest(secret, signed, "sha256")
    holds = (
        kid in mac_keys
        and header.get("alg") == "HS256"
        and header.get("url") == url
        and hmac.compare_digest(expected, unb64(binding["signature"]))
        and thumbprint(_object(unb64(binding["payload"]), "the bound key")) == thumbprint(jwk)
    )
    if not holds:
        raise Refused(403, "unauthorized", "the external account binding does not hold")
    return kid


def b64(content: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def unb64(text: object) -> bytes:
    """Return the bytes of base64url without padding.

    Raises:
        Refused: It isn't that.
    """
    if not isinstance(text, str) or "=" in text:
        raise Refused(400, "malformed", "base64url without padding is wanted")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise Refused(400, "malformed", "base64url without padding is wanted") from None


def _integer(text: object) -> int:
    return int.from_bytes(unb64(text), "big")


def _object(text: bytes, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        raise Refused(400, "malformed", f"{what} is not JSON") from None
    if not isinstance(value, dict):
        raise Refused(400, "malformed", f"{what} is not a JSON object")
    return value
