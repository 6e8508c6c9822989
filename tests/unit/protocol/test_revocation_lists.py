"""Revocation lists of other CAs: what they say counts, and what they do not say is no yes."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from broker.protocol.certificates import Chain, ChainError, parse_certificate
from broker.protocol.revocation_lists import (
    RevocationUnknown,
    parse_revocation_lists,
    verify_unrevoked,
)
from tests.unit.protocol.builders import NOW, Authority, key_usage, private_key

ROOT = Authority.root("Machines")
ISSUING = ROOT.intermediate("Machines 1")
LEAF = ISSUING.leaf("web-01.hosts.corp.example")
FULL_NAME = [x509.UniformResourceIdentifier("http://pki.example/1.crl")]
OTHER_NAME = [x509.UniformResourceIdentifier("http://pki.example/2.crl")]


def listed(
    issuer: Authority,
    *revoked: x509.Certificate,
    begins: timedelta = timedelta(hours=-1),
    ends: timedelta = timedelta(days=1),
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    key: Any = None,
) -> x509.CertificateRevocationList:
    """Return a list of *issuer*."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(NOW + begins)
        .next_update(NOW + ends)
    )
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(NOW).build())
    for extension, is_critical in extensions:
        builder = builder.add_extension(extension, is_critical)
    return builder.sign(key or issuer.key, hashes.SHA256())


