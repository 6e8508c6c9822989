"""Requests, CSRs and certificates for the tests of the protocol, well-formed by default."""

import base64
import functools
import ipaddress
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

VECTORS = Path(__file__).parents[2] / "vectors"
URL = "https://acme.example/acme/new-order"
KID = "https://acme.example/acme/account/1"
NONCE = "bm9uY2UtMTIzNDU2Nzg5MA"
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_CURVES: dict[str, ec.EllipticCurve] = {
    "ES256": ec.SECP256R1(),
    "ES384": ec.SECP384R1(),
    "ES512": ec.SECP521R1(),
    "secp256k1": ec.SECP256K1(),
    "P-224": ec.SECP224R1(),
}
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "ES256": hashes.SHA256(),
    "ES384": hashes.SHA384(),
    "ES512": hashes.SHA512(),
    "RS256": hashes.SHA256(),
}


def private_key(kind: str = "ES256", label: object = 0) -> Any:
    """Return the private key of a kind; the same for the same label."""
    return _generate("EdDSA" if kind == "Ed25519" else kind, label)


@functools.cache
def _generate(kind: str, label: object) -> Any:
    if kind in _CURVES:
        return ec.generate_private_key(_CURVES[kind])
    if kind == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    bits = {"RS256": 2048}.get(kind) or int(kind.removeprefix("rsa-"))
    return rsa.generate_private_key(65537, bits)


def b64url(data: bytes) -> str:
    """Return unpadded base64url."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def un64url(text: str) -> bytes:
    """Return the octets of unpadded base64url."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def jwk_json(key: Any) -> dict[str, str]:
    """Return the public JWK of a private key, written without the code under test."""
    public = key.public_key()
    if isinstance(public, ed25519.Ed25519PublicKey):
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url(public.public_bytes_raw())}
    numbers = public.public_numbers()
    if isinstance(public, rsa.RSAPublicKey):
        size = (numbers.n.bit_length() + 7) // 8
        return {"kty": "RSA", "n": b64url(numbers.n.to_bytes(size, "big")), "e": "AQAB"}
    size = (public.curve.key_size + 7) // 8
    crv = {256: "P-256", 384: "P-384", 521: "P-521", 224: "P-224"}[public.curve.key_size]
    x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
    return {"kty": "EC", "crv": crv, "x": b64url(x), "y": b64url(y)}


def sign(key: Any, message: bytes, alg: str = "ES256") -> bytes:
    """Return a JOSE signature, written without the code under test."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, padding.PKCS1v15(), _HASHES.get(alg, hashes.SHA256()))
    r, s = utils.decode_dss_signature(key.sign(message, ec.ECDSA(_HASHES[alg])))
    size = (key.curve.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def request_parts(
    *,
    alg: str = "ES256",
    key: Any = None,
    header: Mapping[str, Any] | None = None,
    drop: Sequence[str] = (),
    payload: bytes = b"{}",
    header_bytes: bytes | None = None,
) -> dict[str, Any]:
    """Return the three members of a signed request; *header* overrides, *drop* takes away."""
    key = key or private_key(alg)
    protected = {"alg": alg, "nonce": NONCE, "url": URL, "kid": KID, **(header or {})}
    for name in drop:
        protected.pop(name)
    octets = header_bytes if header_bytes is not None else json.dumps(protected).encode()
    message = f"{b64url(octets)}.{b64url(payload)}"
    return {
        "protected": b64url(octets),
        "payload": b64url(payload),
        "signature": b64url(sign(key, message.encode(), alg)),
    }


def request_body(**kwargs: Any) -> bytes:
    """Return a signed request body; see `request_parts`."""
    return json.dumps(request_parts(**kwargs)).encode()


def name(common_name: str | None = None, **others: str) -> x509.Name:
    """Return a distinguished name; others by their attribute's name in NameOID."""
    attributes = [
        x509.NameAttribute(getattr(NameOID, other.upper()), value)
        for other, value in others.items()
    ]
    if common_name is not None:
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    return x509.Name(attributes)


