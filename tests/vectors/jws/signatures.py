"""Signatures that are none, and that a lenient verifier takes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils

from tests.unit.protocol.builders import b64url, un64url
from tests.vectors.jws.drafts import (
    CURVES,
    ED25519_ORDER,
    ED25519_PRIME,
    Case,
    Draft,
    Spoil,
    key_of,
    members,
    sign,
    signature,
    signed_by,
    text_of,
)


def ecdsa(alg: str) -> Iterator[Case]:
    """Yield ECDSA signatures that are none (RFC 7518 §3.4)."""
    _, _, size, order = CURVES[alg]

    def pair(r: int | None, s: int | None) -> Spoil:
        def change(octets: bytes) -> bytes:
            left = octets[:size] if r is None else r.to_bytes(size, "big")
            return left + (octets[size:] if s is None else s.to_bytes(size, "big"))

        return signature(change)

    numbers = {"0": 0, "1": 1, "the order": order, "the order and one": order + 1,
               "the largest": 256**size - 1}  # fmt: skip
    for what, number in numbers.items():
        yield Case(f"r is {what}", "EdgeNumbers", pair(number, None))
        yield Case(f"s is {what}", "EdgeNumbers", pair(None, number))
    yield Case("r and s are 1", "EdgeNumbers", pair(1, 1))
    yield Case("r and s are the order", "EdgeNumbers", pair(order, order))
    yield Case("halves swapped", "Form", signature(lambda octets: octets[size:] + octets[:size]))
    yield Case("DER", "Form", signature(lambda octets: utils.encode_dss_signature(
        int.from_bytes(octets[:size], "big"), int.from_bytes(octets[size:], "big"))))  # fmt: skip
    yield Case("octets reversed", "Form", signature(lambda octets: octets[::-1]))
    yield from _any_signature()
    wrong: hashes.HashAlgorithm = hashes.SHA512() if alg == "ES256" else hashes.SHA256()
    yield Case("over another hash", "Hash", signed_by(
        lambda draft, message: sign(alg, draft.key, message, hashed=wrong)))  # fmt: skip


def _any_signature() -> Iterator[Case]:
    """Yield what no algorithm lets through."""
    yield Case("one octet short", "Length", signature(lambda octets: octets[:-1]))
    yield Case("without its first octet", "Length", signature(lambda octets: octets[1:]))
    yield Case("one octet long", "Length", signature(lambda octets: octets + b"\x00"))
    yield Case("a zero octet before it", "Length", signature(lambda octets: b"\x00" + octets))
    yield Case("twice", "Length", signature(lambda octets: octets * 2))
    yield Case("half of it", "Length", signature(lambda octets: octets[: len(octets) // 2]))
    yield Case("one octet", "Length", signature(lambda octets: octets[:1]))
    yield Case("all zeros", "EdgeNumbers", signature(lambda octets: bytes(len(octets))))
    yield Case("all ones", "EdgeNumbers", signature(lambda octets: b"\xff" * len(octets)))
    for bit in (0, 7, 8, 255, 256):
        yield Case(f"bit {bit} flipped", "BitFlip", signature(_flipped(bit)))
    yield Case("by another key", "OtherKey", signed_by(_by_another_key))
    yield Case("over the payload alone", "Message", signed_by(
        lambda draft, message: sign(draft.alg, draft.key, message.split(b".")[1])))  # fmt: skip
    yield Case("over the header alone", "Message", signed_by(
        lambda draft, message: sign(draft.alg, draft.key, message.split(b".")[0])))  # fmt: skip
    yield Case("over the decoded payload", "Message", signed_by(
        lambda draft, _: sign(draft.alg, draft.key, draft.payload)))  # fmt: skip
    yield Case("over header and decoded payload", "Message", signed_by(
        lambda draft, message: sign(
            draft.alg, draft.key, message.split(b".")[0] + b"." + draft.payload)))  # fmt: skip
    yield Case("over nothing", "Message", signed_by(
        lambda draft, _: sign(draft.alg, draft.key, b"")))  # fmt: skip
    yield Case("over its hash", "Message", signed_by(
        lambda draft, message: sign(
            draft.alg, draft.key, hashlib.sha256(message).digest())))  # fmt: skip
    yield Case("payload replaced", "Message", members(payload=b64url(b'{"a":1}')))
    yield Case("payload emptied", "Message", members(payload=""))
    yield Case("header written with spaces", "Message", text_of("protected", _other_spaces))


def _other_spaces(text: str) -> str:
    return b64url(json.dumps(json.loads(un64url(text)), indent=1).encode())


def _flipped(bit: int) -> Callable[[bytes], bytes]:
    def flip(octets: bytes) -> bytes:
        number = int.from_bytes(octets, "big") ^ (1 << bit)
        return number.to_bytes(len(octets), "big")

    return flip


def _by_another_key(draft: Draft, message: bytes) -> bytes:
    if draft.alg == "RS256":
        return bytes(reversed(sign("RS256", draft.key, message)))
    return sign(draft.alg, key_of(draft.alg, "stranger"), message)


def rsa_signatures() -> Iterator[Case]:
    """Yield RSA signatures that a lenient PKCS #1 reader takes (RFC 8017 §8.2.2)."""
    yield from _any_signature()
    for what, make in {
        "PSS padding": _pss,
        "SHA-1": lambda draft, message: sign("RS256", draft.key, message, hashed=hashes.SHA1()),
        "SHA-512": lambda draft, message: sign("RS256", draft.key, message, hashed=hashes.SHA512()),
        "no padding": lambda _, message: _raw(hashlib.sha256(message).digest()),
        "DigestInfo without NULL": lambda _, message: _padded(
            _INFO_BARE + hashlib.sha256(message).digest()
        ),
        "octets behind the hash": lambda _, message: _raw(_short(message) + b"\x01" * 40),
        "a hash without DigestInfo": lambda _, message: _padded(hashlib.sha256(message).digest()),
        "block type 2": lambda _, message: _padded(
            _INFO + hashlib.sha256(message).digest(), kind=2
        ),
        "padding of zeros": lambda _, message: _padded(
            _INFO + hashlib.sha256(message).digest(), fill=0
        ),
    }.items():
        yield Case(what, "Padding", signed_by(make))
    yield Case("modulus added", "EdgeNumbers", signature(_with_modulus))


