"""Private keys as other ACME clients leave them: PEM, JWK, and the Secret of cert-manager.

Bytes come in and a key goes out that can sign for an account here, or a sentence says why not.
Nothing is read from a disk, nothing of a key gets into a sentence.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, NoReturn

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
    load_pem_private_key,
)
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from broker.keys.encryption import PrivateKey
from broker.protocol.encoding import parse_base64url

__all__ = [
    "MAX_FOREIGN_BYTES",
    "parse_foreign_key",
    "parse_jwk_private_key",
    "parse_pem_private_key",
    "parse_pkcs8",
    "parse_secret_manifest",
    "pkcs8_of",
]

MAX_FOREIGN_BYTES: Final = 64 * 1024
"""Largest file that is taken for a key, in bytes: a Secret with its annotations measures 10 KiB."""

MIN_RSA_BITS: Final = 2048
"""Smallest RSA key that CAs take for an account, in bits."""

MAX_RSA_BITS: Final = 4096
"""Largest RSA key that CAs take for an account, in bits; it bounds the arithmetic as well."""

MIN_RSA_EXPONENT: Final = 65537
"""Smallest RSA exponent that CAs take."""

MAX_DEPTH: Final = 20
"""Deepest nesting of a manifest, in levels: that of a Secret with managed fields is eight."""

SECRET_MEMBER: Final = "tls.key"
"""Member of a Secret in which cert-manager keeps an account's key, whatever its issuer says."""

_MAX_COORDINATE_BYTES: Final = 66
"""Longest coordinate of any curve that a JWK names, in bytes: that of P-521."""

_CURVES: Final[Mapping[str, ec.EllipticCurve]] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1()}
_FACTORS: Final = ("p", "q", "dp", "dq", "qi")


def parse_foreign_key(content: bytes) -> PrivateKey:
    """Return the key in a file of another client: PEM, a JWK, or a Secret in YAML or JSON.

    Raises:
        ValueError: With the rest of a sentence about the file.
    """
    if len(content) > MAX_FOREIGN_BYTES:
        raise ValueError(f"is larger than {MAX_FOREIGN_BYTES} bytes, expected one key")
    if content.lstrip().startswith(b"-----BEGIN"):
        return parse_pem_private_key(content)
    document = _read_document(content)
    if "kty" in document:
        return parse_jwk_private_key(document)
    if document.get("kind") == "Secret":
        return parse_secret_manifest(document)
    if document.get("kind") == "List":
        raise ValueError("is a list of manifests, expected the one Secret with the account's key")
    raise ValueError("is neither PEM, nor a JWK, nor the manifest of a Secret")


def parse_pem_private_key(content: bytes) -> PrivateKey:
    """Return the key of a PEM file that is not encrypted; raises ValueError as above."""
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise ValueError(
            "is encrypted; write it without a passphrase where only you can read: openssl pkey"
        ) from None
    except UnsupportedAlgorithm:
        raise ValueError(f"holds a key of an unknown kind, expected {_EXPECTED}") from None
    except ValueError:
        raise ValueError(_why_no_key(content)) from None
    return _accepted(key)


