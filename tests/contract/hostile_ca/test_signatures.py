"""The hostile CA's own reading of JWS signatures, for each algorithm it takes."""

from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.fakes.hostile_ca.envelope import Refused, b64, verify

Sign = Callable[[bytes], bytes]
Jwk = dict[str, str]


def of_curve(name: str, curve: ec.EllipticCurve, digest: hashes.HashAlgorithm) -> tuple[Jwk, Sign]:
    """Return a new key on *curve*, and how it signs."""
    key = ec.generate_private_key(curve)
    size = (curve.key_size + 7) // 8
    numbers = key.public_key().public_numbers()

    def sign(content: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(content, ec.ECDSA(digest)))
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    x, y = (b64(number.to_bytes(size, "big")) for number in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": name, "x": x, "y": y}, sign


def of_edwards() -> tuple[Jwk, Sign]:
    """Return a new Ed25519 key, and how it signs."""
    key = ed25519.Ed25519PrivateKey.generate()
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}, key.sign


def of_rsa() -> tuple[Jwk, Sign]:
    """Return a new RSA key, and how it signs."""
    key = rsa.generate_private_key(65537, 2048)
    modulus = key.public_key().public_numbers().n.to_bytes(256, "big")

    def sign(content: bytes) -> bytes:
        return key.sign(content, padding.PKCS1v15(), hashes.SHA256())

    return {"kty": "RSA", "n": b64(modulus), "e": "AQAB"}, sign


KEYS: dict[str, Callable[[], tuple[Jwk, Sign]]] = {
    "ES256": lambda: of_curve("P-256", ec.SECP256R1(), hashes.SHA256()),
    "ES384": lambda: of_curve("P-384", ec.SECP384R1(), hashes.SHA384()),
    "ES512": lambda: of_curve("P-521", ec.SECP521R1(), hashes.SHA512()),
    "EdDSA": of_edwards,
    "RS256": of_rsa,
}


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_good_signature_passes_and_no_other_does(algorithm: str) -> None:
    """Right passes; a flipped bit, other content, and every other algorithm are refused."""
    jwk, sign = KEYS[algorithm]()
    signature = sign(b"content")
    verify(jwk, algorithm, b"content", signature)
    flipped = signature[:-1] + bytes([signature[-1] ^ 1])
    wrong = [(algorithm, b"content", flipped), (algorithm, b"other", signature)]
    wrong += [
        (other, b"content", signature) for other in (*KEYS, "none", "HS256") if other != algorithm
    ]
    for attempt in wrong:
        with pytest.raises(Refused):
            verify(jwk, *attempt)
