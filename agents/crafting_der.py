"""DER by hand, as little as there has to be: requests and certificates written, certificates read.

Used where no library of cryptography is at hand: with the ``openssl`` program, and for keys that
live on a token.  Pure: no key, no clock, no file.  What it reads is bounded by its caller, and
whatever is not canonical, not expected or left over is an error, never a guess.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any, Final

__all__ = [
    "EKU_NAMES",
    "KEY_USAGES",
    "DerFault",
    "certificate_facts",
    "issuer_of",
    "key_kind_of",
    "request_body",
    "self_signed_body",
    "signed",
    "subject_of",
]

BOOLEAN, INTEGER, BITS, OCTETS, OID, UTF8, SEQUENCE, SET = 1, 2, 3, 4, 6, 12, 0x30, 0x31

EKU_NAMES: Final = {
    "1.3.6.1.5.5.7.3.1": "serverAuth",
    "1.3.6.1.5.5.7.3.2": "clientAuth",
    "1.3.6.1.5.5.7.3.3": "codeSigning",
    "1.3.6.1.5.5.7.3.4": "emailProtection",
    "1.3.6.1.5.5.7.3.8": "timeStamping",
    "1.3.6.1.5.5.7.3.9": "OCSPSigning",
    "2.5.29.37.0": "anyExtendedKeyUsage",
}
"""Extended key usages that have a name (RFC 5280 §4.2.1.12); others are told by number."""

KEY_USAGES: Final = (
    "digitalSignature",
    "nonRepudiation",
    "keyEncipherment",
    "dataEncipherment",
    "keyAgreement",
    "keyCertSign",
    "cRLSign",
    "encipherOnly",
    "decipherOnly",
)
"""Key usages by their bit (RFC 5280 §4.2.1.3)."""

_CURVES: Final = {
    "1.2.840.10045.3.1.7": "ec-p256",
    "1.3.132.0.34": "ec-p384",
    "1.3.132.0.35": "ec-p521",
}
_RSA: Final = "1.2.840.113549.1.1.1"
_EC: Final = "1.2.840.10045.2.1"
_SIGNATURES: Final = {"ec": "1.2.840.10045.4.3.2", "ec384": "1.2.840.10045.4.3.3"}
_RSA_SHA256: Final = "1.2.840.113549.1.1.11"
_SAN, _BASIC, _USAGE, _EXTENDED = "2.5.29.17", "2.5.29.19", "2.5.29.15", "2.5.29.37"
_COMMON_NAME: Final = "2.5.4.3"


class DerFault(ValueError):
    """These octets are not what they should be; says where."""


# ----------------------------------------------------------------------------------- writing


def _tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + body


def _oid(dotted: str) -> bytes:
    first, second, *rest = (int(part) for part in dotted.split("."))
    octets = bytearray()
    for number in (first * 40 + second, *rest):
        groups = [number & 0x7F]
        while number := number >> 7:
            groups.append(0x80 | (number & 0x7F))
        octets += bytes(reversed(groups))
    return _tlv(OID, bytes(octets))


def _integer(number: int) -> bytes:
    return _tlv(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def _alternative_names(names: Sequence[str]) -> bytes:
    return _tlv(SEQUENCE, *(_general_name(name) for name in names))


def _general_name(name: str) -> bytes:
    if "@" in name:
        return _tlv(0x81, name.encode("ascii"))
    try:
        return _tlv(0x87, ipaddress.ip_address(name).packed)
    except ValueError:
        return _tlv(0x82, name.encode("ascii"))


def _algorithm(kind: str) -> bytes:
    if kind.startswith("rsa"):
        return _tlv(SEQUENCE, _oid(_RSA_SHA256), _tlv(5))
    return _tlv(SEQUENCE, _oid(_SIGNATURES["ec384" if kind == "ec-p384" else "ec"]))


def _extension(oid: str, value: bytes, *, is_critical: bool = False) -> bytes:
    critical = _tlv(BOOLEAN, b"\xff") if is_critical else b""
    return _tlv(SEQUENCE, _oid(oid), critical, _tlv(OCTETS, value))


def request_body(spki_der: bytes, names: Sequence[str]) -> bytes:
    """Return what is signed of a request: an empty subject, and the names as alternative names
    (RFC 2986 §4.1; RFC 8555 §7.4 lets the common name be absent)."""
    attributes = b""
    if names:
        wanted = _tlv(SEQUENCE, _extension(_SAN, _alternative_names(names), is_critical=True))
        attributes = _tlv(SEQUENCE, _oid("1.2.840.113549.1.9.14"), _tlv(SET, wanted))
    return _tlv(SEQUENCE, _integer(0), _tlv(SEQUENCE), spki_der, _tlv(0xA0, attributes))


def self_signed_body(
    spki_der: bytes, kind: str, names: Sequence[str], *, window: tuple[int, int], acme: bytes
) -> bytes:
    """Return what is signed of the certificate that answers tls-alpn-01 (RFC 8737 §3).

    *window* is when it begins and ends, in seconds since 1970; *acme* is the digest of the key
    authorization.
    """
    nobody = _tlv(
        SEQUENCE,
        _tlv(SET, _tlv(SEQUENCE, _oid(_COMMON_NAME), _tlv(UTF8, b"tls-alpn-01"))),
    )
    extensions = _tlv(
        SEQUENCE,
        _extension(_SAN, _alternative_names(names), is_critical=True),
        _extension("1.3.6.1.5.5.7.1.31", _tlv(OCTETS, acme), is_critical=True),
    )
    validity = _tlv(SEQUENCE, *(_utc_time(moment) for moment in window))
    serial = int.from_bytes(hashlib.sha256(spki_der + acme).digest()[:16], "big")
    return _tlv(
        SEQUENCE,
        _tlv(0xA0, _integer(2)),
        _integer(serial),
        _algorithm(kind),
        nobody,
        validity,
        nobody,
        spki_der,
        _tlv(0xA3, extensions),
    )


def _utc_time(seconds: int) -> bytes:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return _tlv(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode())


def signed(body: bytes, kind: str, signature: bytes) -> bytes:
    """Return *body* with its signature: a request or a certificate."""
    return _tlv(SEQUENCE, body, _algorithm(kind), _tlv(BITS, b"\0", signature))


def ecdsa_signature(r: int, s: int) -> bytes:
    """Return a signature as X.509 writes it (RFC 3279 §2.2.3)."""
    return _tlv(SEQUENCE, _integer(r), _integer(s))


def ecdsa_numbers(signature: bytes) -> tuple[int, int]:
    """Return the two numbers of a signature as X.509 writes it; raises DerFault."""
    r, s = _children(_only(signature, SEQUENCE))
    return _number(r), _number(s)


def ec_spki(curve_oid: bytes, point: bytes) -> bytes:
    """Return a public key (RFC 5480 §2) from what a token tells of it."""
    return _tlv(SEQUENCE, _tlv(SEQUENCE, _oid(_EC), curve_oid), _tlv(BITS, b"\0", point))


def rsa_spki(modulus: int, exponent: int) -> bytes:
    """Return a public key (RFC 3279 §2.3.1) from what a token tells of it."""
    key = _tlv(SEQUENCE, _integer(modulus), _integer(exponent))
    return _tlv(SEQUENCE, _tlv(SEQUENCE, _oid(_RSA), _tlv(5)), _tlv(BITS, b"\0", key))


def octets_of(octets_der: bytes) -> bytes:
    """Return what an octet string holds; raises DerFault."""
    return _only(octets_der, OCTETS)


def curve_parameters(kind: str) -> bytes:
    """Return the OID of a curve in DER, as a token wants it."""
    return _oid(next(oid for oid, name in _CURVES.items() if name == kind))


# ----------------------------------------------------------------------------------- reading

Node = tuple[int, bytes, bytes]
"""Tag, content, and all of it as it stands."""


def _read(octets: bytes, at: int) -> tuple[Node, int]:
    try:
        tag, length, start = octets[at], octets[at + 1], at + 2
        if tag & 0x1F == 0x1F:
            raise DerFault("a tag of several octets")
        if length >= 0x80:
            count = length & 0x7F
            length = int.from_bytes(octets[start : start + count], "big")
            if not 0 < count <= 4 or length < 0x80 or octets[start] == 0:
                raise DerFault("a length that is not canonical")
            start += count
    except IndexError:
        raise DerFault("it ends too early") from None
    end = start + length
    if end > len(octets):
        raise DerFault("it ends too early")
    return (tag, octets[start:end], octets[at:end]), end


def _children(content: bytes) -> list[Node]:
    return list(_walk(content))


def _walk(content: bytes) -> Iterator[Node]:
    at = 0
    while at < len(content):
        node, at = _read(content, at)
        yield node


def _only(octets: bytes, tag: int) -> bytes:
    """Return the content of the one value in *octets*."""
    node, end = _read(octets, 0)
    if end != len(octets) or node[0] != tag:
        raise DerFault(f"not one value with tag {tag}")
    return node[1]


def _expect(node: Node, tag: int) -> bytes:
    if node[0] != tag:
        raise DerFault(f"tag {node[0]} where {tag} should be")
    return node[1]


def _number(node: Node) -> int:
    return int.from_bytes(_expect(node, INTEGER), "big", signed=True)


def _dotted(node: Node) -> str:
    octets = _expect(node, OID)
    if not octets or octets[-1] & 0x80:
        raise DerFault("an object identifier that does not end")
    numbers, number = [], 0
    for octet in octets:
        number = number << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(str(one) for one in (first, numbers[0] - 40 * first, *numbers[1:]))


def _tbs(certificate_der: bytes) -> list[Node]:
    """Return the parts of a certificate's body, from its version on (RFC 5280 §4.1)."""
    outer = _children(_only(certificate_der, SEQUENCE))
    if len(outer) != 3:
        raise DerFault("a certificate has three parts")
    parts = _children(_expect(outer[0], SEQUENCE))
    if len(parts) < 7 or parts[0][0] != 0xA0 or parts[0][1] != _integer(2):
        raise DerFault("not a certificate of version 3")
    return parts


