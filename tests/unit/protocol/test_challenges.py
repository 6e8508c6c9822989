"""Challenges: the expected answers, and the verdict on what was seen."""

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.protocol.challenges import (
    ACME_IDENTIFIER_OID,
    ChallengeType,
    Failure,
    Observation,
    Verdict,
    dns01_name,
    dns01_value,
    dns_account01_name,
    http01_path,
    is_challenge_for,
    judge_challenge,
    key_authorization,
    tls_alpn01_server_name,
    verify_token,
)
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import ProtocolError
from tests.unit.protocol.builders import NOW, VECTORS, Authority, b64url, general_names

EXAMPLE = json.loads((VECTORS / "acme.json").read_text())["http01"]
TOKEN = EXAMPLE["token"]
THUMBPRINT = EXAMPLE["thumbprint"]
EXPECTED = EXAMPLE["key_authorization"]
DIGEST = hashlib.sha256(EXPECTED.encode()).digest()
CANARY = "canary-5a1b"
HTTP_01, DNS_01, TLS_ALPN_01, DNS_ACCOUNT_01 = ChallengeType
TARGETS = {
    HTTP_01: f"http://a.example{EXAMPLE['path']}",
    DNS_01: "_acme-challenge.a.example",
    TLS_ALPN_01: "a.example",
    DNS_ACCOUNT_01: "_label._acme-challenge.a.example",
}


def judge(kind: ChallengeType, *answers: bytes | str, **kwargs: Any) -> Verdict:
    """Return the verdict on answers to the challenge of the tests."""
    target = kwargs.pop("target", TARGETS[kind])
    observation = Observation(kind, target, ("192.0.2.1",), answers, **kwargs)
    return judge_challenge(kind, token=TOKEN, thumbprint=THUMBPRINT, observation=observation)


def test_example_of_the_standard() -> None:
    """Path and key authorization of RFC 8555 §8.3."""
    assert key_authorization(TOKEN, THUMBPRINT) == EXPECTED
    assert http01_path(TOKEN) == EXAMPLE["path"]
    assert dns01_value(EXPECTED) == b64url(DIGEST)


@pytest.mark.parametrize("name", ["a.example", "*.a.example"])
def test_dns_record_of_a_wildcard_is_that_of_its_base(name: str) -> None:
    """RFC 8555 §8.4: the record stands below the name without the star."""
    identifier = Identifier(IdentifierType.DNS, name)
    assert dns01_name(identifier) == "_acme-challenge.a.example"


def test_addresses_have_no_dns_record() -> None:
    """RFC 8738 §7 leaves dns-01 out."""
    with pytest.raises(ValueError, match="cannot validate identifiers of type ip"):
        dns01_name(Identifier(IdentifierType.IP, "192.0.2.1"))


@pytest.mark.parametrize(
    "token",
    [
        "",
        "a" * 21,
        "a" * 257,
        "a" * 10_000,
        "../../../../etc/passwd",
        "a" * 22 + "/../x",
        "a" * 22 + "\n",
        "a" * 22 + "=",
        "a" * 22 + "+",
        "a" * 22 + '"',
        "a" * 22 + " ",
        "a" * 22 + ".",
        "a" * 22 + "\x00",
        "ä" * 22,
        "$(touch x)aaaaaaaaaaaaaaaa",
    ],
    ids=lambda token: ascii(token[:30]) or "empty",
)
def test_token_that_is_not_plain_base64url_is_refused(token: str) -> None:
    """A CA's token becomes a path and a file name, so nothing else may be in it."""
    for use in (verify_token, http01_path, lambda t: key_authorization(t, THUMBPRINT)):
        with pytest.raises(ProtocolError, match=r"challenge\.token"):
            use(token)


@pytest.mark.parametrize("token", ["a" * 22, "a" * 256, "-_" * 11, TOKEN])
def test_token_of_base64url_is_proven(token: str) -> None:
    """22 characters hold 128 bits; 256 are the most."""
    assert verify_token(token) == token


# == http-01 ===================================================================================


