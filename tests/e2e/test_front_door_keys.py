"""Algorithms and account keys over TLS: a short list, tied to the key, and cheap to refuse."""

import hmac
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.e2e.bad_requests import DROP, Bad, Draft, Holdings, names_of, refuse_then_pass
from tests.e2e.requester import JOSE, check_refusal, sealed
from tests.unit.protocol.builders import b64url, jwk_json, private_key

pytestmark = pytest.mark.e2e

ACCEPTED = {"ES256", "ES384", "ES512", "EdDSA", "Ed25519", "RS256"}

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

PROCESSOR_SECONDS = 0.05
"""Most processor time that refusing one key may cost."""


def alg(value: object) -> Callable[[Draft], None]:
    """Return what names another algorithm over a signature that is good for the right one."""
    return lambda draft: draft.header(alg=value)


def key(kind: str, **header: object) -> Callable[[Draft], None]:
    """Return what speaks by a good key of another kind, under the header's ``alg``."""
    return lambda draft: draft.sign_with(private_key(kind, "keys"), **header)


def none_at_all(draft: Draft) -> None:
    """Leave the signature out, and say so."""
    draft.header(alg="none")
    draft.outer(signature="")


def signed(make: Callable[[Any, bytes], bytes], **header: object) -> Callable[[Draft], None]:
    """Return what signs in a way of its own."""

    def spoil(draft: Draft) -> None:
        draft.header(**header)

        def sign(jws: dict[str, Any]) -> dict[str, Any]:
            message = f"{jws['protected']}.{jws['payload']}".encode()
            return {**jws, "signature": b64url(make(draft.key, message))}

        draft.after_signing.append(sign)

    return spoil


def mac(form: str) -> Callable[[Any, bytes], bytes]:
    """Return what makes a MAC keyed with the public key, which everybody knows."""

    def make(private: Any, message: bytes) -> bytes:
        public = private.public_key()
        secrets = {
            "der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "pem": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "jwk": json.dumps(jwk_json(private)).encode(),
        }
        return hmac.digest(secrets[form], message, "sha256")

    return make


def in_der(private: Any, message: bytes) -> bytes:
    """Sign as certificates do, in DER, where JOSE wants two numbers of one length."""
    der: bytes = private.sign(message, ec.ECDSA(hashes.SHA256()))
    return der


def two_numbers(r: int, s: int) -> Callable[[Any, bytes], bytes]:
    """Return a signature that is made of nothing but two numbers."""
    return lambda _private, _message: r.to_bytes(32, "big") + s.to_bytes(32, "big")


def pss(draft: Draft) -> None:
    """Sign with RSA-PSS and call it RS256."""
    rsa = private_key("RS256", "keys")
    draft.sign_with(rsa, alg="RS256")
    salted = padding.PSS(padding.MGF1(hashes.SHA256()), 32)

    def sign(jws: dict[str, Any]) -> dict[str, Any]:
        message = f"{jws['protected']}.{jws['payload']}".encode()
        return {**jws, "signature": b64url(rsa.sign(message, salted, hashes.SHA256()))}

    draft.after_signing.append(sign)


NOT_ACCEPTED = ("none", "None", "NONE", "HS256", "HS384", "HS512", "RS384", "RS512", "RS1",
                "PS256", "PS384", "PS512", "ES256K", "es256", "ES256 ", "Ed448", "X25519", "dir",
                "ECDH-ES", "ML-DSA-44", "A" * 5000)  # fmt: skip

