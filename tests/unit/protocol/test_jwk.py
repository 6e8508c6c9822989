"""Public keys as JWKs: thumbprints, and the keys that are refused."""

import json
import math
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ed448, x25519

from broker.protocol.jwk import jwk_from_public_key, parse_jwk
from broker.protocol.problems import Problem, ProblemType
from tests.unit.protocol.builders import VECTORS, b64url, jwk_json, private_key, un64url

JOSE = json.loads((VECTORS / "jose.json").read_text())
KINDS = ("ES256", "ES384", "ES512", "EdDSA", "RS256")

EC = jwk_json(private_key("ES256"))
P384 = jwk_json(private_key("ES384"))
P521 = jwk_json(private_key("ES512"))
OKP = jwk_json(private_key("EdDSA"))
RSA = jwk_json(private_key("RS256"))

GOOD = {"EC": EC, "P-384": P384, "P-521": P521, "OKP": OKP, "RSA": RSA}


def odd_number(bits: int) -> str:
    """Return the base64url of an odd number of so many bits."""
    number = (1 << (bits - 1)) | 1
    return b64url(number.to_bytes((bits + 7) // 8, "big"))


def off_curve(jwk: dict[str, str]) -> dict[str, str]:
    """Return a JWK whose y is not the y of its x."""
    y = bytearray(un64url(jwk["y"]))
    y[-1] ^= 1
    return {**jwk, "y": b64url(bytes(y))}


@pytest.mark.parametrize("example", JOSE["thumbprints"], ids=lambda example: example["id"])
def test_thumbprint_is_that_of_the_standard(example: dict[str, Any]) -> None:
    """The worked examples come out as printed, extra members dropped."""
    jwk = parse_jwk(example["jwk"])
    assert jwk.thumbprint == example["thumbprint"]
    assert len(jwk.thumbprint) == 43
    assert set(jwk.to_json()) == set(example["jwk"]) - {"alg", "kid", "use"}


@pytest.mark.parametrize("kind", KINDS)
def test_key_and_jwk_are_one_value(kind: str) -> None:
    """Parsing, serialising and starting from the public key give the same key."""
    key = private_key(kind)
    jwk = parse_jwk(jwk_json(key))
    assert jwk == jwk_from_public_key(key.public_key())
    assert jwk == parse_jwk(jwk.to_json())
    assert jwk.to_json() == jwk_json(key)
    assert hash(jwk) == hash(jwk_from_public_key(key.public_key()))
    assert jwk.canonical == json.dumps(jwk_json(key), sort_keys=True, separators=(",", ":"))
    assert kind in jwk.algorithms
    assert jwk != parse_jwk(jwk_json(private_key(kind, "another")))


def test_algorithms_belong_to_the_very_key() -> None:
    """A curve has one algorithm; Ed25519 has two names."""
    fits = {name: parse_jwk(jwk).algorithms for name, jwk in GOOD.items()}
    assert fits == {
        "EC": ("ES256",),
        "P-384": ("ES384",),
        "P-521": ("ES512",),
        "OKP": ("EdDSA", "Ed25519"),
        "RSA": ("RS256",),
    }


@pytest.mark.parametrize("extra", ["use", "alg", "kid", "key_ops", "x5c", "ext", "nonsense"])
@pytest.mark.parametrize("name", GOOD)
def test_other_members_are_dropped(name: str, extra: str) -> None:
    """What a key is meant for is no part of it: the thumbprint stays the same."""
    jwk = parse_jwk({**GOOD[name], extra: "anything"})
    assert jwk == parse_jwk(GOOD[name])
    assert extra not in jwk.to_json()


@pytest.mark.parametrize("member", ["d", "p", "q", "dp", "dq", "qi", "oth", "k"])
@pytest.mark.parametrize("name", GOOD)
def test_private_members_are_refused(name: str, member: str) -> None:
    """A client that sends its private key is told so, and the key is not used."""
    with pytest.raises(Problem, match=f"private member '{member}'") as caught:
        parse_jwk({**GOOD[name], member: "AAAA"})
    assert caught.value.type is ProblemType.MALFORMED
    assert parse_jwk(GOOD[name])


BAD = ProblemType.BAD_PUBLIC_KEY
MALFORMED = ProblemType.MALFORMED
REFUSED = [
    pytest.param(None, MALFORMED, id="null"),
    pytest.param("key", MALFORMED, id="string"),
    pytest.param([EC], MALFORMED, id="array"),
    pytest.param({}, MALFORMED, id="empty"),
    pytest.param({**EC, "kty": None}, MALFORMED, id="kty null"),
    pytest.param({**EC, "kty": ["EC"]}, MALFORMED, id="kty a list"),
    pytest.param({"kty": "oct", "k": "AAAA"}, MALFORMED, id="oct"),
    pytest.param({"kty": "oct"}, BAD, id="oct without its key"),
    pytest.param({**EC, "kty": "ec"}, BAD, id="kty lower case"),
    pytest.param({**EC, "kty": "AKP"}, BAD, id="kty AKP"),
    pytest.param({**EC, "crv": "P-224"}, BAD, id="P-224"),
    pytest.param({**EC, "crv": "secp256k1"}, BAD, id="secp256k1"),
    pytest.param({**EC, "crv": "p-256"}, BAD, id="curve lower case"),
    pytest.param({**EC, "crv": 256}, MALFORMED, id="curve a number"),
    pytest.param({k: v for k, v in EC.items() if k != "crv"}, MALFORMED, id="no curve"),
    pytest.param({k: v for k, v in EC.items() if k != "x"}, MALFORMED, id="no x"),
    pytest.param({k: v for k, v in EC.items() if k != "y"}, MALFORMED, id="no y"),
    pytest.param({**EC, "x": 5}, MALFORMED, id="x a number"),
    pytest.param({**EC, "x": EC["x"] + "="}, BAD, id="x padded"),
    pytest.param({**EC, "x": "+" * 43}, MALFORMED, id="x not base64url"),
    pytest.param({**EC, "x": ""}, BAD, id="x empty"),
    pytest.param({**EC, "x": b64url(un64url(EC["x"])[:-1])}, BAD, id="x one octet short"),
    pytest.param({**EC, "x": b64url(b"\x00" + un64url(EC["x"]))}, BAD, id="x one octet long"),
    pytest.param({**EC, "x": "A" * 100_000}, BAD, id="x of 75 kB"),
    pytest.param(off_curve(EC), BAD, id="P-256 off the curve"),
    pytest.param(off_curve(P384), BAD, id="P-384 off the curve"),
    pytest.param(off_curve(P521), BAD, id="P-521 off the curve"),
    pytest.param({**EC, "x": b64url(bytes(32)), "y": b64url(bytes(32))}, BAD, id="all zeros"),
    pytest.param({**EC, "x": b64url(b"\xff" * 32)}, BAD, id="x beyond the field"),
    pytest.param({**P384, "crv": "P-256"}, BAD, id="P-384 called P-256"),
    pytest.param({**EC, "crv": "P-384"}, BAD, id="P-256 called P-384"),
    pytest.param({**OKP, "crv": "Ed448"}, BAD, id="Ed448"),
    pytest.param({**OKP, "crv": "X25519"}, BAD, id="X25519"),
    pytest.param({**OKP, "crv": "ed25519"}, BAD, id="Ed25519 lower case"),
    pytest.param({"kty": "OKP", "crv": "Ed25519"}, MALFORMED, id="Ed25519 without x"),
    pytest.param({**OKP, "x": b64url(bytes(31))}, BAD, id="Ed25519 short"),
    pytest.param({**OKP, "x": b64url(bytes(33))}, BAD, id="Ed25519 long"),
    pytest.param({**RSA, "n": odd_number(512)}, BAD, id="RSA 512"),
    pytest.param({**RSA, "n": odd_number(1024)}, BAD, id="RSA 1024"),
    pytest.param({**RSA, "n": odd_number(2047)}, BAD, id="RSA 2047"),
    pytest.param({**RSA, "n": odd_number(4097)}, BAD, id="RSA 4097"),
    pytest.param({**RSA, "n": odd_number(16384)}, BAD, id="RSA 16384"),
    pytest.param({**RSA, "n": odd_number(400_000)}, BAD, id="RSA 400000"),
    pytest.param({**RSA, "n": b64url(((1 << 2047) | 2).to_bytes(256, "big"))}, BAD, id="n even"),
    pytest.param({**RSA, "n": b64url(b"\x00" + un64url(RSA["n"]))}, BAD, id="n leading zero"),
    pytest.param({**RSA, "n": ""}, BAD, id="n empty"),
    pytest.param({**RSA, "n": 3}, MALFORMED, id="n a number"),
    pytest.param({"kty": "RSA", "e": "AQAB"}, MALFORMED, id="no n"),
    pytest.param({"kty": "RSA", "n": RSA["n"]}, MALFORMED, id="no e"),
    pytest.param({**RSA, "e": b64url(b"\x01")}, BAD, id="e 1"),
    pytest.param({**RSA, "e": b64url(b"\x03")}, BAD, id="e 3"),
    pytest.param({**RSA, "e": b64url(b"\x01\x00\x00")}, BAD, id="e 65536"),
    pytest.param({**RSA, "e": b64url(b"\x00\x01\x00\x01")}, BAD, id="e leading zero"),
    pytest.param({**RSA, "e": b64url(b"\x01\x00\x00\x00\x01")}, BAD, id="e beyond 32 bits"),
    pytest.param({**RSA, "e": "A" * 100_000}, BAD, id="e of 75 kB"),
    pytest.param({**RSA, "e": ""}, BAD, id="e empty"),
    *(
        pytest.param({**OKP, "x": b64url(y.to_bytes(32, "little"))}, BAD, id=f"OKP {what}")
        for what, y in {
            "neutral point": 1,
            "neutral point, other sign": 1 | 1 << 255,
            "order 2": 2**255 - 20,
            "order 4": 0,
            "order 8": 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
            "not canonical": 2**255 - 16,
        }.items()
    ),
]


@pytest.mark.parametrize(("obj", "kind"), REFUSED)
def test_other_keys_are_refused_at_little_cost(obj: object, kind: ProblemType) -> None:
    """Each bad key is refused by its right name, before any arithmetic."""
    started = time.thread_time()
    with pytest.raises(Problem) as caught:
        parse_jwk(obj)
    assert time.thread_time() - started < 0.05
    assert caught.value.type is kind
    assert len(caught.value.detail) < 300


@pytest.mark.parametrize("name", GOOD)
def test_good_keys_are_accepted(name: str) -> None:
    """The keys that the table of refusals was made from are accepted."""
    assert parse_jwk(GOOD[name]).kty == GOOD[name]["kty"]


@pytest.mark.parametrize("bits", [2048, 2049, 3072, 4096])
def test_rsa_sizes_within_the_limits_are_accepted(bits: int) -> None:
    """The limits themselves are allowed; whether a modulus is well made is asked elsewhere."""
    jwk = parse_jwk({**RSA, "n": odd_number(bits)})
    assert jwk.kty == "RSA"


@pytest.mark.parametrize("exponent", [65537, 2**32 - 1])
def test_rsa_exponents_within_the_limits_are_accepted(exponent: int) -> None:
    """Odd exponents from 65537 to 32 bits are allowed."""
    octets = exponent.to_bytes(math.ceil(exponent.bit_length() / 8), "big")
    assert parse_jwk({**RSA, "e": b64url(octets)}).to_json()["e"] == b64url(octets)


def test_coordinates_keep_their_leading_zeros() -> None:
    """RFC 7518 §6.2.1.2: a short coordinate is as long as any other of its curve."""
    for number in range(2000):
        key = private_key("ES256", f"short {number}")
        if key.public_key().public_numbers().x < 1 << 248:
            break
    else:
        pytest.fail("no key with a short coordinate among 2000")
    jwk = jwk_from_public_key(key.public_key())
    assert un64url(jwk.to_json()["x"])[0] == 0
    assert len(un64url(jwk.to_json()["x"])) == 32
    assert parse_jwk(jwk_json(key)) == jwk


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(lambda: ed448.Ed448PrivateKey.generate(), id="Ed448"),
        pytest.param(lambda: x25519.X25519PrivateKey.generate(), id="X25519"),
        pytest.param(lambda: private_key("secp256k1"), id="secp256k1"),
        pytest.param(lambda: private_key("P-224"), id="P-224"),
        pytest.param(lambda: private_key("rsa-1024"), id="RSA 1024"),
        pytest.param(lambda: dsa.generate_private_key(1024), id="DSA"),
    ],
)
def test_public_key_without_a_place_here_is_refused(key: Any) -> None:
    """A key that could not come as a JWK does not become one either."""
    with pytest.raises(Problem) as caught:
        jwk_from_public_key(key().public_key())
    assert caught.value.type is BAD
    assert jwk_from_public_key(private_key("ES256").public_key())
