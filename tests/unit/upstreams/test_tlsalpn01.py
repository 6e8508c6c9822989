"""The certificates of tls-alpn-01: what is in them, and when they are shown."""

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.protocol.challenges import ChallengeType, Observation, judge_challenge
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.upstreams.tlsalpn01 import TlsAlpn01Answers, proof_certificate
from tests.fakes.clock import FakeClock

TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
AUTHORIZATION = f"{TOKEN}.thumb"
NAME = Identifier(IdentifierType.DNS, "www.example.com")
ADDRESS = Identifier(IdentifierType.IP, "192.0.2.1")
ADDRESS_6 = Identifier(IdentifierType.IP, "2001:db8::1")


@pytest.mark.parametrize("identifier", [NAME, ADDRESS, ADDRESS_6], ids=lambda one: one.value)
def test_certificate_passes_our_own_verdict(identifier: Identifier) -> None:
    """What we would believe downstream is what we show upstream."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = proof_certificate(identifier, AUTHORIZATION, key, FakeClock())
    seen = Observation(
        type=ChallengeType.TLS_ALPN_01,
        target=identifier.value,
        answers=(made.public_bytes(Encoding.DER),),
    )
    kind = ChallengeType.TLS_ALPN_01
    assert judge_challenge(kind, token=TOKEN, thumbprint="thumb", observation=seen).valid
    assert not judge_challenge(kind, token=TOKEN, thumbprint="other", observation=seen).valid


def test_proof_is_the_digest_in_an_octet_string() -> None:
    """RFC 8737 §3, octet by octet."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = proof_certificate(NAME, AUTHORIZATION, key, FakeClock())
    proof = made.extensions.get_extension_for_oid(x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31"))
    assert proof.critical
    assert isinstance(proof.value, x509.UnrecognizedExtension)
    assert proof.value.value == b"\x04\x20" + hashlib.sha256(AUTHORIZATION.encode()).digest()


@pytest.mark.parametrize(
    ("identifier", "server_name"),
    [
        pytest.param(NAME, "WWW.example.com.", id="name"),
        pytest.param(ADDRESS, "1.2.0.192.in-addr.arpa", id="ipv4"),
        pytest.param(
            ADDRESS_6,
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            id="ipv6",
        ),
    ],
)
def test_it_is_shown_until_it_is_withdrawn(identifier: Identifier, server_name: str) -> None:
    """Under the name that SNI carries, and under no other."""
    answers = TlsAlpn01Answers(FakeClock())
    assert answers.find(server_name) is None
    answers.add(identifier, AUTHORIZATION)
    answers.add(identifier, AUTHORIZATION)
    assert answers.find(server_name) is not None
    assert answers.find("other.example.com") is None
    answers.remove(identifier, AUTHORIZATION)
    assert answers.find(server_name) is None
    answers.remove(identifier, AUTHORIZATION)
    assert len(answers) == 0


def test_of_two_for_one_name_the_last_stands_and_then_the_first_again() -> None:
    """A handshake names the host alone, so only one of them can be answered at a time."""
    answers = TlsAlpn01Answers(FakeClock())
    answers.add(NAME, "one.thumb")
    first = answers.find(NAME.value)
    answers.add(NAME, "two.thumb")
    second = answers.find(NAME.value)
    assert first is not second
    answers.remove(NAME, "two.thumb")
    assert answers.find(NAME.value) is first