ALGORITHMS = [
    *(Bad(f"alg {value[:10]!r}", "account", alg(value), "badSignatureAlgorithm", "not accepted")
      for value in NOT_ACCEPTED),
    Bad("alg none, no signature", "account",
        none_at_all, "malformed", "empty signature"),
    *(Bad(f"alg {name}", "account", alg(value), "malformed", "no alg")
      for name, value in (("missing", DROP), ("null", None), ("a number", 256),
                          ("a list", ["ES256"]), ("true", True))),
    Bad("alg empty", "account", alg(""), "badSignatureAlgorithm", "not accepted"),
    *(Bad(f"MAC over the public key in {form}", "account", signed(mac(form), alg="HS256"),
          "badSignatureAlgorithm", "not accepted") for form in ("der", "pem", "jwk")),
    *(Bad(f"{name} under the account's P-256 key", "account", alg(name), "badSignatureAlgorithm",
          "does not fit the key, expected ES256")
      for name in ("ES384", "ES512", "EdDSA", "Ed25519", "RS256")),
    *(Bad(f"{name} under an embedded {kind} key", "new-account", key(kind, alg=name),
          "badSignatureAlgorithm", "does not fit the key")
      for kind, name in (("RS256", "ES256"), ("RS256", "EdDSA"), ("ES384", "ES256"),
                         ("ES512", "ES384"), ("Ed25519", "ES256"), ("Ed25519", "RS256"))),
    Bad("PSS called RS256", "new-account", pss, "malformed", "does not verify"),
    Bad("signature in DER", "account", signed(in_der), "malformed", "does not verify"),
    *(Bad(f"signature of r={name}", "account", signed(two_numbers(r, s)), "malformed",
          "does not verify")
      for name, r, s in (("0", 0, 0), ("n", P256_ORDER, P256_ORDER), ("1", 1, 1),
                         ("n, s=0", P256_ORDER, 0), ("all bits", (1 << 256) - 1, (1 << 256) - 1))),
    *(Bad(f"signature of {size} octets", "account", signed(lambda *_, size=size: b"\x01" * size),
          "malformed", "does not verify") for size in (1, 63, 65, 96, 128, 40_000)),
]  # fmt: skip
"""RFC 8555 §6.2; CVE-2015-9235, CVE-2022-21449 and their like."""


def jwk(**changes: object) -> Callable[[Draft], None]:
    """Return what changes the embedded key, after the right one has signed."""

    def spoil(draft: Draft) -> None:
        changed = {**draft.protected["jwk"], **changes}
        draft.header(jwk={name: value for name, value in changed.items() if value is not DROP})

    return spoil


def whole(value: object) -> Callable[[Draft], None]:
    """Return what puts something else in the place of the embedded key."""
    return lambda draft: draft.header(jwk=value)


def rsa(bits: int, e: bytes = b"\x01\x00\x01", *, n: int | None = None) -> Callable[[Draft], None]:
    """Return what embeds an RSA key of a size, made up: nobody could sign with it."""
    modulus = n or (3 << (bits - 2)) + 1
    octets = modulus.to_bytes(math.ceil(modulus.bit_length() / 8), "big")

    def spoil(draft: Draft) -> None:
        draft.header(jwk={"kty": "RSA", "n": b64url(octets), "e": b64url(e)}, alg="RS256")

    return spoil


def okp(crv: str, size: int) -> Callable[[Draft], None]:
    """Return what embeds an octet key pair."""
    return lambda d: d.header(jwk={"kty": "OKP", "crv": crv, "x": b64url(b"\x09" * size)})


P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
RSA_MEMBERS = {"kty": "RSA", "n": b64url(b"\xc1" * 256), "e": "AQAB"}

