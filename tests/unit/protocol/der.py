"""DER by hand, for what a library refuses to build: CSRs and certificates with one thing wrong."""

from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ECDSA_SHA256 = "1.2.840.10045.4.3.2"
ECDSA_SHA1 = "1.2.840.10045.4.1"
RSA_MD5 = "1.2.840.113549.1.1.4"
EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
SUBJECT_ALT_NAME = "2.5.29.17"


def tlv(tag: int, content: bytes) -> bytes:
    """Return a tag, a length and a content."""
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def sequence(*parts: bytes) -> bytes:
    """Return a SEQUENCE."""
    return tlv(0x30, b"".join(parts))


def set_of(*parts: bytes) -> bytes:
    """Return a SET OF, in the order given."""
    return tlv(0x31, b"".join(parts))


def integer(value: int) -> bytes:
    """Return an INTEGER."""
    return tlv(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def octet_string(content: bytes) -> bytes:
    """Return an OCTET STRING."""
    return tlv(0x04, content)


def bit_string(content: bytes) -> bytes:
    """Return a BIT STRING without unused bits."""
    return tlv(0x03, b"\x00" + content)


def oid(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER."""
    first, second, *rest = (int(part) for part in dotted.split("."))
    content = b""
    for arc in [first * 40 + second, *rest]:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.insert(0, 0x80 | (arc & 0x7F))
        content += bytes(groups)
    return tlv(0x06, content)


def extension(dotted: str, value: bytes, *, critical: bool = False) -> bytes:
    """Return one X.509 extension."""
    flag = tlv(0x01, b"\xff") if critical else b""
    return sequence(oid(dotted), flag, octet_string(value))


def dns_names(*names: bytes) -> bytes:
    """Return a subjectAltName extension with raw DNS names."""
    return extension(SUBJECT_ALT_NAME, sequence(*(tlv(0x82, name) for name in names)))


def raw_names(*names: bytes) -> bytes:
    """Return a subjectAltName extension with general names already encoded."""
    return extension(SUBJECT_ALT_NAME, sequence(*names))


def extension_request(*extensions: bytes, dotted: str = EXTENSION_REQUEST) -> bytes:
    """Return the CSR attribute that asks for extensions."""
    return sequence(oid(dotted), set_of(sequence(*extensions)))


def spki(key: Any) -> bytes:
    """Return the SubjectPublicKeyInfo of a private key."""
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def csr(
    key: Any,
    *attributes: bytes,
    version: int = 0,
    subject: bytes = b"\x30\x00",
    public_key: bytes | None = None,
    signature_oid: str = ECDSA_SHA256,
    hash_algorithm: hashes.HashAlgorithm | None = None,
) -> bytes:
    """Return a CSR signed by *key*, its attributes as given."""
    info = sequence(
        integer(version), subject, public_key or spki(key), tlv(0xA0, b"".join(attributes))
    )
    algorithm = hash_algorithm or hashes.SHA256()
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(info, PKCS1v15(), algorithm)
        parameters = b"\x05\x00"
    else:
        signature = key.sign(info, ec.ECDSA(algorithm))
        parameters = b""
    return sequence(info, sequence(oid(signature_oid), parameters), bit_string(signature))


def rdn(dotted: str, text: bytes, tag: int = 0x0C) -> bytes:
    """Return a relative distinguished name with one attribute, a UTF8String by default."""
    return set_of(sequence(oid(dotted), tlv(tag, text)))


def certificate(
    key: Any, issuer: str, subject: str, subject_key: Any, *, ca: bool = False, sha1: bool = False
) -> bytes:
    """Return a certificate of the year 2026, signed by an EC key, if need be with SHA-1."""
    algorithm = sequence(oid(ECDSA_SHA1 if sha1 else ECDSA_SHA256))
    is_ca = tlv(0x01, b"\xff") if ca else b""
    tbs = sequence(
        tlv(0xA0, integer(2)),
        integer(4711),
        algorithm,
        sequence(rdn("2.5.4.3", issuer.encode())),
        sequence(tlv(0x17, b"260101000000Z"), tlv(0x17, b"270101000000Z")),
        sequence(rdn("2.5.4.3", subject.encode())),
        spki(subject_key),
        tlv(0xA3, sequence(extension("2.5.29.19", sequence(is_ca), critical=True))),
    )
    digest = hashes.SHA1() if sha1 else hashes.SHA256()
    return sequence(tbs, algorithm, bit_string(key.sign(tbs, ec.ECDSA(digest))))