def general_names(names: Sequence[str | x509.GeneralName]) -> list[x509.GeneralName]:
    """Return texts as DNS names or IP addresses, and general names as they are."""
    result: list[x509.GeneralName] = []
    for text in names:
        if isinstance(text, x509.GeneralName):
            result.append(text)
            continue
        try:
            result.append(x509.IPAddress(ipaddress.ip_address(text)))
        except ValueError:
            result.append(x509.DNSName(text))
    return result


def make_csr(
    names: Sequence[str | x509.GeneralName] = ("www.example.com",),
    *,
    key: Any = None,
    subject: x509.Name | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    hash_algorithm: hashes.HashAlgorithm | None = None,
) -> bytes:
    """Return the DER of a signed CSR."""
    key = key or private_key("ES256", 1)
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject or x509.Name([]))
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(general_names(names)), critical=False
        )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    algorithm = None if _hashes_itself(key) else (hash_algorithm or hashes.SHA256())
    return builder.sign(key, algorithm).public_bytes(Encoding.DER)


def _hashes_itself(key: Any) -> bool:
    return isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)


class Authority:
    """A CA of the tests: its certificate, its key and what it issues."""

    def __init__(self, certificate: x509.Certificate, key: Any) -> None:
        self.certificate = certificate
        self.key = key
        self.der = certificate.public_bytes(Encoding.DER)
        self.pem = certificate.public_bytes(Encoding.PEM)

    @classmethod
    def root(cls, common_name: str = "Root", **kwargs: Any) -> "Authority":
        """Return a self-signed CA."""
        key = kwargs.pop("key", None) or private_key("ES256", common_name)
        subject = name(common_name)
        certificate = _issue(subject, key.public_key(), subject, key, ca=True, **kwargs)
        return cls(certificate, key)

    def intermediate(self, common_name: str = "Issuing", **kwargs: Any) -> "Authority":
        """Return a CA below this one."""
        key = kwargs.pop("key", None) or private_key("ES256", common_name)
        kwargs.setdefault("ca", True)
        subject = kwargs.pop("subject", None) or name(common_name)
        certificate = _issue(
            subject, key.public_key(), self.certificate.subject, self.key, **kwargs
        )
        return Authority(certificate, key)

    def leaf(self, *names: str | x509.GeneralName, **kwargs: Any) -> x509.Certificate:
        """Return an end-entity certificate for the names."""
        subject = kwargs.pop("subject", None) or x509.Name([])
        key = kwargs.pop("key", None) or private_key("ES256", 2)
        return _issue(
            subject,
            key.public_key(),
            self.certificate.subject,
            self.key,
            names=names,
            issuer_key=self.key.public_key(),
            **kwargs,
        )


def _issue(
    subject: x509.Name,
    public_key: Any,
    issuer: x509.Name,
    key: Any,
    *,
    names: Sequence[str | x509.GeneralName] = (),
    ca: bool = False,
    path_length: int | None = None,
    not_before: datetime = NOW - timedelta(hours=1),
    not_after: datetime = NOW + timedelta(days=89),
    serial: int | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    key_usage: x509.KeyUsage | None = None,
    issuer_key: Any = None,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(not_before)
        .not_valid_after(not_after)
    )
    if ca or path_length is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(general_names(names)), critical=False
        )
    if key_usage is not None:
        builder = builder.add_extension(key_usage, critical=True)
    if issuer_key is not None:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key)
        builder = builder.add_extension(identifier, critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, None if _hashes_itself(key) else hashes.SHA256())


def key_usage(*usages: str) -> x509.KeyUsage:
    """Return a key usage extension with the named bits of cryptography set."""
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{usage: usage in usages for usage in every})


def pem(*certificates: x509.Certificate | Authority) -> bytes:
    """Return certificates as PEM blocks, one behind the other."""
    return b"".join(
        c.pem if isinstance(c, Authority) else c.public_bytes(Encoding.PEM) for c in certificates
    )