@pytest.mark.parametrize("tail", ["", "\n", "\r\n", "  \t\n"])
@pytest.mark.parametrize("convert", [str, str.encode], ids=["text", "octets"])
def test_right_body_is_valid(tail: str, convert: Any) -> None:
    """RFC 8555 §8.3 lets the body end in white space."""
    verdict = judge(HTTP_01, convert(EXPECTED + tail))
    assert verdict == Verdict()
    assert verdict.valid
    assert verdict.problem is None


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((), id="nothing"),
        pytest.param((b"",), id="empty body"),
        pytest.param((CANARY.encode(),), id="another body"),
        pytest.param((b" " + EXPECTED.encode(),), id="white space in front"),
        pytest.param((EXPECTED.encode() + b"\x00",), id="NUL behind"),
        pytest.param((EXPECTED.encode() + b"x",), id="longer"),
        pytest.param((EXPECTED[:-1].encode(),), id="shorter"),
        pytest.param((EXPECTED.upper().encode(),), id="another case"),
        pytest.param((TOKEN.encode(),), id="token alone"),
        pytest.param((f"{TOKEN}.{'A' * 43}".encode(),), id="another account's key"),
        pytest.param((EXPECTED.encode(), EXPECTED.encode()), id="two bodies"),
        pytest.param((CANARY.encode(), EXPECTED.encode()), id="second body right"),
        pytest.param(("\udc80",), id="undecodable text"),
    ],
)
def test_other_body_is_an_incorrect_response(answers: tuple[bytes | str, ...]) -> None:
    """The problem says what was asked, and nothing of what was fetched."""
    verdict = judge(HTTP_01, *answers)
    assert not verdict.valid
    assert verdict.problem is not None
    assert verdict.problem.type is ProblemType.INCORRECT_RESPONSE
    assert TARGETS[HTTP_01] in verdict.problem.detail
    assert CANARY not in json.dumps(verdict.problem.to_json())


# == dns-01 ====================================================================================


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((dns01_value(EXPECTED),), id="alone"),
        pytest.param((CANARY, dns01_value(EXPECTED)), id="among others"),
        pytest.param((dns01_value(EXPECTED).encode(),), id="octets"),
        pytest.param((b"\xff", dns01_value(EXPECTED)), id="beside binary"),
    ],
)
def test_one_right_record_is_valid(answers: tuple[bytes | str, ...]) -> None:
    """RFC 8555 §8.4: one match is enough, others may belong to other orders."""
    assert judge(DNS_01, *answers).valid


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((), id="no record"),
        pytest.param((CANARY,), id="another record"),
        pytest.param((EXPECTED,), id="key authorization itself"),
        pytest.param((dns01_value(EXPECTED) + " ",), id="white space behind"),
        pytest.param((f'"{dns01_value(EXPECTED)}"',), id="in quotes"),
        pytest.param((dns01_value(EXPECTED) + "=",), id="padded"),
        pytest.param((hashlib.sha256(EXPECTED.encode()).hexdigest(),), id="hex"),
        pytest.param((CANARY,) * 10_000, id="ten thousand records"),
    ],
)
def test_other_records_are_an_incorrect_response(answers: tuple[bytes | str, ...]) -> None:
    """The problem tells the value that was expected, and how many others there were."""
    problem = judge(DNS_01, *answers).problem
    assert problem is not None
    assert problem.type is ProblemType.INCORRECT_RESPONSE
    assert TARGETS[DNS_01] in problem.detail
    assert CANARY not in problem.detail
    if answers:
        assert dns01_value(EXPECTED) in problem.detail
        assert str(len(answers)) in problem.detail


# == tls-alpn-01 ===============================================================================


def shown(
    *names: str | x509.GeneralName,
    proof: bytes | None = b"\x04\x20" + DIGEST,
    critical: bool = True,
) -> bytes:
    """Return the certificate a tls-alpn-01 server shows."""
    extensions: list[tuple[x509.ExtensionType, bool]] = []
    if proof is not None:
        oid = x509.ObjectIdentifier(ACME_IDENTIFIER_OID)
        extensions.append((x509.UnrecognizedExtension(oid, proof), critical))
    return self_signed(names, extensions).public_bytes(Encoding.DER)


