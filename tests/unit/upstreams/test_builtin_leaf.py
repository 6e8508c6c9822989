"""What end-entity certificates say: their profile, and nothing of what a CSR asked for."""

import ipaddress
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import AuthorityInformationAccessOID

from broker.issuance.errors import Refused
from broker.protocol.extensions import key_usage_names
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.problems import ProblemType
from broker.upstreams.authority import Authority
from broker.upstreams.builtin_leaf import (
    CaProfile,
    LeafKey,
    Validity,
    certificate_url,
    crl_url,
    leaf_draft,
    parse_leaf_key,
)
from broker.upstreams.sealing import seal_draft
from tests.fakes.builtin_ca import BASE_URL, DAY, PROFILES, PrivateKey, dns, make_world, spki
from tests.fakes.clock import START
from tests.fakes.signer import FakeSigner

EC_KEY = ec.generate_private_key(ec.SECP256R1()).public_key()
SERVER = PROFILES["server"]


async def issued(
    profile: CaProfile = SERVER,
    *,
    identifiers: tuple[Identifier, ...] = dns("www.corp.example"),
    key: LeafKey = EC_KEY,
) -> tuple[x509.Certificate, Authority]:
    """Return a signed certificate and its issuer."""
    world = await make_world()
    draft = leaf_draft(
        world.issuing,
        profile,
        identifiers=identifiers,
        key=key,
        validity=Validity(START, START + DAY),
        serial=0x1234,
        base_url=BASE_URL,
    )
    der = await seal_draft(draft, world.signer, world.issuing.key)
    return x509.load_der_x509_certificate(der), world.issuing


async def test_certificate_says_what_its_profile_says() -> None:
    """Every extension that a verifier or a person needs, with the right criticality."""
    certificate, issuer = await issued(PROFILES["client"])
    found = {extension.oid._name: extension for extension in certificate.extensions}
    assert {name: extension.critical for name, extension in found.items()} == {
        "subjectAltName": False,
        "keyUsage": True,
        "basicConstraints": True,
        "subjectKeyIdentifier": False,
        "authorityKeyIdentifier": False,
        "authorityInfoAccess": False,
        "cRLDistributionPoints": False,
        "extendedKeyUsage": False,
        "certificatePolicies": False,
    }
    assert found["basicConstraints"].value == x509.BasicConstraints(ca=False, path_length=None)
    assert found["authorityKeyIdentifier"].value == issuer.authority_key_identifier
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [usage._name for usage in usages] == ["clientAuth"]
    policies = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    assert [policy.policy_identifier.dotted_string for policy in policies] == [
        "1.3.6.1.4.1.55555.1"
    ]
    assert certificate.serial_number == 0x1234
    assert (certificate.not_valid_before_utc, certificate.not_valid_after_utc) == (
        START,
        START + DAY,
    )


async def test_issuer_is_found_by_the_urls_in_the_certificate() -> None:
    """Both lead to plain HTTP below the base URL, with the issuer's key in their name."""
    certificate, _ = await issued()
    access = certificate.extensions.get_extension_for_class(x509.AuthorityInformationAccess).value
    assert [(a.access_method, a.access_location.value) for a in access] == [
        (AuthorityInformationAccessOID.CA_ISSUERS, "http://ca.corp.example/ca/issuing-1.crt")
    ]
    points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    assert [name.value for point in points for name in point.full_name or ()] == [
        "http://ca.corp.example/crl/issuing-1.crl"
    ]
    assert certificate_url(BASE_URL, "issuing-1").endswith("/ca/issuing-1.crt")
    assert crl_url(BASE_URL, "issuing-1").endswith("/crl/issuing-1.crl")


async def test_names_are_critical_when_there_is_no_subject() -> None:
    """RFC 5280 §4.2.1.6; no common name unless the profile wants one."""
    certificate, _ = await issued()
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert (certificate.subject, names.critical) == (x509.Name([]), True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("www.corp.example", "CN=www.corp.example", id="short"),
        pytest.param("a" * 60 + ".corp.example", "", id="longer-than-a-common-name"),
    ],
)
async def test_common_name_repeats_the_first_name_where_it_fits(name: str, expected: str) -> None:
    """For old software, if the profile says so."""
    profile = replace(SERVER, has_common_name=True)
    certificate, _ = await issued(profile, identifiers=dns(name, "b.corp.example"))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert certificate.subject.rfc4514_string() == expected
    assert names.critical is (not expected)