def issuer_of(certificate_der: bytes) -> bytes:
    """Return the issuer's name as it stands; raises DerFault."""
    return _tbs(certificate_der)[3][2]


def subject_of(certificate_der: bytes) -> bytes:
    """Return the subject's name as it stands; raises DerFault."""
    return _tbs(certificate_der)[5][2]


def key_kind_of(spki_der: bytes) -> str:
    """Return what kind of key that is, in the words of the configuration; raises DerFault."""
    algorithm, key = _children(_only(spki_der, SEQUENCE))
    parameters = _children(_expect(algorithm, SEQUENCE))
    oid = _dotted(parameters[0])
    if oid == _EC:
        return _CURVES.get(_dotted(parameters[1]), "ec-other")
    if oid == _RSA:
        modulus, _ = _children(_only(_expect(key, BITS)[1:], SEQUENCE))
        return f"rsa-{_number(modulus).bit_length()}"
    return {"1.3.101.112": "ed25519", "1.3.101.113": "ed448"}.get(oid, "other")


def certificate_facts(certificate_der: bytes) -> dict[str, Any]:
    """Return what a certificate says of itself, in values of JSON.

    Raises:
        DerFault: It cannot be read.
    """
    parts = _tbs(certificate_der)
    spki_der = parts[6][2]
    begins, ends = _children(_expect(parts[4], SEQUENCE))
    facts: dict[str, Any] = {
        "fingerprint": hashlib.sha256(certificate_der).hexdigest(),
        "spki_sha256": hashlib.sha256(spki_der).hexdigest(),
        "key_kind": key_kind_of(spki_der),
        "serial": f"{_number(parts[1]):x}",
        "not_before": _seconds(begins),
        "not_after": _seconds(ends),
        "common_names": _common_names(parts[5]),
        "is_self_issued": parts[3][2] == parts[5][2],
        "names": [],
        "is_ca": False,
        "key_usages": [],
        "extended_key_usages": [],
    }
    for part in parts[7:]:
        if part[0] == 0xA3:
            _read_extensions(_only(part[1], SEQUENCE), facts)
    return facts