_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
_INFO_BARE: Final = bytes.fromhex("302f300b06096086480165030402010420")


def _raw(message: bytes) -> bytes:
    numbers: rsa.RSAPrivateNumbers = key_of("RS256").private_numbers()
    n = numbers.public_numbers.n
    return pow(int.from_bytes(message, "big"), numbers.d, n).to_bytes(256, "big")


def _padded(info: bytes, *, kind: int = 1, fill: int = 0xFF) -> bytes:
    return _raw(bytes([0, kind]) + bytes([fill]) * (253 - len(info)) + b"\x00" + info)


def _short(message: bytes) -> bytes:
    info = _INFO + hashlib.sha256(message).digest()
    return b"\x00\x01" + b"\xff" * (256 - 43 - len(info)) + b"\x00" + info


def _pss(draft: Draft, message: bytes) -> bytes:
    # A salt of no octets keeps this deterministic.
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 0)
    return bytes(draft.key.sign(message, pss, hashes.SHA256()))


def _with_modulus(octets: bytes) -> bytes:
    n: int = key_of("RS256").private_numbers().public_numbers.n
    return (int.from_bytes(octets, "big") + n).to_bytes(257, "big")


def ed25519_signatures() -> Iterator[Case]:
    """Yield Ed25519 signatures that a lenient verifier takes (RFC 8032 §5.1.7)."""
    yield from _any_signature()
    yield Case("s and the order added", "Malleable", signature(
        lambda octets: octets[:32] + little(_number(octets[32:]) + ED25519_ORDER)))  # fmt: skip
    yield Case("s is 0", "EdgeNumbers", signature(lambda octets: octets[:32] + bytes(32)))
    yield Case(
        "s is the order",
        "EdgeNumbers",
        signature(lambda octets: octets[:32] + little(ED25519_ORDER)),
    )
    yield Case(
        "R is the neutral point", "EdgeNumbers", signature(lambda octets: little(1) + octets[32:])
    )
    yield Case("R is not canonical", "EdgeNumbers", signature(
        lambda octets: little(ED25519_PRIME + 1) + octets[32:]))  # fmt: skip
    yield Case("halves swapped", "Form", signature(lambda octets: octets[32:] + octets[:32]))


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "little")


def little(number: int) -> bytes:
    """Return a number as RFC 8032 writes it: 32 octets, the least first."""
    return number.to_bytes(32, "little")
