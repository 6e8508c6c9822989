"""Signed requests: verified whole, good once, never from before this process."""

import base64
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding

from agents import wire
from broker.channel.door import STALE_SIGNATURE
from broker.channel.signatures import (
    MAX_NONCES,
    Nonces,
    RequestSignature,
    parse_signature,
    verify_signature,
)
from broker.protocol.problems import Problem
from tests.fakes.clock import START, FakeClock

KEY = ec.generate_private_key(ec.SECP256R1())
KEY_ID = "ab" * 32
NAME = x509.Name([])
CERTIFICATE = (
    x509.CertificateBuilder()
    .issuer_name(NAME)
    .subject_name(NAME)
    .public_key(KEY.public_key())
    .serial_number(1)
    .not_valid_before(START)
    .not_valid_after(START + timedelta(days=7))
    .sign(KEY, hashes.SHA256())
    .public_bytes(Encoding.DER)
)
BODY = b'{"version":"1.0"}'
TARGET = "/agent/v1/messages?after=3&wait=25"


def signed(
    *, body: bytes = BODY, target: str = TARGET, created: int = 1_772_366_400,
    nonce: str = "n" * 22, key: ec.EllipticCurvePrivateKey = KEY,
) -> tuple[str, str]:  # fmt: skip
    """Return the headers of a signed request."""
    parameters = wire.signature_input(created=created, nonce=nonce, key_id=KEY_ID)
    path, _, query = target.partition("?")
    base = wire.signature_base(
        method="POST", path=path, query=f"?{query}", digest=wire.content_digest(body),
        parameters=parameters,
    )  # fmt: skip
    r, s = utils.decode_dss_signature(key.sign(base, ec.ECDSA(hashes.SHA256())))
    octets = base64.b64encode(r.to_bytes(32, "big") + s.to_bytes(32, "big")).decode()
    return f"penstock={parameters}", f"penstock=:{octets}:"


def parsed(**given: object) -> RequestSignature:
    """Return a signature as it was read."""
    made = parse_signature(*signed(**given))  # type: ignore[arg-type]
    assert made is not None
    return made


def verify(signature: RequestSignature, **changes: object) -> None:
    """Verify a signature of the usual request, or of one with *changes*."""
    given = {
        "method": "POST", "target": TARGET, "body": BODY,
        "digest": wire.content_digest(BODY), **changes,
    }  # fmt: skip
    verify_signature(signature, CERTIFICATE, **given)  # type: ignore[arg-type]


def test_request_as_it_was_signed_is_verified() -> None:
    """By the key of the certificate (RFC 9421 §3.2)."""
    verify(parsed())


def test_request_without_a_query_covers_a_lone_question_mark() -> None:
    """RFC 9421 §2.2.7."""
    verify(parsed(target="/agent/v1/messages"), target="/agent/v1/messages")


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "GET"},
        {"target": "/agent/v1/identity"},
        {"target": TARGET.replace("after=3", "after=0")},
        {"target": TARGET.replace("/v1", "//v1")},
        {"body": BODY + b" "},
        {"body": BODY + b" ", "digest": wire.content_digest(BODY + b" ")},
        {"digest": None},
        {"digest": wire.content_digest(b"")},
    ],
    ids=["method", "path", "query", "slash", "body", "body and digest", "none", "other digest"],
)
def test_any_other_request_is_refused(changes: dict[str, object]) -> None:
    """Method, path, query and body are all covered."""
    with pytest.raises(Problem) as refused:
        verify(parsed(), **changes)
    assert refused.value.token == "unauthorized"


def test_signature_of_another_key_is_refused() -> None:
    """Whoever knows a key's id has not its key."""
    with pytest.raises(Problem):
        verify(parsed(key=ec.generate_private_key(ec.SECP256R1())))


@pytest.mark.parametrize("created", [1_772_366_401, 1_772_366_399])
def test_time_is_part_of_what_is_signed(created: int) -> None:
    """A stale signature is not made fresh by its parameters."""
    signature = parsed()
    moved = signature.parameters.replace("1772366400", str(created))
    with pytest.raises(Problem):
        verify(replace(signature, created=created, parameters=moved))