KEYS = [
    *(Bad(f"RSA of {bits} bits", "new-account", rsa(bits), "badPublicKey", "bits|longer")
      for bits in (512, 1024, 2040, 4104, 8192, 16384, 100_000)),
    *(Bad(f"RSA exponent {name}", "new-account", rsa(2048, e), "badPublicKey", "exponent|octets")
      for name, e in (("1", b"\x01"), ("3", b"\x03"), ("17", b"\x11"), ("65536", b"\x01\x00\x00"),
                      ("of 5 octets", b"\x01\x00\x00\x00\x01"), ("of 2000 octets", b"\x81" * 2000),
                      ("zero", b"\x00"), ("with a leading zero", b"\x00\x01\x00\x01"))),
    Bad("RSA modulus even", "new-account", rsa(2048, n=3 << 2046), "badPublicKey", "even"),
    Bad("RSA modulus zero", "new-account", rsa(2048, n=1 << 7), "badPublicKey", "bits"),
    Bad("RSA modulus empty", "new-account", whole({**RSA_MEMBERS, "n": ""}), "badPublicKey",
        "empty"),
    Bad("RSA modulus padded", "new-account", whole({**RSA_MEMBERS, "n": "wQ=="}), "malformed",
        "padded"),
    Bad("RSA modulus a number", "new-account", whole({**RSA_MEMBERS, "n": 12345}), "malformed",
        "'n'"),
    Bad("RSA without e", "new-account", whole({"kty": "RSA", "n": RSA_MEMBERS["n"]}), "malformed",
        "'e'"),
    *(Bad(f"private member {name}", "new-account", jwk(**{name: b64url(b"secret" * 5)}),
          "malformed", f"private member '{name}'")
      for name in ("d", "p", "q", "dp", "dq", "qi", "oth", "k")),
    Bad("symmetric key", "new-account", whole({"kty": "oct", "k": "AAAA"}), "malformed", "'k'"),
    Bad("symmetric key without its key", "new-account", whole({"kty": "oct"}), "badPublicKey",
        "kty 'oct'"),
    Bad("kty missing", "new-account", jwk(kty=DROP), "malformed", "kty"),
    Bad("kty unknown", "new-account", jwk(kty="AKP"), "badPublicKey", "kty 'AKP'"),
    Bad("kty a list", "new-account", jwk(kty=["EC"]), "malformed", "kty"),
    *(Bad(f"curve {crv}", "new-account", jwk(crv=crv), "badPublicKey", "curve")
      for crv in ("P-192", "P-224", "secp256k1", "p-256", "brainpoolP256r1")),
    Bad("curve missing", "new-account", jwk(crv=DROP), "malformed", "'crv'"),
    Bad("point off the curve", "new-account", jwk(y=b64url(b"\x01" * 32)), "badPublicKey",
        "no point"),
    Bad("point zero", "new-account", jwk(x=b64url(bytes(32)), y=b64url(bytes(32))), "badPublicKey",
        "no point"),
    Bad("coordinate beyond the field", "new-account",
        jwk(x=b64url((P + 1).to_bytes(32, "big"))), "badPublicKey", "no point"),
    Bad("coordinate short", "new-account", jwk(x=b64url(b"\x01" * 31)), "badPublicKey",
        "31 octets, expected 32"),
    Bad("coordinate long", "new-account", jwk(x=b64url(b"\x00" + b"\x01" * 32)), "badPublicKey",
        "longer than 32"),
    Bad("coordinate of 30000 octets", "new-account", jwk(x="A" * 40_000), "badPublicKey",
        "longer than 32"),
    Bad("coordinate missing", "new-account", jwk(y=DROP), "malformed", "'y'"),
    Bad("coordinate null", "new-account", jwk(y=None), "malformed", "'y'"),
    *(Bad(f"OKP {crv}", "new-account", okp(crv, size), "badPublicKey", "curve|octets")
      for crv, size in (("X25519", 32), ("Ed448", 57), ("Ed25519", 31), ("Ed25519", 33))),
    *(Bad(f"jwk is {name}", "new-account", whole(value), "malformed", "jwk is not an object")
      for name, value in (("null", None), ("text", "key"), ("a list", []), ("true", True))),
    Bad("jwk empty", "new-account", whole({}), "malformed", "kty"),
    Bad("the account's key named by another's", "new-account",
        lambda d: d.header(jwk=jwk_json(private_key("ES256", "somebody else"))), "malformed",
        "does not verify"),
]  # fmt: skip
"""RFC 7518 §6; CVE-2018-0114, CVE-2023-6237: judged before any arithmetic."""


def distinct(cases: list[Bad]) -> list[str]:
    """Return ids, numbered where two cases read alike."""
    return [f"{number:02} {case}" for number, case in enumerate(cases)]


