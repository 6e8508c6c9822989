"""The words that CSRs, certificates and policies share."""

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ed448
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.protocol.extensions import (
    KEY_USAGES,
    canonical_spki,
    extended_key_usage_oids,
    general_name_kind,
    key_kind,
    key_usage_names,
    without_warnings,
)
from tests.unit.protocol import der
from tests.unit.protocol.builders import key_usage, name, private_key

OTHER = x509.ObjectIdentifier("1.3.6.1.4.1.55555.1")


@pytest.mark.parametrize(("attribute", "word"), KEY_USAGES, ids=[word for _, word in KEY_USAGES])
def test_key_usage_has_its_name_of_the_standard(attribute: str, word: str) -> None:
    """RFC 5280 §4.2.1.3 names them."""
    assert key_usage_names(key_usage(attribute)) == {word}


@pytest.mark.parametrize("only", ["encipher_only", "decipher_only"])
def test_usages_that_narrow_key_agreement(only: str) -> None:
    """The two bits mean something beside keyAgreement only."""
    word = only.replace("_o", "O")
    assert key_usage_names(key_usage("key_agreement", only)) == {"keyAgreement", word}
    assert key_usage_names(key_usage("key_agreement")) == {"keyAgreement"}


def test_no_usage_is_no_name() -> None:
    """An empty bit string says nothing."""
    assert key_usage_names(key_usage()) == frozenset()


def test_extended_key_usages_are_dotted() -> None:
    """Policies write them as OIDs."""
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    assert extended_key_usage_oids(usages) == {"1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"}


@pytest.mark.parametrize(
    ("general_name", "kind"),
    [
        (x509.DNSName("a.example"), "dns"),
        (x509.RFC822Name("a@b.example"), "email"),
        (x509.UniformResourceIdentifier("https://a.example"), "uri"),
        (x509.DirectoryName(name("a")), "dirName"),
        (x509.RegisteredID(OTHER), "registeredID"),
        (x509.OtherName(OTHER, b"\x0c\x01a"), "otherName"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kind_of_alternative_name_has_its_word(general_name: x509.GeneralName, kind: str) -> None:
    """The words are those an operator knows from OpenSSL."""
    assert general_name_kind(general_name) == kind


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        pytest.param(lambda: private_key("RS256"), "rsa-2048", id="RSA"),
        pytest.param(lambda: private_key("ES256"), "ec-p256", id="P-256"),
        pytest.param(lambda: private_key("ES384"), "ec-p384", id="P-384"),
        pytest.param(lambda: private_key("ES512"), "ec-p521", id="P-521"),
        pytest.param(lambda: private_key("secp256k1"), "ec-secp256k1", id="secp256k1"),
        pytest.param(lambda: private_key("EdDSA"), "ed25519", id="Ed25519"),
        pytest.param(lambda: ed448.Ed448PrivateKey.generate(), "ed448", id="Ed448"),
        pytest.param(lambda: dsa.generate_private_key(1024), "dsa-1024", id="DSA"),
    ],
)
def test_kind_of_key_has_its_word(make: Any, kind: str) -> None:
    """Policies allow keys by these words."""
    key = make()
    assert key_kind(key.public_key()) == kind
    assert canonical_spki(key.public_key()) == der.spki(key)


def test_unheard_of_key_is_named_by_its_class() -> None:
    """A new kind of key gets a word no policy allows, not an exception."""

    class Quantum512PublicKey:
        pass

    assert key_kind(Quantum512PublicKey()) == "quantum512"
    with pytest.raises(TypeError, match="is no public key"):
        canonical_spki(Quantum512PublicKey())


def test_a_peer_cannot_make_the_library_warn() -> None:
    """A common name of 65 characters is told, not warned of."""
    subject = der.sequence(der.rdn("2.5.4.3", b"a" * 65))
    csr = x509.load_der_x509_csr(der.csr(private_key(), subject=subject))
    with without_warnings():
        assert len(str(next(iter(csr.subject)).value)) == 65
    with pytest.warns(UserWarning, match="length"):
        list(csr.subject)