def self_signed(
    names: tuple[str | x509.GeneralName, ...],
    extensions: list[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    """Return a certificate that vouches for itself, as clients make them for tls-alpn-01."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ACME challenge")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=7))
    )
    if names:
        alternatives = x509.SubjectAlternativeName(general_names(names))
        builder = builder.add_extension(alternatives, critical=False)
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, critical=is_critical)
    return builder.sign(key, hashes.SHA256())


def signed_by_a_ca(*names: str) -> bytes:
    """Return a certificate that says everything right, under a CA's signature."""
    proof = x509.UnrecognizedExtension(
        x509.ObjectIdentifier(ACME_IDENTIFIER_OID), b"\x04\x20" + DIGEST
    )
    leaf = Authority.root().leaf(*names, extensions=[(proof, True)])
    return leaf.public_bytes(Encoding.DER)


@pytest.mark.parametrize("name", ["a.example", "A.Example"])
def test_right_certificate_is_valid(name: str) -> None:
    """One name, and the critical hash (RFC 8737 §3)."""
    assert judge(TLS_ALPN_01, shown(name)).valid


def test_right_certificate_of_an_address_is_valid() -> None:
    """RFC 8738 §6: the one name is an iPAddress."""
    assert judge(TLS_ALPN_01, shown("192.0.2.1"), target="192.0.2.1").valid
    assert judge(TLS_ALPN_01, shown("2001:db8::1"), target="2001:db8::1").valid


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(x509.DNSName("192.0.2.1"), id="digits as a name"),
        pytest.param("192.0.2.2", id="another address"),
        pytest.param("2001:db8::1", id="address of the other family"),
        pytest.param(x509.DNSName("1.2.0.192.in-addr.arpa"), id="reverse name"),
    ],
)
def test_other_certificate_of_an_address_is_an_incorrect_response(name: Any) -> None:
    """What SNI carries is no name of the certificate, and digits in a dNSName are no address."""
    problem = judge(TLS_ALPN_01, shown(name), target="192.0.2.1").problem
    assert problem is not None
    assert problem.type is ProblemType.INCORRECT_RESPONSE


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda: (), id="nothing"),
        pytest.param(lambda: (b"",), id="empty"),
        pytest.param(lambda: (CANARY.encode(),), id="no certificate"),
        pytest.param(lambda: (shown("a.example"),) * 2, id="two certificates"),
        pytest.param(
            lambda: (shown("a.example").replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07"),),
            id="certificate of version 8",
        ),
        pytest.param(lambda: (signed_by_a_ca("a.example"),), id="signed by a CA"),
        pytest.param(lambda: (shown("b.example"),), id="another name"),
        pytest.param(lambda: (shown("a.example", "b.example"),), id="second name"),
        pytest.param(lambda: (shown("*.example"),), id="wildcard"),
        pytest.param(lambda: (shown("192.0.2.1"),), id="address"),
        pytest.param(lambda: (shown(x509.RFC822Name("a.example")),), id="mail address"),
        pytest.param(lambda: (shown(),), id="no name"),
        pytest.param(lambda: (shown("a.example", proof=None),), id="no proof"),
        pytest.param(lambda: (shown("a.example", critical=False),), id="proof not critical"),
        pytest.param(lambda: (shown("a.example", proof=DIGEST),), id="proof without DER"),
        pytest.param(
            lambda: (shown("a.example", proof=b"\x04\x20" + bytes(32)),), id="other proof"
        ),
        pytest.param(
            lambda: (shown("a.example", proof=b"\x04\x20" + DIGEST + b"\x00"),), id="proof longer"
        ),
    ],
)
def test_other_certificate_is_an_incorrect_response(make: Any) -> None:
    """A shared host that shows its usual certificate proves nothing."""
    problem = judge(TLS_ALPN_01, *make()).problem
    assert problem is not None
    assert problem.type is ProblemType.INCORRECT_RESPONSE
    assert CANARY not in problem.detail


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        pytest.param("dns", "a.example", "a.example", id="name"),
        pytest.param("ip", "192.0.2.1", "1.2.0.192.in-addr.arpa", id="IPv4"),
        pytest.param(
            "ip",
            "2001:db8::1",
            "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            id="IPv6",
        ),
    ],
)
def test_server_is_told_a_name_even_for_an_address(type_: str, value: str, expected: str) -> None:
    """RFC 8738 §6, with its own example: SNI carries no addresses (RFC 6066 §3)."""
    assert tls_alpn01_server_name(Identifier(IdentifierType(type_), value)) == expected


def test_mail_addresses_have_no_server_name() -> None:
    """Asking for one is our own fault."""
    with pytest.raises(ValueError, match="cannot validate identifiers of type email"):
        tls_alpn01_server_name(Identifier(IdentifierType.EMAIL, "a@b.example"))


# == dns-account-01 ============================================================================