@pytest.mark.parametrize("flipped", [0, 31, 32, 63])
def test_any_flipped_octet_is_refused(flipped: int) -> None:
    """In either half."""
    signature = parsed()
    octets = bytearray(signature.octets)
    octets[flipped] ^= 1
    with pytest.raises(Problem):
        verify(replace(signature, octets=bytes(octets)))


def test_request_without_a_signature_has_none() -> None:
    """Which is no fault: it may show a certificate."""
    assert parse_signature(None, None) is None


@pytest.mark.parametrize(
    ("pattern", "instead"),
    [
        ("penstock=", "other="),
        ('"content-digest"', '"content-type"'),
        (' "content-digest"', ""),
        ("ecdsa-p256-sha256", "hmac-sha256"),
        ("created=[0-9]+", "created=-1"),
        ("created=[0-9]+;", ""),
        ('nonce="n+"', 'nonce=""'),
        ('keyid="', 'keyid="../'),
        ("$", ";expires=1"),
    ],
    ids=["label", "covered", "less", "algorithm", "past", "no time", "no nonce", "key", "more"],
)
def test_other_parameters_are_not_understood(pattern: str, instead: str) -> None:
    """One list, one algorithm: nothing is left to choose."""
    given, signature = signed()
    with pytest.raises(Problem) as refused:
        parse_signature(re.sub(pattern, instead, given, count=1), signature)
    assert refused.value.status == 400


@pytest.mark.parametrize("signature", [None, "", "penstock=::", "penstock=:AAAA:", "x" * 5000])
def test_half_a_signature_is_not_understood(signature: str | None) -> None:
    """Both headers, or neither."""
    with pytest.raises(Problem):
        parse_signature(signed()[0], signature)
    with pytest.raises(Problem):
        parse_signature(None, signed()[1])


# ------------------------------------------------------------------------------------------- times


def nonces(clock: FakeClock) -> Nonces:
    """Return what a process remembers that started an hour ago."""
    made = Nonces(clock.now)
    clock.advance(timedelta(hours=1))
    return made


@pytest.mark.parametrize("seconds", [0, 299, -299])
def test_time_within_five_minutes_is_accepted(seconds: int) -> None:
    """Clocks differ by less."""
    clock = FakeClock()
    made = nonces(clock)
    made.check_time(int(clock.now().timestamp()) + seconds)


@pytest.mark.parametrize("seconds", [302, -302, 86_400, -86_400])
def test_other_times_are_stale(seconds: int) -> None:
    """An honest agent signs anew."""
    clock = FakeClock()
    made = nonces(clock)
    with pytest.raises(Problem) as stale:
        made.check_time(int(clock.now().timestamp()) + seconds)
    assert (stale.value.raw_type, stale.value.status) == (STALE_SIGNATURE, 401)


def test_what_was_signed_before_this_process_is_stale() -> None:
    """What the one before it had remembered is gone."""
    clock = FakeClock()
    made = Nonces(clock.now)
    with pytest.raises(Problem):
        made.check_time(int(clock.now().timestamp()))
    clock.advance(timedelta(seconds=1))
    made.check_time(int(clock.now().timestamp()))


def test_signature_is_good_once() -> None:
    """For as long as its time is."""
    clock = FakeClock()
    made = nonces(clock)
    signature = replace(parsed(), created=int(clock.now().timestamp()))
    made.spend(signature)
    with pytest.raises(Problem):
        made.spend(signature)
    made.spend(replace(signature, nonce="o" * 22))
    clock.advance(timedelta(seconds=299))
    made.forget_old()
    with pytest.raises(Problem):
        made.spend(signature)


def test_old_nonces_are_forgotten() -> None:
    """Their time refuses them by then."""
    clock = FakeClock()
    made = nonces(clock)
    made.spend(replace(parsed(), created=int(clock.now().timestamp())))
    clock.advance(timedelta(seconds=400))
    made.forget_old()
    assert made._seen == {}


def test_node_that_signs_too_much_is_slowed_down() -> None:
    """What is remembered of one node is bounded, and of the others nothing is lost."""
    clock = FakeClock()
    made = nonces(clock)
    signature = replace(parsed(), created=int(clock.now().timestamp()))
    for number in range(MAX_NONCES):
        made.spend(replace(signature, nonce=f"{number:022}"))
    with pytest.raises(Problem) as slow:
        made.spend(replace(signature, nonce="x" * 22))
    assert slow.value.status == 429
    made.spend(replace(signature, key_id="cd" * 32))
