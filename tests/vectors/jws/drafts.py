"""Requests that can be spoilt before they are signed, while they are, and after."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, utils

from tests.unit.protocol.builders import b64url, jwk_json, un64url

ORIGIN: Final = "http://acme.corp.example"
URL: Final = f"{ORIGIN}/acme/default/new-order"
REGISTER: Final = f"{ORIGIN}/acme/default/new-account"
NONCE: Final = "dmVjdG9yLW5vbmNlLTAwMDE"
PAYLOAD: Final = b'{"identifiers":[{"type":"dns","value":"www.corp.example"}]}'
NEW_ACCOUNT: Final = b'{"contact":["mailto:pki@corp.example"]}'

_P: Final = int(
    "fe050780e345d5829e061ef2f22aeebaa7850701e5a711fc64b2893807211e5e746d73bea4e55e14"
    "5217e7a66bfafe07dd558d5674d0f518834a36b80b66ffab30cf4b6853c085433cc1b00eed30cbcc"
    "3395ff7f1fd7e289fafc566f475a2cd9e45352af60dd7434cbda3a6407482b22cf045c4f34c6c3a4"
    "0d26d4d2edfefd8d",
    16,
)
_Q: Final = int(
    "eac8dda2d7d7d900fb327c804b6a62313746617e5a009c5cf2aebea5adbce76906b2d1d20b2d395c"
    "af7f03eed080f6030e628d662e231f102e6a536b4281aa3556b863dd5dca8128e92bb71b8d016039"
    "32e61d11809e3f6a10822d468b09ccd61c2f7e02ffb5c619f6088345f79af78a4e6bac39c8b03d3d"
    "02549cb6f8614b89",
    16,
)

CURVES: Final[dict[str, tuple[ec.EllipticCurve, hashes.HashAlgorithm, int, int]]] = {
    "ES256": (
        ec.SECP256R1(),
        hashes.SHA256(),
        32,
        0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    ),
    "ES384": (
        ec.SECP384R1(),
        hashes.SHA384(),
        48,
        int("F" * 48 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16),
    ),
    "ES512": (
        ec.SECP521R1(),
        hashes.SHA512(),
        66,
        int(
            "01" + "F" * 64 + "FA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409",
            16,
        ),
    ),
}
"""Algorithm → curve, hash, octets of a coordinate, order of the base point."""

ED25519_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
"""Order of the base point of edwards25519 (RFC 8032 §5.1)."""

ED25519_PRIME: Final = 2**255 - 19


def key_of(alg: str, label: str = "account") -> Any:
    """Return the private key of an algorithm; the same for ever."""
    seed = hashlib.sha512(f"penstock {alg} {label}".encode()).digest()
    if alg == "EdDSA":
        return ed25519.Ed25519PrivateKey.from_private_bytes(seed[:32])
    if alg == "RS256":
        d = pow(65537, -1, (_P - 1) * (_Q - 1))
        public = rsa.RSAPublicNumbers(65537, _P * _Q)
        numbers = rsa.RSAPrivateNumbers(
            _P, _Q, d, d % (_P - 1), d % (_Q - 1), pow(_Q, -1, _P), public
        )
        return numbers.private_key()
    curve, _, _, order = CURVES[alg]
    return ec.derive_private_key(int.from_bytes(seed, "big") % (order - 1) + 1, curve)


def sign(
    alg: str, key: Any, message: bytes, *, hashed: hashes.HashAlgorithm | None = None
) -> bytes:
    """Return the JOSE signature, made deterministically."""
    if alg == "EdDSA":
        return bytes(key.sign(message))
    if alg == "RS256":
        return bytes(key.sign(message, padding.PKCS1v15(), hashed or hashes.SHA256()))
    _, usual, size, _ = CURVES[alg]
    der = key.sign(message, ec.ECDSA(hashed or usual, deterministic_signing=True))
    r, s = utils.decode_dss_signature(der)
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


@dataclass
class Draft:
    """A request that can still be spoilt: before it is signed, while, and after."""

    alg: str
    url: str = URL
    header: dict[str, Any] = field(default_factory=dict)
    header_bytes: bytes | None = None
    payload: bytes = PAYLOAD
    signer: Callable[[bytes], bytes] | None = None
    on_members: list[Callable[[dict[str, Any]], Any]] = field(default_factory=list)

    @classmethod
    def by_account(cls, alg: str) -> Draft:
        """Return a good newOrder of the account that has this algorithm's key."""
        header = {"alg": alg, "nonce": NONCE, "url": URL, "kid": kid_of(alg)}
        return cls(alg, header=header)

    @classmethod
    def by_key(cls, alg: str) -> Draft:
        """Return a good newAccount under an embedded key."""
        header = {"alg": alg, "nonce": NONCE, "url": REGISTER, "jwk": jwk_json(key_of(alg))}
        return cls(alg, url=REGISTER, header=header, payload=NEW_ACCOUNT)

    @property
    def key(self) -> Any:
        """Return the right private key."""
        return key_of(self.alg)

    def body(self) -> bytes:
        """Return the octets to send."""
        octets = self.header_bytes
        if octets is None:
            octets = json.dumps(self.header, separators=(",", ":")).encode()
        message = f"{b64url(octets)}.{b64url(self.payload)}"
        signer = self.signer or (lambda text: sign(self.alg, self.key, text))
        members: Any = {
            "protected": b64url(octets),
            "payload": b64url(self.payload),
            "signature": b64url(signer(message.encode())),
        }
        for change in self.on_members:
            members = change(members)
        return members if isinstance(members, bytes) else json.dumps(members).encode()


