"""Public keys as JWKs: which ones we accept, and their one canonical form.

josepy and cryptography are the arithmetic; the rules are ours and run first.  Sizes
are judged on the text and the number before any curve or modulus arithmetic, so
that a key made to be slow (CVE-2023-6237) never reaches it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.protocol.encoding import encode_base64url, parse_base64url
from broker.protocol.problems import Problem, ProblemType, printable

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

MIN_RSA_BITS: Final = 2048
"""Smallest RSA modulus that is accepted, in bits: the CA/Browser Forum's floor."""

MAX_RSA_BITS: Final = 4096
"""Largest RSA modulus that is accepted, in bits; verifying costs grow with its square."""

MIN_RSA_EXPONENT: Final = 65537
"""Smallest RSA exponent that is accepted; smaller ones have a history of broken verifiers."""

MAX_RSA_EXPONENT: Final = 2**32 - 1
"""Largest RSA exponent that is accepted: what common libraries can represent."""

_PRIVATE_MEMBERS: Final = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
"""Members that carry private or symmetric key material (RFC 7518 §6)."""


@dataclass(frozen=True, slots=True)
class _Curve:
    """What JOSE calls a curve, how long its coordinates are, what may be signed with it."""

    name: str
    curve: ec.EllipticCurve
    coordinate_bytes: int
    algorithm: str


_CURVES: Final = (
    _Curve("P-256", ec.SECP256R1(), 32, "ES256"),
    _Curve("P-384", ec.SECP384R1(), 48, "ES384"),
    _Curve("P-521", ec.SECP521R1(), 66, "ES512"),
)
_ED25519_BYTES: Final = 32
"""Length of an Ed25519 public key, in bytes (RFC 8032 §5.1.5)."""

_ED25519_PRIME: Final = 2**255 - 19
"""The prime of the field that edwards25519 lies over (RFC 8032 §5.1)."""

_ED25519_EIGHTH: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
"""y coordinate of a point of edwards25519 whose order is 8."""

_ED25519_SMALL: Final = frozenset(
    {0, 1, _ED25519_PRIME - 1, _ED25519_EIGHTH, _ED25519_PRIME - _ED25519_EIGHTH}
)
"""y coordinates of all points whose order divides 8.

Under such a key anybody can make signatures: for the neutral point one and the same verifies over
every message.
"""


@dataclass(frozen=True, slots=True)
class Jwk:
    """An acceptable public key.  Two are equal when their thumbprints are.

    Attributes:
        kty: ``EC``, ``OKP`` or ``RSA``.
        public_key: The key as cryptography knows it.
        canonical: The JSON text that RFC 7638 §3 hashes.
        thumbprint: SHA-256 of it in base64url, 43 characters.
        algorithms: The signature algorithms that fit this very key.
    """

    kty: str = field(compare=False)
    public_key: PublicKey = field(compare=False, repr=False)
    canonical: str = field(compare=False, repr=False)
    thumbprint: str
    algorithms: tuple[str, ...] = field(compare=False)

    def to_json(self) -> dict[str, str]:
        """Return the JWK with its required members only."""
        members: dict[str, str] = json.loads(self.canonical)
        return members


def parse_jwk(obj: object) -> Jwk:
    """Return the public key that a JWK names.

    Members that say how a key is meant to be used (``use``, ``alg``, ``kid`` …) are
    dropped: old clients send them, and they are no part of the thumbprint.

    Raises:
        Problem: malformed for a wrong shape or a private key, badPublicKey for a key
            that is not accepted.  Tell the client.
    """
    if not isinstance(obj, Mapping):
        _malformed("jwk is not an object")
    for name in _PRIVATE_MEMBERS:
        if name in obj:
            _malformed(f"jwk has the private member '{name}', expected a public key")
    kty = obj.get("kty")
    if not isinstance(kty, str):
        _malformed("jwk has no kty")
    parse = {"EC": _parse_ec, "OKP": _parse_okp, "RSA": _parse_rsa}.get(kty)
    if parse is None:
        _unacceptable(f"jwk has kty '{printable(kty, 32)}', expected EC, OKP or RSA")
    return parse(obj)


def jwk_from_public_key(public_key: object) -> Jwk:
    """Return the JWK of a public key.

    Raises:
        Problem: badPublicKey, for a key that `parse_jwk` would not accept either.
    """
    if isinstance(public_key, ec.EllipticCurvePublicKey):
        return _jwk_of_ec(public_key)
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return _jwk_of_ed25519(public_key)
    if not isinstance(public_key, rsa.RSAPublicKey):
        kind = type(public_key).__name__
        _unacceptable(f"key of kind {kind} is not accepted, expected EC, Ed25519 or RSA")
    return _jwk_of_rsa(public_key)