@pytest.mark.parametrize("bad", ALGORITHMS, ids=names_of(ALGORITHMS))
def test_algorithm_is_refused_by_name(holdings: Holdings, bad: Bad) -> None:
    """A badSignatureAlgorithm tells which ones are taken; a signature that lies is malformed."""
    document = refuse_then_pass(holdings, bad)
    if bad.kind == "badSignatureAlgorithm":
        assert document["algorithms"]
        assert set(document["algorithms"]) <= ACCEPTED


@pytest.mark.parametrize("bad", KEYS, ids=distinct(KEYS))
def test_key_is_refused(holdings: Holdings, bad: Bad) -> None:
    """An embedded key that is none, or that is not acceptable, opens no account."""
    before = holdings.door.penstock.count("accounts")
    refuse_then_pass(holdings, bad)
    assert holdings.door.penstock.count("accounts") == before


def test_the_tables_are_long_enough() -> None:
    """At least 40 algorithms and 40 keys are tried."""
    assert len(ALGORITHMS) >= 40
    assert len(KEYS) >= 40


def test_refusing_a_key_costs_little(holdings: Holdings) -> None:
    """A key that was made to be slow never reaches the arithmetic."""
    penstock = holdings.door.penstock
    before = penstock.processor_seconds()
    for bad in KEYS:
        draft = holdings.draft(bad.where)
        bad.spoil(draft)
        assert holdings.send(draft).problem == bad.kind
    used = penstock.processor_seconds() - before
    assert used < PROCESSOR_SECONDS * len(KEYS), f"{used:.2f} s for {len(KEYS)} keys"


@pytest.mark.parametrize(
    ("kind", "alg"),
    [("ES256", "ES256"), ("ES384", "ES384"), ("ES512", "ES512"), ("RS256", "RS256"),
     ("rsa-3072", "RS256"), ("rsa-4096", "RS256"), ("Ed25519", "EdDSA"), ("Ed25519", "Ed25519")],
)  # fmt: skip
def test_accepted_key_opens_an_account_and_speaks_for_it(
    holdings: Holdings, kind: str, alg: str
) -> None:
    """The twin of the tables above: each accepted algorithm, with a key that fits it."""
    made = private_key(kind, "accepted" + alg)
    client = holdings.door.client(key=made)
    assert alg == client.alg or kind == "Ed25519"
    url = client.url("new-account")
    header = {"alg": alg, "nonce": client.nonce(), "url": url, "jwk": jwk_json(made)}
    body = sealed(header, b'{"termsOfServiceAgreed": true}', made)
    answer = holdings.door.wire.send("POST", "/acme/default/new-account", body,
                                  [("Content-Type", JOSE)])  # fmt: skip
    assert answer.status == 201
    client.kid = answer.one("Location")
    assert client.post(client.kid).json()["status"] == "valid"


def test_members_that_say_how_a_key_is_used_are_no_part_of_it(holdings: Holdings) -> None:
    """Old clients send ``use`` and ``alg``: the thumbprint, and so the account, is the same."""
    client = holdings.door.account()
    url = client.url("new-account")
    header = client.header(url, by_key=True)
    header["jwk"] |= {"use": "sig", "alg": "ES256", "kid": "mine", "key_ops": ["verify"]}
    body = sealed(header, b"{}", client.key)
    again = holdings.door.wire.send("POST", "/acme/default/new-account", body,
                                 [("Content-Type", JOSE)])  # fmt: skip
    assert (again.status, again.one("Location")) == (200, client.kid)


def test_refusal_of_an_algorithm_names_all_that_are_taken(holdings: Holdings) -> None:
    """RFC 8555 §6.2: the problem document has the list, so that a client can choose again."""
    draft = holdings.draft("account")
    draft.header(alg="PS256")
    document = check_refusal(holdings.send(draft), "badSignatureAlgorithm", 400, "PS256")
    assert set(document["algorithms"]) == ACCEPTED