def _read_extensions(content: bytes, facts: dict[str, Any]) -> None:
    seen = set()
    for node in _walk(content):
        fields = _children(_expect(node, SEQUENCE))
        oid, value = _dotted(fields[0]), _expect(fields[-1], OCTETS)
        if oid in seen:
            raise DerFault(f"extension {oid} stands there twice")
        seen.add(oid)
        if oid == _SAN:
            facts["names"] = [_name_text(one) for one in _walk(_only(value, SEQUENCE))]
        elif oid == _BASIC:
            members = _children(_only(value, SEQUENCE))
            facts["is_ca"] = bool(members) and members[0][:2] == (BOOLEAN, b"\xff")
        elif oid == _USAGE:
            facts["key_usages"] = _usages(_only(value, BITS))
        elif oid == _EXTENDED:
            kinds = [_dotted(one) for one in _walk(_only(value, SEQUENCE))]
            facts["extended_key_usages"] = [EKU_NAMES.get(kind, kind) for kind in kinds]


def _usages(content: bytes) -> list[str]:
    if not content:
        raise DerFault("a key usage without its bits")
    bits = "".join(f"{octet:08b}" for octet in content[1:])
    return [name for name, bit in zip(KEY_USAGES, bits, strict=False) if bit == "1"]


def _name_text(node: Node) -> str:
    tag, content, _ = node
    if tag in (0x81, 0x82):
        text = content.decode("ascii", "backslashreplace")
        return text.lower() if tag == 0x82 else text
    if tag == 0x87 and len(content) in (4, 16):
        return str(ipaddress.ip_address(content))
    return f"other:{tag}:{content.hex()}"


def _common_names(name: Node) -> list[str]:
    found = []
    for group in _walk(_expect(name, SEQUENCE)):
        for pair in _walk(_expect(group, SET)):
            kind, value = _children(_expect(pair, SEQUENCE))
            if _dotted(kind) == _COMMON_NAME:
                codec = "utf-16-be" if value[0] == 30 else "utf-8"
                found.append(value[1].decode(codec, "replace"))
    return found


def _seconds(node: Node) -> int:
    tag, content, _ = node
    text = content.decode("ascii", "replace")
    if tag == 0x17:  # RFC 5280 §4.1.2.5.1: two digits stand for 1950 to 2049
        text = ("20" if text[:2] < "50" else "19") + text
    elif tag != 0x18:
        raise DerFault("a time that is neither kind of time")
    try:
        if len(text) != 15 or not text.endswith("Z"):
            raise ValueError
        return int(datetime.datetime.strptime(text, "%Y%m%d%H%M%S%z").timestamp())
    except ValueError:
        raise DerFault("a time that is none") from None
