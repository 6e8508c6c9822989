"""What the built-in CA signs, as a linter of the trade reads it.

Against RFC 5280 there is next to none.  Against the rules for publicly trusted CAs there are some,
each named below with why it stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from pkilint import loader, pkix, validation
from pkilint.cabf import serverauth
from pkilint.cabf.serverauth.serverauth_constants import CertificateType
from pkilint.pkix import certificate, crl, extension, name

from broker.upstreams.authority import IssuerSet
from broker.upstreams.builtin_leaf import CaProfile
from tests.fakes.builtin_ca import DAY, CaWorld, make_ca, make_csr, make_world, request

KEYS: dict[str, Callable[[], Any]] = {
    "ec-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ec-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
}

PROFILES: Mapping[str, CaProfile] = {
    "server": CaProfile(lifetime=30 * DAY, max_lifetime=90 * DAY),
    "named": CaProfile(
        lifetime=30 * DAY,
        max_lifetime=90 * DAY,
        extended_key_usages=("serverAuth", "clientAuth"),
        policy_oids=("1.3.6.1.4.1.55555.1",),
        has_common_name=True,
    ),
    "mail": CaProfile(
        lifetime=30 * DAY,
        max_lifetime=90 * DAY,
        extended_key_usages=("emailProtection",),
        key_usages=("digitalSignature", "nonRepudiation", "keyEncipherment", "keyAgreement"),
    ),
}

INFORMATION: Mapping[str, str] = {
    "pkix.subject_key_identifier_method_1_identified": "says how, and not that it is wrong",
    "pkix.invalid_domain_name_syntax": "the star of a wildcard, which RFC 5280 §4.2.1.6 leaves to "
    "others and RFC 6125 §6.4.3 reads",
}
"""What the linter finds against RFC 5280, and why it stays."""

ACCEPTED: Mapping[str, str] = {
    "cabf.internal_domain_name": "a private CA is for such names",
    "cabf.serverauth.subscriber.certificate_policies_extension_absent": "the reserved policies "
    "are those of publicly trusted CAs; a profile may name its own",
    "cabf.serverauth.subscriber_missing_reserved_policy_oid": "as the one before",
    "cabf.serverauth.subscriber.subject_key_identifier_extension_present": "RFC 5280 §4.2.1.2 "
    "says it should be there",
    "cabf.serverauth.dv.common_name_attribute_present": "for old software, where the profile "
    "says so",
    "cabf.serverauth.subscriber_rsa_digitalsignature_and_keyencipherment_present": "clients "
    "without forward secrecy need the second; a profile may leave it out",
}
"""What the rules of the CA/Browser Forum find in certificates of a private CA, and why it stays."""


@cache
def pkix_linter() -> Any:
    """Return the linter for RFC 5280."""
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(
            name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS
        ),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )


@cache
def crl_linter() -> Any:
    """Return the linter for revocation lists of RFC 5280."""
    return crl.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([]),
            crl.create_extensions_validator_container([]),
        ],
    )


def findings(results: Any) -> Iterator[str]:
    """Yield the code of each finding."""
    for result in results:
        for one in result.finding_descriptions:
            if one.finding.severity is not validation.ValidationFindingSeverity.DEBUG:
                yield str(one.finding.code)


def lint(der: bytes) -> set[str]:
    """Return what the linter finds against RFC 5280 in a certificate."""
    document = loader.load_der_certificate(der, "made")
    return set(findings(pkix_linter().validate(document.root))) - set(INFORMATION)


async def leaf(world: CaWorld, kind: str, profile: str) -> bytes:
    """Return a certificate of a profile, for a key of a kind."""
    ca = make_ca(world.signer, world.clock, world.store, IssuerSet(world.issuing), PROFILES)
    names = ["www.corp.example", "*.corp.example"]
    order = await ca.open_order(request(*names, profile=profile))
    await ca.finalize(order, make_csr(KEYS[kind](), *names))
    pem = await ca.download(order)
    return x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("kind", KEYS)
async def test_certificate_has_no_finding(kind: str, profile: str) -> None:
    """Of every profile and kind of key."""
    assert lint(await leaf(await make_world(), kind, profile)) == set()


async def test_findings_of_the_forum_are_those_that_are_accepted() -> None:
    """Each of them, with its reason; another would be a fault, and one that went has to go."""
    found: set[str] = set()
    for kind, profile in (("ec-p256", "server"), ("rsa-2048", "named")):
        der = await leaf(await make_world(), kind, profile)
        document = loader.load_der_certificate(der, "made")
        linter = certificate.create_pkix_certificate_validator_container(
            serverauth.create_decoding_validators(),
            serverauth.create_validators(CertificateType.DV_FINAL_CERTIFICATE),
        )
        found |= set(findings(linter.validate(document.root)))
    assert found - set(INFORMATION) == set(ACCEPTED)


@pytest.mark.parametrize("kind", ["ec-p256", "ec-p384", "rsa-2048"])
async def test_root_and_issuing_ca_have_no_finding(kind: str) -> None:
    """With name constraints and without."""
    world = await make_world(kind)
    assert lint(world.root.der) == set()
    assert lint(world.issuing.der) == set()


async def test_linter_finds_what_is_wrong() -> None:
    """The same certificate, pointing to no key of its issuer (RFC 5280 §4.2.1.1)."""
    made = x509.load_der_x509_certificate(await leaf(await make_world(), "ec-p256", "server"))
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        issuer_name=made.issuer,
        subject_name=made.subject,
        public_key=key.public_key(),
        serial_number=made.serial_number,
        not_valid_before=made.not_valid_before_utc,
        not_valid_after=made.not_valid_after_utc,
        extensions=[
            one for one in made.extensions if not isinstance(one.value, x509.AuthorityKeyIdentifier)
        ],
    )
    spoiled = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert lint(spoiled)


@pytest.mark.parametrize("count", [0, 3])
async def test_revocation_list_has_no_finding(count: int) -> None:
    """Empty and with entries."""
    world = await make_world()
    for number in range(count):
        names = (f"n{number}.corp.example",)
        order = await world.ca.open_order(request(*names, reference=f"work{number}"))
        await world.ca.finalize(order, make_csr(KEYS["ec-p256"](), *names))
        pem = await world.ca.download(order)
        der = x509.load_pem_x509_certificates(pem)[0].public_bytes(Encoding.DER)
        await world.ca.revoke(der, (0, 1, 4)[number])
    made = await world.ca.current_crl("issuing-1")
    assert made is not None
    document = loader.load_der_crl(made.der, "made")
    assert set(findings(crl_linter().validate(document.root))) == set()