def in_pem(*lists: x509.CertificateRevocationList) -> bytes:
    """Return lists as a file has them."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in lists)


def verify(
    *lists: x509.CertificateRevocationList,
    anchors: Sequence[Authority] = (ROOT,),
    issuers: Sequence[Authority] = (ISSUING,),
    leaf: x509.Certificate = LEAF,
) -> None:
    """Verify the leaf by these lists."""
    chain = Chain(
        parse_certificate(leaf.public_bytes(Encoding.DER)),
        tuple(parse_certificate(one.der) for one in issuers),
        b"",
    )
    found = parse_revocation_lists(in_pem(*lists)) if lists else ()
    assert verify_unrevoked(chain, [one.der for one in anchors], found, NOW) is chain


GOOD = (listed(ISSUING), listed(ROOT))


def test_chain_that_every_ca_speaks_for_is_passed() -> None:
    """Lists of others beside them, and older ones of the same CA, change nothing."""
    verify(*GOOD)
    others = listed(Authority.root("Strangers"), LEAF)
    verify(listed(ISSUING, ends=timedelta(minutes=-1)), others, *GOOD)


def test_anchor_needs_no_list() -> None:
    """It is believed for itself, whether it is a root or not."""
    verify(listed(ISSUING), anchors=[ISSUING], issuers=[])
    verify(listed(ISSUING), anchors=[ISSUING])


def distribution(**only: Any) -> tuple[x509.ExtensionType, bool]:
    """Return where a list says that it is from, and what it is about."""
    given: dict[str, Any] = {
        "full_name": FULL_NAME,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**{**given, **only}), True


def leaf_of(*points: dict[str, Any]) -> x509.Certificate:
    """Return a leaf that names these distribution points."""
    empty = dict.fromkeys(("full_name", "relative_name", "reasons", "crl_issuer"))
    made = [x509.DistributionPoint(**{**empty, **one}) for one in points]
    extensions = [(x509.CRLDistributionPoints(made), False)] if made else []
    return ISSUING.leaf("web-01.hosts.corp.example", extensions=extensions)


@pytest.mark.parametrize(
    "points",
    [
        [{"full_name": FULL_NAME}],
        [{"full_name": OTHER_NAME + FULL_NAME}],
        [{"full_name": OTHER_NAME}, {"full_name": FULL_NAME}],
    ],
    ids=["the only one", "one of its names", "the second"],
)
def test_list_speaks_for_what_names_its_distribution_point(points: Any) -> None:
    """Many CAs say, critically, where a list is from; one name in common is enough."""
    own = listed(ISSUING, extensions=[distribution()])
    verify(own, GOOD[1], leaf=leaf_of(*points))
    named_twice = listed(ISSUING, extensions=[distribution(full_name=OTHER_NAME + FULL_NAME)])
    verify(named_twice, GOOD[1], leaf=leaf_of(*points))


NOT_ITS_OWN: dict[str, list[dict[str, Any]]] = {
    "no extension": [],
    "another": [{"full_name": OTHER_NAME}],
    "for some reasons": [
        {"full_name": FULL_NAME, "reasons": frozenset({x509.ReasonFlags.key_compromise})}
    ],
    "of another issuer": [
        {"full_name": FULL_NAME, "crl_issuer": [x509.DirectoryName(ROOT.certificate.subject)]}
    ],
}


@pytest.mark.parametrize("points", NOT_ITS_OWN.values(), ids=NOT_ITS_OWN)
def test_list_of_another_distribution_point_says_nothing(points: Any) -> None:
    """A CA may cut its list into several, and the certificate stand on one that is not here."""
    own, leaf = listed(ISSUING, extensions=[distribution()]), leaf_of(*points)
    with pytest.raises(RevocationUnknown, match="distribution point that the certificate does not"):
        verify(own, GOOD[1], leaf=leaf)
    verify(own, *GOOD, leaf=leaf)


def test_one_revoked_on_another_part_of_the_list_is_not_let_in() -> None:
    """With only the first part at hand nobody knows; with both, that it was revoked."""
    leaf = leaf_of({"full_name": OTHER_NAME})
    first = listed(ISSUING, extensions=[distribution()])
    second = listed(ISSUING, leaf, extensions=[distribution(full_name=OTHER_NAME)])
    with pytest.raises(RevocationUnknown):
        verify(first, GOOD[1], leaf=leaf)
    with pytest.raises(ChainError, match="was revoked on"):
        verify(first, second, GOOD[1], leaf=leaf)


REVOKED = {
    "leaf": (listed(ISSUING, LEAF), GOOD[1]),
    "its issuer": (GOOD[0], listed(ROOT, ISSUING.certificate)),
    "by a list that has ended": (listed(ISSUING, LEAF, ends=timedelta(minutes=-1)), *GOOD),
}


@pytest.mark.parametrize("lists", REVOKED.values(), ids=REVOKED)
def test_what_stands_on_a_list_is_refused(lists: Any) -> None:
    """The reason names the certificate."""
    with pytest.raises(ChainError, match="was revoked on") as raised:
        verify(*lists)
    assert not isinstance(raised.value, RevocationUnknown)


NO_SIGNER = ROOT.intermediate(
    "Machines 2", key=private_key("ES256", "no-crl"), key_usage=key_usage("key_cert_sign")
)
UNSURE: dict[str, tuple[Any, str]] = {
    "no list at all": ((), "none of the 0"),
    "no list of the leaf's issuer": ((GOOD[1],), "'CN=Machines 1'"),
    "no list of the root": ((GOOD[0],), "'CN=Machines'"),
    "one that has ended": (
        (listed(ISSUING, begins=timedelta(days=-2), ends=timedelta(0)), GOOD[1]),
        "the newest ended",
    ),
    "one that has not begun": (
        (listed(ISSUING, begins=timedelta(minutes=6)), GOOD[1]),
        "the newest ended",
    ),
    "signed by another": (
        (listed(ISSUING, key=private_key("ES256", "thief")), GOOD[1]),
        "none of the 2",
    ),
    "a part of it": (
        (listed(ISSUING, extensions=[distribution(only_contains_ca_certs=True)]), GOOD[1]),
        "not understood",
    ),
    "some reasons": (
        (
            listed(
                ISSUING,
                extensions=[
                    distribution(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise}))
                ],
            ),
            GOOD[1],
        ),
        "not understood",
    ),
    "an indirect one": (
        (listed(ISSUING, extensions=[distribution(indirect_crl=True)]), GOOD[1]),
        "not understood",
    ),
    "a name that is relative to the issuer's": (
        (
            listed(
                ISSUING,
                extensions=[
                    distribution(
                        full_name=None,
                        relative_name=x509.RelativeDistinguishedName(
                            [x509.NameAttribute(x509.NameOID.COMMON_NAME, "1")]
                        ),
                    )
                ],
            ),
            GOOD[1],
        ),
        "not understood",
    ),
    "a delta": (
        (listed(ISSUING, extensions=[(x509.DeltaCRLIndicator(1), True)]), GOOD[1]),
        "not understood",
    ),
    "something critical": (
        (
            listed(
                ISSUING,
                extensions=[
                    (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"), True)
                ],
            ),
            GOOD[1],
        ),
        "not understood",
    ),
}


@pytest.mark.parametrize(("lists", "why"), UNSURE.values(), ids=UNSURE)
def test_what_no_list_speaks_for_is_refused(lists: Any, why: str) -> None:
    """Whoever runs the broker is told what is missing."""
    with pytest.raises(RevocationUnknown, match="no current revocation list") as raised:
        verify(*lists)
    assert why in str(raised.value)


def test_ca_that_may_sign_no_lists_has_signed_none() -> None:
    """Its key usage says so (RFC 5280 §6.3.3)."""
    leaf = NO_SIGNER.leaf("web-01.hosts.corp.example")
    with pytest.raises(RevocationUnknown, match="none of the 2"):
        verify(listed(NO_SIGNER), GOOD[1], issuers=[NO_SIGNER], leaf=leaf)
    signer = ROOT.intermediate(
        "Machines 3",
        key=private_key("ES256", "crl"),
        key_usage=key_usage("key_cert_sign", "crl_sign"),
    )
    leaf = signer.leaf("web-01.hosts.corp.example")
    verify(listed(signer), GOOD[1], issuers=[signer], leaf=leaf)


def test_files_have_one_list_in_der_or_many_in_pem() -> None:
    """As CAs publish them, and as people put them together."""
    assert len(parse_revocation_lists(GOOD[0].public_bytes(Encoding.DER))) == 1
    assert len(parse_revocation_lists(b"\n" + in_pem(*GOOD) + b"\n")) == 2


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"no list",
        b"-----BEGIN X509 CRL-----\n!!!!\n-----END X509 CRL-----\n",
        b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
        in_pem(*GOOD)[:-40],
        in_pem(*GOOD) + ROOT.pem,
        in_pem(GOOD[0]) * 101,
    ],
    ids=["empty", "words", "no base64", "no list", "cut off", "a certificate", "too many"],
)
def test_what_is_no_list_is_refused(octets: bytes) -> None:
    """A file that was half written says nothing of who was revoked."""
    with pytest.raises(RevocationUnknown):
        parse_revocation_lists(octets)
