"""Private keys of other clients: which are read, and the sentence for each that is not."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from broker.keys.importing import (
    MAX_FOREIGN_BYTES,
    parse_foreign_key,
    parse_pkcs8,
    pkcs8_of,
)
from broker.protocol.encoding import encode_base64url

PIECE = 24
"""Characters of a file that no sentence repeats."""

P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)


def pem(
    key: Any,
    form: PrivateFormat = PrivateFormat.PKCS8,
    passphrase: bytes | None = None,
) -> bytes:
    """Return *key* in PEM."""
    encryption = NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    return bytes(key.private_bytes(Encoding.PEM, form, encryption))


def number(value: int, size: int | None = None) -> str:
    """Return a number as a JWK writes it."""
    return encode_base64url(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


def ec_jwk(key: ec.EllipticCurvePrivateKey, name: str) -> dict[str, Any]:
    """Return the private JWK of *key*."""
    numbers = key.private_numbers()
    size = (key.key_size + 7) // 8
    point = numbers.public_numbers
    return {
        "kty": "EC",
        "crv": name,
        "d": number(numbers.private_value, size),
        "x": number(point.x, size),
        "y": number(point.y, size),
    }


def rsa_jwk(key: rsa.RSAPrivateKey) -> dict[str, Any]:
    """Return the private JWK of *key*, as certbot writes it."""
    numbers = key.private_numbers()
    return {
        "kty": "RSA",
        "n": number(numbers.public_numbers.n),
        "e": number(numbers.public_numbers.e),
        "d": number(numbers.d),
        "p": number(numbers.p),
        "q": number(numbers.q),
        "dp": number(numbers.dmp1),
        "dq": number(numbers.dmq1),
        "qi": number(numbers.iqmp),
    }


def as_json(document: Mapping[str, Any]) -> bytes:
    """Return a document as a file."""
    return json.dumps(document).encode()


def secret(content: bytes, member: str = "tls.key") -> dict[str, Any]:
    """Return the manifest of a Secret."""
    data = {member: base64.b64encode(content).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data}


YAML = """\
apiVersion: v1
kind: Secret
metadata:
  name: letsencrypt-account
  annotations:
    note: "R&D * all"
data:
  tls.key: {data}