def _parse_ec(obj: Mapping[str, Any]) -> Jwk:
    crv = _text(obj, "crv")
    known = next((curve for curve in _CURVES if curve.name == crv), None)
    if known is None:
        _unacceptable(
            f"jwk has curve '{printable(crv, 32)}', expected "
            + ", ".join(curve.name for curve in _CURVES)
        )
    x = int.from_bytes(_octets(obj, "x", exactly=known.coordinate_bytes), "big")
    y = int.from_bytes(_octets(obj, "y", exactly=known.coordinate_bytes), "big")
    try:
        public_key = ec.EllipticCurvePublicNumbers(x, y, known.curve).public_key()
    except ValueError:
        _unacceptable(f"jwk is no point of the curve {known.name}")
    return _jwk_of_ec(public_key)


def _parse_okp(obj: Mapping[str, Any]) -> Jwk:
    crv = _text(obj, "crv")
    if crv != "Ed25519":
        _unacceptable(f"jwk has curve '{printable(crv, 32)}', expected Ed25519")
    raw = _octets(obj, "x", exactly=_ED25519_BYTES)
    return _jwk_of_ed25519(ed25519.Ed25519PublicKey.from_public_bytes(raw))


def _check_ed25519(raw: bytes) -> None:
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _ED25519_PRIME:
        _unacceptable("jwk member 'x' is no canonical Ed25519 point (RFC 8032 §5.1.3)")
    if y in _ED25519_SMALL:
        _unacceptable("jwk is a point of small order: anybody could sign under it")


def _parse_rsa(obj: Mapping[str, Any]) -> Jwk:
    modulus = _octets(obj, "n", at_most=MAX_RSA_BITS // 8)
    exponent = _octets(obj, "e", at_most=4)
    for name, number in (("n", modulus), ("e", exponent)):
        if number[:1] == b"\x00":
            _unacceptable(f"jwk member '{name}' has leading zero octets (RFC 7518 §6.3.1)")
    n, e = int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big")
    _check_rsa(n, e)
    try:
        public_key = rsa.RSAPublicNumbers(e, n).public_key()
    except ValueError:
        _unacceptable("jwk is no RSA public key")
    return _jwk_of_rsa(public_key)


def _check_rsa(n: int, e: int) -> None:
    bits = n.bit_length()
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS:
        _unacceptable(f"RSA key has {bits} bits, expected {MIN_RSA_BITS} to {MAX_RSA_BITS}")
    if n % 2 == 0:
        _unacceptable("RSA modulus is even")
    if e % 2 == 0 or not MIN_RSA_EXPONENT <= e <= MAX_RSA_EXPONENT:
        _unacceptable(f"RSA exponent is {e}, expected an odd one from 65537 to 4294967295")


def _jwk_of_ec(public_key: ec.EllipticCurvePublicKey) -> Jwk:
    known = next((c for c in _CURVES if c.curve.name == public_key.curve.name), None)
    if known is None:
        _unacceptable(f"curve {public_key.curve.name} is not accepted, expected P-256, -384, -521")
    numbers = public_key.public_numbers()
    members = {
        "crv": known.name,
        "kty": "EC",
        "x": encode_base64url(numbers.x.to_bytes(known.coordinate_bytes, "big")),
        "y": encode_base64url(numbers.y.to_bytes(known.coordinate_bytes, "big")),
    }
    return _make(members, public_key, (known.algorithm,))


def _jwk_of_ed25519(public_key: ed25519.Ed25519PublicKey) -> Jwk:
    raw = public_key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    _check_ed25519(raw)
    members = {"crv": "Ed25519", "kty": "OKP", "x": encode_base64url(raw)}
    return _make(members, public_key, ("EdDSA", "Ed25519"))


def _jwk_of_rsa(public_key: rsa.RSAPublicKey) -> Jwk:
    numbers = public_key.public_numbers()
    _check_rsa(numbers.n, numbers.e)
    members = {"e": _encode_integer(numbers.e), "kty": "RSA", "n": _encode_integer(numbers.n)}
    return _make(members, public_key, ("RS256",))


def _make(members: dict[str, str], public_key: PublicKey, algorithms: tuple[str, ...]) -> Jwk:
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode("ascii")).digest()
    return Jwk(members["kty"], public_key, canonical, encode_base64url(digest), algorithms)


def _encode_integer(number: int) -> str:
    return encode_base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _text(obj: Mapping[str, Any], name: str) -> str:
    value = obj.get(name)
    if not isinstance(value, str):
        _malformed(f"jwk has no member '{name}'")
    return value


def _octets(
    obj: Mapping[str, Any], name: str, *, exactly: int | None = None, at_most: int = 0
) -> bytes:
    text = _text(obj, name)
    limit = exactly or at_most
    if len(text) > (limit * 8 + 5) // 6:
        _unacceptable(f"jwk member '{name}' is longer than {limit} octets")
    try:
        octets = parse_base64url(text)
    except ValueError as error:
        _malformed(f"jwk member '{name}' {error}")
    if exactly is not None and len(octets) != exactly:
        _unacceptable(f"jwk member '{name}' has {len(octets)} octets, expected {exactly}")
    if not octets:
        _unacceptable(f"jwk member '{name}' is empty")
    return octets


def _malformed(detail: str) -> NoReturn:
    raise Problem(ProblemType.MALFORMED, detail)


def _unacceptable(detail: str) -> NoReturn:
    raise Problem(ProblemType.BAD_PUBLIC_KEY, detail)
