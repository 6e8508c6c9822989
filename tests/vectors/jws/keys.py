"""Embedded keys that are not accepted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from tests.unit.protocol.builders import b64url, jwk_json, un64url
from tests.vectors.jws.drafts import (
    _P,
    _Q,
    CURVES,
    ED25519_PRIME,
    Case,
    Draft,
    Spoil,
    header,
    jwk,
    key_of,
    kid_of,
    without,
)
from tests.vectors.jws.signatures import little

_EIGHTH: Final = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826

LOW_ORDER: Final = (
    0,
    1,
    ED25519_PRIME - 1,
    _EIGHTH,
    ED25519_PRIME - _EIGHTH,
)
"""y coordinates of the points of edwards25519 whose order divides 8."""


def ec_keys(alg: str) -> Iterator[Case]:
    """Yield EC keys that are not accepted, each over a signature by the right key."""
    _, _, size, _ = CURVES[alg]
    bad = "badPublicKey"
    good = jwk_json(key_of(alg))
    x, y = un64url(good["x"]), un64url(good["y"])
    prime = {32: 2**256 - 2**224 + 2**192 + 2**96 - 1, 48: 2**384 - 2**128 - 2**96 + 2**32 - 1,
             66: 2**521 - 1}[size]  # fmt: skip
    zero, last = bytes(size), prime.to_bytes(size, "big")
    off = bytes([*y[:-1], y[-1] ^ 1])
    negative = (prime - int.from_bytes(y, "big")).to_bytes(size, "big")
    for what, at_x, at_y in (
        ("not on the curve", x, off), ("the point at infinity", zero, zero),
        ("x and y swapped", y, x), ("x is 0", zero, y), ("y is 0", x, zero),
        ("x is the prime", last, y), ("y is the prime", x, last),
        ("x all ones", b"\xff" * size, y),
    ):  # fmt: skip
        yield Case(what, "Point", jwk(x=b64url(at_x), y=b64url(at_y)), bad)
    yield Case("the negative of the key", "OtherKey", jwk(y=b64url(negative)))
    for what, octets in (("short", x[1:]), ("long", b"\x00" + x), ("empty", b""),
                         ("a compressed point", b"\x02" + x),
                         ("an uncompressed point", b"\x04" + x + y)):  # fmt: skip
        yield Case(f"x {what}", "Coordinate", jwk(x=b64url(octets)), bad)
        yield Case(f"y {what}", "Coordinate", jwk(y=b64url(octets)), bad)
    values: tuple[Any, ...] = (None, 1, [], "AAA=", "AA+A", "A")
    for name in ("x", "y"):
        for value in values:
            what = f"{name}: {json.dumps(value)}"
            yield Case(what, "Coordinate", jwk(**{name: value}))


def jwks() -> Iterator[Case]:
    """Yield what is no key at all, or one of a kind that is not taken."""
    values: tuple[Any, ...] = (None, "key", [], {}, 1)
    for value in values:
        yield Case(f"jwk {json.dumps(value)}", "Jwk", header(jwk=value))
    bad = "badPublicKey"
    for crv in ("P-224", "P-192", "secp256k1", "brainpoolP256r1", "p-256", "P-256 ", "Ed25519", ""):
        yield Case(f"curve {crv!r}", "Curve", jwk(crv=crv), bad)
    for curve in ("P-384", "P-521"):
        yield Case(f"curve {curve} over the coordinates of P-256", "Curve", jwk(crv=curve), bad)
    yield Case("no curve", "Jwk", jwk(crv=None))
    yield Case("curve a number", "Jwk", jwk(crv=256))
    yield Case("no kty", "Jwk", jwk(kty=None))
    for kty in ("ec", "oct", "EC2", "AKP", ""):
        yield Case(f"kty {kty!r}", "Jwk", jwk(kty=kty), bad)
    for name in ("d", "p", "q", "dp", "dq", "qi", "oth", "k"):
        yield Case(f"private member {name}", "PrivateKey", jwk(**{name: "AAAA"}))
    yield Case("kid instead of jwk", "KeyChoice", _kid_instead)
    yield Case("both jwk and kid", "KeyChoice", header(kid=kid_of("ES256")))
    yield Case("neither jwk nor kid", "KeyChoice", without("jwk"))


def _kid_instead(draft: Draft) -> None:
    del draft.header["jwk"]
    draft.header["kid"] = kid_of("ES256")


def rsa_keys() -> Iterator[Case]:
    """Yield RSA keys that are not accepted (RFC 7518 §6.3.1)."""
    bad = "badPublicKey"
    n = _P * _Q
    for what, number in {
        "of 1024 bits": n >> 1024 | 1, "of 2047 bits": n >> 1 | 1, "of 4097 bits": n << 2049 | 1,
        "of 16384 bits": 1 << 16383 | 1, "even": n + 1, "zero": 0, "one": 1,
    }.items():  # fmt: skip
        octets = number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")
        yield Case(f"modulus {what}", "Modulus", jwk(n=b64url(octets)), bad)
    yield Case(
        "modulus with a zero octet before it",
        "Modulus",
        jwk(n=b64url(b"\x00" + n.to_bytes(256, "big"))),
        bad,
    )
    yield Case("modulus empty", "Modulus", jwk(n=""), bad)
    for what, octets in {
        "0": b"\x00", "1": b"\x01", "2": b"\x02", "3": b"\x03", "17": b"\x11",
        "65536": b"\x01\x00\x00",
        "65535": b"\xff\xff", "65537 with a zero octet before it": b"\x00\x01\x00\x01",
        "of 33 bits": b"\x01\x00\x00\x00\x01", "of 2048 bits": b"\x80" + bytes(254) + b"\x01",
    }.items():  # fmt: skip
        yield Case(f"exponent {what}", "Exponent", jwk(e=b64url(octets)), bad)
    yield Case("another modulus", "OtherKey", jwk(n=b64url((n - 2).to_bytes(256, "big"))))
    for name in ("n", "e"):
        for value in (None, 65537, "AQAB="):
            yield Case(f"{name}: {json.dumps(value)}", "Jwk", jwk(**{name: value}))


def okp_keys() -> Iterator[Case]:
    """Yield Edwards keys that are not accepted (RFC 8032 §5.1.3, RFC 8037 §2)."""
    bad = "badPublicKey"
    for curve in ("Ed448", "X25519", "ed25519", "P-256"):
        yield Case(f"curve {curve}", "Curve", jwk(crv=curve), bad)
    good = un64url(jwk_json(key_of("EdDSA"))["x"])
    for what, octets in {"short": good[1:], "long": good + b"\x00", "empty": b""}.items():
        yield Case(f"x {what}", "Coordinate", jwk(x=b64url(octets)), bad)
    for y in LOW_ORDER:
        for top in (0, 1 << 255):
            octets = little(y | top)
            what = f"a point of small order: {octets.hex()[:12]}…{octets.hex()[-2:]}"
            yield Case(what, "LowOrder", _low_order(octets), bad)
    for y in (ED25519_PRIME, ED25519_PRIME + 1, ED25519_PRIME + 3, 2**255 - 1):
        yield Case(f"not canonical: the prime and {y - ED25519_PRIME}", "NotCanonical",
                   _low_order(little(y)), bad)  # fmt: skip
    for value in (None, 1, "AAA="):
        yield Case(f"x: {json.dumps(value)}", "Jwk", jwk(x=value))


def _low_order(octets: bytes) -> Spoil:
    """Embed *octets* as the key, signed as everybody can for the neutral point."""

    def spoil(draft: Draft) -> None:
        draft.header["jwk"] = {"kty": "OKP", "crv": "Ed25519", "x": b64url(octets)}
        draft.signer = lambda _: little(1) + bytes(32)

    return spoil