def parse_pkcs8(der: bytes) -> PrivateKey:
    """Return the key of plain PKCS#8 in DER; raises ValueError as above."""
    try:
        key = load_der_private_key(der, None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise ValueError("is no private key in plain PKCS#8") from None
    return _accepted(key)


def pkcs8_of(key: PrivateKey) -> bytes:
    """Return *key* as plain PKCS#8 in DER; the caller sees that it goes nowhere it must not."""
    return key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def parse_jwk_private_key(document: Mapping[str, Any]) -> PrivateKey:
    """Return the key of a private JWK (RFC 7518 §6.2.2 and §6.3.2); raises ValueError as above.

    Members that say what a key is for are passed over.  Factors that are missing are found again
    from the private exponent.
    """
    kty = document.get("kty")
    if kty == "EC":
        return _accepted(_read_ec(document))
    if kty == "RSA":
        return _accepted(_read_rsa(document))
    raise ValueError(f"is a JWK of kty '{str(kty)[:16]}', expected EC or RSA")


def parse_secret_manifest(document: Mapping[str, Any]) -> PrivateKey:
    """Return the key in cert-manager's Secret of an account; raises ValueError as above."""
    data, plain = document.get("data"), document.get("stringData")
    if isinstance(data, Mapping) and SECRET_MEMBER in data:
        text = data[SECRET_MEMBER]
        try:
            content = base64.b64decode("".join(str(text).split()), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError(f"has a member data.{SECRET_MEMBER} that is no base64") from None
    elif isinstance(plain, Mapping) and SECRET_MEMBER in plain:
        content = str(plain[SECRET_MEMBER]).encode()
    else:
        raise ValueError(f"is a Secret without data.{SECRET_MEMBER}, where cert-manager keeps it")
    return parse_pem_private_key(content)


_EXPECTED: Final = "RSA of 2048 to 4096 bits, P-256 or P-384"


def _accepted(key: object) -> PrivateKey:
    """Return *key* where CAs and all our stores take its kind."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if key.curve.name not in {curve.name for curve in _CURVES.values()}:
            raise ValueError(f"holds a key on {key.curve.name}, expected {_EXPECTED}")
        return key
    if not isinstance(key, rsa.RSAPrivateKey):
        kind = type(key).__name__.strip("_").removesuffix("PrivateKey")
        raise ValueError(f"holds a key of kind {kind}, expected {_EXPECTED}")
    _check_rsa(key.key_size, key.public_key().public_numbers().e)
    return key


def _check_rsa(bits: int, exponent: int) -> None:
    if not MIN_RSA_BITS <= bits <= MAX_RSA_BITS or bits % 8:
        raise ValueError(f"holds an RSA key of {bits} bits, expected {_EXPECTED}")
    if exponent < MIN_RSA_EXPONENT or exponent % 2 == 0 or exponent >= 2**32:
        raise ValueError("holds an RSA key with an exponent that CAs do not take")


def _why_no_key(content: bytes) -> str:
    label = content.lstrip().split(b"-----", 2)[1].decode("ascii", "replace")
    what = label.removeprefix("BEGIN ")[:40]
    if "PRIVATE KEY" not in what:
        return f"begins with '{what}', expected a private key"
    return f"has a '{what}' block that cannot be read"


def _read_document(content: bytes) -> Mapping[str, Any]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is no text, expected PEM, a JWK or the manifest of a Secret") from None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = _read_yaml(text)
    if not isinstance(document, Mapping):
        raise ValueError("is neither PEM, nor a JWK, nor the manifest of a Secret")
    return document


def _read_yaml(text: str) -> object:
    yaml = YAML(typ="safe", pure=True)
    try:
        _check_shape(yaml.parse(text))
        return yaml.load(text)
    except (YAMLError, ValueError, RecursionError):
        # The parser's own words quote the line, which may be the key.
        raise ValueError("is neither PEM, nor a JWK, nor the manifest of a Secret") from None


def _check_shape(events: Iterable[object]) -> None:
    """Refuse what costs more than it can be worth: aliases grow without end, depth squares."""
    depth = 0
    for event in events:
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if isinstance(event, AliasEvent) or depth > MAX_DEPTH:
            raise ValueError


def _read_ec(document: Mapping[str, Any]) -> ec.EllipticCurvePrivateKey:
    curve = _CURVES.get(str(document.get("crv")))
    if curve is None:
        named = str(document.get("crv"))[:16]
        raise ValueError(f"is a JWK on curve '{named}', expected P-256 or P-384")
    d, x, y = (_number(document, name, _MAX_COORDINATE_BYTES) for name in ("d", "x", "y"))
    try:
        key = ec.derive_private_key(d, curve)
    except ValueError:
        _inconsistent()
    public = key.public_key().public_numbers()
    if (public.x, public.y) != (x, y):
        _inconsistent()
    return key


def _read_rsa(document: Mapping[str, Any]) -> rsa.RSAPrivateKey:
    if "oth" in document:
        raise ValueError("is a JWK of an RSA key with more than two primes, which nothing here has")
    n, e, d = (_number(document, name, MAX_RSA_BITS // 8) for name in ("n", "e", "d"))
    _check_rsa(n.bit_length(), e)
    try:
        if all(name in document for name in _FACTORS):
            p, q, dp, dq, qi = (_number(document, name, MAX_RSA_BITS // 8) for name in _FACTORS)
        else:
            p, q = rsa.rsa_recover_prime_factors(n, e, d)
            dp, dq = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q)
            qi = rsa.rsa_crt_iqmp(p, q)
        numbers = rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, rsa.RSAPublicNumbers(e, n))
        return numbers.private_key()
    except ValueError as error:
        if str(error).startswith("is a JWK"):
            raise
        _inconsistent()


def _inconsistent() -> NoReturn:
    raise ValueError("is a JWK whose members do not belong to one key") from None


def _number(document: Mapping[str, Any], name: str, most_bytes: int) -> int:
    text = document.get(name)
    if not isinstance(text, str) or not text:
        raise ValueError(f"is a JWK without member '{name}', expected the private key")
    if len(text) > (most_bytes + 1) * 4 // 3 + 4:
        raise ValueError(f"is a JWK whose member '{name}' has more than {most_bytes} octets")
    try:
        return int.from_bytes(parse_base64url(text), "big")
    except ValueError:
        raise ValueError(f"is a JWK whose member '{name}' is no base64url") from None