"""

BARE_RSA = {name: value for name, value in rsa_jwk(RSA).items() if name in ("kty", "n", "e", "d")}

READABLE = {
    "pkcs8-p256": (pem(P256), P256),
    "sec1-p384": (pem(P384, PrivateFormat.TraditionalOpenSSL), P384),
    "pkcs1": (pem(RSA, PrivateFormat.TraditionalOpenSSL), RSA),
    "jwk-p256": (as_json(ec_jwk(P256, "P-256")), P256),
    "jwk-p384": (as_json(ec_jwk(P384, "P-384")), P384),
    "jwk-rsa": (as_json(rsa_jwk(RSA)), RSA),
    "jwk-rsa-without-factors": (as_json(BARE_RSA), RSA),
    "jwk-with-more": (as_json({**rsa_jwk(RSA), "use": "sig", "kid": "x"}), RSA),
    "secret-json": (as_json(secret(pem(RSA, PrivateFormat.TraditionalOpenSSL))), RSA),
    "secret-yaml": (YAML.format(data=base64.b64encode(pem(P256)).decode()).encode(), P256),
    "secret-string": (
        as_json({"kind": "Secret", "stringData": {"tls.key": pem(P256).decode()}}),
        P256,
    ),
}


@pytest.mark.parametrize("case", READABLE)
def test_key_is_read(case: str) -> None:
    """The very key comes out, whatever it was wrapped in."""
    content, key = READABLE[case]
    assert pkcs8_of(parse_foreign_key(content)) == pkcs8_of(key)


def without(document: dict[str, Any], *names: str) -> bytes:
    """Return a document that lacks members."""
    return as_json({name: value for name, value in document.items() if name not in names})


OTHER = ec.generate_private_key(ec.SECP256R1())
PUBLIC = P256.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

REFUSED = {
    "encrypted-pkcs8": (pem(P256, passphrase=b"a passphrase"), "is encrypted"),
    "encrypted-openssl": (
        pem(P256, PrivateFormat.TraditionalOpenSSL, b"a passphrase"),
        "is encrypted",
    ),
    "p521": (pem(ec.generate_private_key(ec.SECP521R1())), "on secp521r1, expected RSA of 2048"),
    "secp256k1": (pem(ec.generate_private_key(ec.SECP256K1())), "on secp256k1"),
    "ed25519": (pem(ed25519.Ed25519PrivateKey.generate()), "of kind Ed25519"),
    "dsa": (pem(dsa.generate_private_key(1024)), "of kind DSA"),
    "rsa-1024": (pem(rsa.generate_private_key(65537, 1024)), "RSA key of 1024 bits"),
    "rsa-exponent-3": (pem(rsa.generate_private_key(3, 2048)), "exponent that CAs do not take"),
    "public-key": (PUBLIC, "begins with 'PUBLIC KEY', expected a private key"),
    "cut-off": (pem(P256)[:60], "cannot be read"),
    "jwk-public": (without(ec_jwk(P256, "P-256"), "d"), "without member 'd'"),
    "jwk-rsa-without-n": (without(rsa_jwk(RSA), "n"), "without member 'n'"),
    "jwk-rsa-without-d": (without(rsa_jwk(RSA), "d"), "without member 'd'"),
    "jwk-without-x": (without(ec_jwk(P256, "P-256"), "x"), "without member 'x'"),
    "jwk-p521": (as_json({**ec_jwk(P256, "P-521")}), "on curve 'P-521'"),
    "jwk-okp": (as_json({"kty": "OKP", "crv": "Ed25519", "x": "AA", "d": "AA"}), "kty 'OKP'"),
    "jwk-oct": (as_json({"kty": "oct", "k": "AAAA"}), "kty 'oct'"),
    "jwk-number": (as_json({**ec_jwk(P256, "P-256"), "d": 5}), "without member 'd'"),
    "jwk-padded": (as_json({**ec_jwk(P256, "P-256"), "d": "AA=="}), "'d' is no base64url"),
    "jwk-zero": (as_json({**ec_jwk(P256, "P-256"), "d": "AA"}), "do not belong to one key"),
    "jwk-long": (as_json({**rsa_jwk(RSA), "n": "A" * 2000}), "more than 512 octets"),
    "jwk-rsa-1024": (
        as_json(rsa_jwk(rsa.generate_private_key(65537, 1024))),
        "RSA key of 1024 bits",
    ),
    "jwk-other-point": (
        as_json({**ec_jwk(P256, "P-256"), "x": ec_jwk(OTHER, "P-256")["x"]}),
        "do not belong to one key",
    ),
    "jwk-other-factors": (
        as_json({**rsa_jwk(RSA), "p": rsa_jwk(RSA)["q"]}),
        "do not belong to one key",
    ),
    "jwk-three-primes": (as_json({**rsa_jwk(RSA), "oth": []}), "more than two primes"),
    "secret-without-key": (as_json(secret(b"x", "tls.crt")), "without data.tls.key"),
    "secret-without-data": (as_json({"kind": "Secret"}), "without data.tls.key"),
    "secret-not-base64": (
        as_json({"kind": "Secret", "data": {"tls.key": "%%%"}}),
        "that is no base64",
    ),
    "list": (as_json({"kind": "List", "items": []}), "is a list of manifests"),
    "other-manifest": (as_json({"kind": "ConfigMap"}), "is neither PEM, nor a JWK"),
    "aliases": (b"kind: &a Secret\ndata: *a\n", "is neither PEM, nor a JWK"),
    "text": (b"a word", "is neither PEM, nor a JWK"),
    "nothing": (b"", "is neither PEM, nor a JWK"),
    "bytes": (b"\xff\xfe\x00", "is no text"),
    "deep": (b"[" * 30_000, "is neither PEM, nor a JWK"),
    "long": (b" " * (MAX_FOREIGN_BYTES + 1), f"larger than {MAX_FOREIGN_BYTES} bytes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_anything_else_is_refused_with_a_sentence(case: str) -> None:
    """What is wrong is said, and no piece of what might be somebody's key."""
    content, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=sentence) as caught:
        parse_foreign_key(content)
    text, said = content.decode("latin-1"), str(caught.value)
    pieces = {text[at : at + PIECE] for at in range(len(text) - PIECE)}
    assert not [piece for piece in pieces if piece in said]


def test_pkcs8_comes_back() -> None:
    """What is handed over inwardly is read again."""
    assert pkcs8_of(parse_pkcs8(pkcs8_of(RSA))) == pkcs8_of(RSA)


def test_pkcs8_that_is_none_is_refused() -> None:
    """A negative twin."""
    with pytest.raises(ValueError, match="no private key in plain PKCS#8"):
        parse_pkcs8(b"0\x00")