ACCOUNT_URL = "https://example.com/acme/acct/ExampleAccount"


@pytest.mark.parametrize("name", ["example.org", "*.example.org"])
def test_account_has_a_record_name_of_its_own(name: str) -> None:
    """The example of draft-ietf-acme-dns-account-label-03, for a name and its wildcard."""
    identifier = Identifier(IdentifierType.DNS, name)
    expected = "_ujmmovf2vn55tgye._acme-challenge.example.org"
    assert dns_account01_name(identifier, ACCOUNT_URL) == expected
    assert dns_account01_name(identifier, f"{ACCOUNT_URL}/") != expected


def test_record_of_an_account_is_judged_like_that_of_dns_01() -> None:
    """The value is the same; the name alone is another."""
    assert judge(DNS_ACCOUNT_01, dns01_value(EXPECTED)).valid
    assert not judge(DNS_ACCOUNT_01, "stale").valid


# == Which challenge shows what ================================================================


@pytest.mark.parametrize(
    ("type_", "value", "fitting"),
    [
        ("dns", "a.example", set(ChallengeType)),
        ("dns", "*.a.example", {DNS_01, DNS_ACCOUNT_01}),
        ("ip", "192.0.2.1", {HTTP_01, TLS_ALPN_01}),
        ("ip", "2001:db8::1", {HTTP_01, TLS_ALPN_01}),
        ("email", "a@b.example", set()),
    ],
)
def test_each_identifier_has_its_challenges(
    type_: str, value: str, fitting: set[ChallengeType]
) -> None:
    """RFC 8555 §8.3, RFC 8737 §3 and RFC 8738 §7: wildcards by DNS alone, addresses never by it."""
    identifier = Identifier(IdentifierType(type_), value)
    assert {kind for kind in ChallengeType if is_challenge_for(kind, identifier)} == fitting


# == Failures ==================================================================================


@pytest.mark.parametrize(
    ("challenge", "failure", "kind"),
    [
        (HTTP_01, "dns", ProblemType.DNS),
        (HTTP_01, "connection", ProblemType.CONNECTION),
        (HTTP_01, "tls", ProblemType.TLS),
        (HTTP_01, "timeout", ProblemType.CONNECTION),
        (HTTP_01, "protocol", ProblemType.INCORRECT_RESPONSE),
        (HTTP_01, "refused-address", ProblemType.UNAUTHORIZED),
        (DNS_01, "dns", ProblemType.DNS),
        (DNS_01, "timeout", ProblemType.DNS),
        (DNS_01, "protocol", ProblemType.INCORRECT_RESPONSE),
        (DNS_ACCOUNT_01, "timeout", ProblemType.DNS),
        (TLS_ALPN_01, "tls", ProblemType.TLS),
        (TLS_ALPN_01, "timeout", ProblemType.CONNECTION),
    ],
)
def test_failure_to_look_has_its_problem(
    challenge: ChallengeType, failure: Any, kind: ProblemType
) -> None:
    """What went wrong, where, and which addresses were tried."""
    verdict = judge(challenge, failure=Failure(failure, "no answer within 10 s"))
    assert verdict.problem == Problem(
        kind, f"{TARGETS[challenge]}: no answer within 10 s (tried 192.0.2.1)"
    )


def test_failure_wins_over_answers() -> None:
    """An answer that came with a failure is not looked at."""
    verdict = judge(HTTP_01, EXPECTED, failure=Failure("timeout", "body never ended"))
    assert not verdict.valid
    assert judge(HTTP_01, EXPECTED).valid


def test_failure_without_addresses_names_none() -> None:
    """A name that does not resolve has nothing to list."""
    observation = Observation(HTTP_01, "http://a.example/", failure=Failure("dns", "NXDOMAIN"))
    verdict = judge_challenge(HTTP_01, token=TOKEN, thumbprint=THUMBPRINT, observation=observation)
    assert verdict.problem is not None
    assert verdict.problem.detail == "http://a.example/: NXDOMAIN"


def test_observation_of_another_challenge_is_a_bug() -> None:
    """What was seen by DNS says nothing about HTTP."""
    observation = Observation(DNS_01, "x", (), (EXPECTED,))
    with pytest.raises(ValueError, match="says nothing about http-01"):
        judge_challenge(HTTP_01, token=TOKEN, thumbprint=THUMBPRINT, observation=observation)