def kid_of(alg: str) -> str:
    """Return the account URL of the key of an algorithm."""
    return f"{ORIGIN}/acme/default/account/acct{ACCOUNTS.index(alg) + 1}"


ACCOUNTS: Final = ("ES256", "ES384", "ES512", "EdDSA", "RS256")
"""Algorithms whose keys have accounts, in the order in which they registered."""

Spoil = Callable[[Draft], None]


@dataclass(frozen=True)
class Case:
    """One way to spoil one good request, and the refusal that is due."""

    comment: str
    flag: str
    spoil: Spoil
    type: str = "malformed"
    status: int = 400


# ------------------------------------------------------------------------------ ways to spoil


def header(**changes: Any) -> Spoil:
    """Replace members of the protected header; it is signed as it then is."""
    return lambda draft: draft.header.update(changes)


def without(*names: str) -> Spoil:
    """Take members of the protected header away."""

    def spoil(draft: Draft) -> None:
        for name in names:
            draft.header.pop(name, None)

    return spoil


def header_text(change: Callable[[str], str | bytes]) -> Spoil:
    """Write the protected header's text another way."""

    def spoil(draft: Draft) -> None:
        text = change(json.dumps(draft.header, separators=(",", ":")))
        draft.header_bytes = (
            text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
        )

    return spoil


def members(**changes: Any) -> Spoil:
    """Replace members of the JWS after it was signed; None takes one away."""

    def change(jws: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in {**jws, **changes}.items() if value is not None}

    return lambda draft: draft.on_members.append(change)


def body(change: Callable[[dict[str, Any]], bytes]) -> Spoil:
    """Write the whole body another way."""
    return lambda draft: draft.on_members.append(change)


def text_of(name: str, change: Callable[[str], Any]) -> Spoil:
    """Write one member of the JWS another way."""
    return lambda draft: draft.on_members.append(lambda jws: {**jws, name: change(jws[name])})


def signature(change: Callable[[bytes], bytes]) -> Spoil:
    """Change the signature's octets."""
    return text_of("signature", lambda text: b64url(change(un64url(text))))


def signed_by(make: Callable[[Draft, bytes], bytes]) -> Spoil:
    """Sign in a way of one's own."""

    def spoil(draft: Draft) -> None:
        draft.signer = lambda message: make(draft, message)

    return spoil


def jwk(**changes: Any) -> Spoil:
    """Replace members of the embedded key; None takes one away."""

    def spoil(draft: Draft) -> None:
        made = {**draft.header["jwk"], **changes}
        draft.header["jwk"] = {name: value for name, value in made.items() if value is not None}

    return spoil


def compact(jws: dict[str, Any]) -> bytes:
    """Write the JWS in its compact form."""
    return ".".join(jws[name] for name in ("protected", "payload", "signature")).encode()


def general(count: int, *, beside: bool = False) -> Callable[[dict[str, Any]], bytes]:
    """Write the JWS in its general form with so many signatures."""

    def write(jws: dict[str, Any]) -> bytes:
        one = {name: jws[name] for name in ("protected", "signature")}
        whole = {"payload": jws["payload"], "signatures": [one] * count}
        return json.dumps({**jws, **whole} if beside else whole).encode()

    return write


def unprotected(*names: str) -> Spoil:
    """Move header members out of the signed part."""

    def spoil(draft: Draft) -> None:
        moved = {name: draft.header.pop(name) for name in names}
        draft.on_members.append(lambda jws: {**jws, "header": moved})

    return spoil


def mac_under_public_key(draft: Draft, message: bytes) -> bytes:
    """Return a MAC whose key everybody knows."""
    public = json.dumps(jwk_json(draft.key), sort_keys=True, separators=(",", ":"))
    return hmac.digest(public.encode(), message, "sha256")