async def test_common_name_is_never_an_address() -> None:
    """OpenSSL would hold it against constraints on names; the first DNS name is taken instead."""
    profile = replace(SERVER, has_common_name=True)
    address = Identifier(IdentifierType.IP, "10.0.0.1")
    certificate, _ = await issued(profile, identifiers=(address, *dns("a.corp.example")))
    assert certificate.subject.rfc4514_string() == "CN=a.corp.example"
    alone, _ = await issued(profile, identifiers=(address,))
    assert alone.subject == x509.Name([])


async def test_addresses_and_names_keep_their_order() -> None:
    """As the order lists them."""
    identifiers = (
        *dns("*.corp.example", "corp.example"),
        Identifier(IdentifierType.IP, "10.0.0.1"),
        Identifier(IdentifierType.IP, "fd00::1"),
    )
    certificate, _ = await issued(identifiers=identifiers)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [
        x509.DNSName("*.corp.example"),
        x509.DNSName("corp.example"),
        x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
        x509.IPAddress(ipaddress.ip_address("fd00::1")),
    ]


@pytest.mark.parametrize(
    ("key", "usages"),
    [
        pytest.param(EC_KEY, {"digitalSignature"}, id="ec"),
        pytest.param(
            ed25519.Ed25519PrivateKey.generate().public_key(), {"digitalSignature"}, id="ed25519"
        ),
        pytest.param(
            rsa.generate_private_key(65537, 2048).public_key(),
            {"digitalSignature", "keyEncipherment"},
            id="rsa",
        ),
    ],
)
async def test_key_usages_fit_the_kind_of_key(key: LeafKey, usages: set[str]) -> None:
    """Encipherment of keys is for RSA alone."""
    certificate, _ = await issued(key=key)
    usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert key_usage_names(usage) == usages


async def test_key_that_can_serve_no_usage_is_refused() -> None:
    """A profile for encipherment has no certificate for an elliptic curve key."""
    profile = replace(SERVER, key_usages=("keyEncipherment",))
    with pytest.raises(Refused, match="ec-p256 can serve none of the profile's usages") as caught:
        await issued(profile)
    assert caught.value.problem.type is ProblemType.BAD_PUBLIC_KEY


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        pytest.param({"lifetime": timedelta(0)}, "lifetime", id="no-lifetime"),
        pytest.param({"lifetime": 91 * DAY}, "lifetime", id="longer-than-the-longest"),
        pytest.param({"key_usages": ("keyCertSign",)}, "key usages", id="ca-usage"),
        pytest.param({"key_usages": ("signing",)}, "key usages", id="unknown-usage"),
        pytest.param(
            {"extended_key_usages": ("webServer",)}, "no dotted OID", id="unknown-extended-usage"
        ),
        pytest.param({"policy_oids": ("policy",)}, "no dotted OID", id="policy-no-oid"),
    ],
)
def test_contradictory_profile_is_refused(changes: dict[str, object], reason: str) -> None:
    """When the configuration is read, not when the first certificate is signed."""
    with pytest.raises(ValueError, match=reason):
        replace(SERVER, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(ec.generate_private_key(ec.SECP256R1()), id="p256"),
        pytest.param(ec.generate_private_key(ec.SECP384R1()), id="p384"),
        pytest.param(ec.generate_private_key(ec.SECP521R1()), id="p521"),
        pytest.param(ed25519.Ed25519PrivateKey.generate(), id="ed25519"),
        pytest.param(rsa.generate_private_key(65537, 2048), id="rsa-2048"),
    ],
)
def test_key_of_an_accepted_kind_is_parsed(key: PrivateKey) -> None:
    """The negative twin of those below."""
    parsed = parse_leaf_key(spki(key))
    assert parsed.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) == spki(key)


@pytest.mark.parametrize(
    "spki_der",
    [
        pytest.param(spki(rsa.generate_private_key(65537, 1024)), id="rsa-1024"),
        pytest.param(spki(ec.generate_private_key(ec.SECP224R1())), id="p224"),
        pytest.param(spki(ec.generate_private_key(ec.SECP256K1())), id="k256"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x30\x03\x02\x01\x00", id="no-key"),
    ],
)
def test_key_of_another_kind_is_refused(spki_der: bytes) -> None:
    """The CA's own floor, whatever policy lets through."""
    with pytest.raises(Refused) as caught:
        parse_leaf_key(spki_der)
    assert caught.value.problem.type is ProblemType.BAD_PUBLIC_KEY


async def test_largest_rsa_key_is_limited() -> None:
    """Made by a fake signer's side, since making one takes seconds: only its size is read."""
    numbers = rsa.RSAPublicNumbers(65537, (1 << 8191) | 1)
    with pytest.raises(Refused, match="rsa-8192"):
        parse_leaf_key(
            numbers.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )
    assert FakeSigner().keys == {}
