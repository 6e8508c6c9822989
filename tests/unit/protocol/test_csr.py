"""CSRs: what is laid open, what is refused, and the comparison with the order."""

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.protocol.csr import MAX_CSR_BYTES, ParsedCsr, parse_csr, verify_csr_names
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.protocol.jwk import jwk_from_public_key
from broker.protocol.problems import Problem, ProblemType
from tests.unit.protocol import der
from tests.unit.protocol.builders import VECTORS, key_usage, make_csr, name, private_key

KEY = private_key("ES256", 1)
COMMON_NAME = "2.5.4.3"


def dns(*names: str) -> frozenset[Identifier]:
    """Return DNS identifiers."""
    return frozenset(Identifier(IdentifierType.DNS, text) for text in names)


def subject(*attributes: tuple[str, bytes]) -> bytes:
    """Return the DER of a subject with attributes as UTF8String."""
    return der.sequence(*(der.rdn(dotted, text) for dotted, text in attributes))


def asking(*extensions: bytes, **kwargs: Any) -> bytes:
    """Return a hand-made CSR with these extensions."""
    return der.csr(KEY, der.extension_request(*extensions), **kwargs)


def explicit_curve() -> bytes:
    """Return a CSR whose P-256 key has its curve spelled out."""
    curve = {
        member: bytes.fromhex(text)
        for member, text in json.loads((VECTORS / "explicit_curve.json").read_text()).items()
        if member != "origin"
    }
    parameters = der.sequence(
        der.integer(1),
        der.sequence(der.oid("1.2.840.10045.1.1"), der.integer(int.from_bytes(curve["p"], "big"))),
        der.sequence(der.octet_string(curve["a"]), der.octet_string(curve["b"])),
        der.octet_string(curve["g"]),
        der.integer(int.from_bytes(curve["n"], "big")),
        der.integer(1),
    )
    numbers = KEY.public_key().public_numbers()
    point = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    spki = der.sequence(
        der.sequence(der.oid("1.2.840.10045.2.1"), parameters), der.bit_string(point)
    )
    return asking(der.dns_names(b"a.example"), public_key=spki)


def compressed_point() -> bytes:
    """Return a CSR whose key is written as a compressed point."""
    numbers = KEY.public_key().public_numbers()
    point = bytes([2 + numbers.y % 2]) + numbers.x.to_bytes(32, "big")
    spki = der.sequence(
        der.sequence(der.oid("1.2.840.10045.2.1"), der.oid("1.2.840.10045.3.1.7")),
        der.bit_string(point),
    )
    return asking(der.dns_names(b"a.example"), public_key=spki)


def rsa_spki(n: int, e: int) -> bytes:
    """Return the SubjectPublicKeyInfo of a made-up RSA key."""
    return der.sequence(
        der.sequence(der.oid("1.2.840.113549.1.1.1"), b"\x05\x00"),
        der.bit_string(der.sequence(der.integer(n), der.integer(e))),
    )


def with_byte(data: bytes, index: int) -> bytes:
    """Return the data with one bit of one byte flipped."""
    changed = bytearray(data)
    changed[index] ^= 1
    return bytes(changed)


GOOD = make_csr(["a.example"])
OTHER = "1.3.6.1.4.1.55555.1"


def long_length() -> bytes:
    """Return the good CSR with its outer length in one octet more than needed."""
    size = len(GOOD) - 3
    assert GOOD[1] == 0x81
    return b"\x30\x82\x00" + bytes([size]) + GOOD[3:]


def unused_bits() -> bytes:
    """Return a CSR whose signature is said to end in an unused bit."""
    for _ in range(100):
        data = bytearray(make_csr(["a.example"]))
        if data[-1] % 2 == 0:
            size = len(x509.load_der_x509_csr(bytes(data)).signature)
            assert data[-size - 1] == 0
            data[-size - 1] = 1
            return bytes(data)
    pytest.fail("no signature of 100 ends in a zero bit")


def foreign_signature() -> bytes:
    """Return a CSR for one key, signed by another."""
    return der.csr(
        private_key("ES256", "other"),
        der.extension_request(der.dns_names(b"a.example")),
        public_key=der.spki(KEY),
    )


REFUSED: list[tuple[str, Callable[[], bytes], str]] = [
    ("empty", lambda: b"", "is empty"),
    ("text", lambda: b"hello", "does not parse"),
    ("PEM", lambda: b"-----BEGIN CERTIFICATE REQUEST-----\n", "is PEM"),
    ("PEM after a newline", lambda: b"\n-----BEGIN CERTIFICATE REQUEST-----\n", "is PEM"),
    ("too large", lambda: b"0" * (MAX_CSR_BYTES + 1), "the limit is"),
    ("byte behind", lambda: GOOD + b"\x00", "does not parse"),
    ("twice", lambda: GOOD + GOOD, "does not parse"),
    ("cut short", lambda: GOOD[:-1], "does not parse"),
    ("BER indefinite length", lambda: b"\x30\x80" + GOOD[3:] + b"\x00\x00", "does not parse"),
    ("BER long length", long_length, "does not parse"),
    ("version 1", lambda: asking(der.dns_names(b"a.example"), version=1), "does not parse"),
    ("version 2", lambda: asking(der.dns_names(b"a.example"), version=2), "does not parse"),
    ("signature flipped", lambda: with_byte(GOOD, -1), "does not verify"),
    ("name flipped", lambda: GOOD.replace(b"a.example", b"b.example"), "does not verify"),
    ("signature with unused bits", unused_bits, "unused bits"),
    ("signed by another key", foreign_signature, "does not verify"),
    (
        "SHA-1",
        lambda: asking(
            der.dns_names(b"a.example"),
            signature_oid=der.ECDSA_SHA1,
            hash_algorithm=hashes.SHA1(),
        ),
        "MD5 or SHA-1",
    ),
    (
        "MD5",
        lambda: der.csr(
            private_key("RS256"),
            der.extension_request(der.dns_names(b"a.example")),
            signature_oid=der.RSA_MD5,
            hash_algorithm=hashes.MD5(),
        ),
        "MD5 or SHA-1",
    ),
    (
        "unknown signature algorithm",
        lambda: asking(der.dns_names(b"a.example"), signature_oid=OTHER),
        "cannot be verified",
    ),
    ("DSA key", lambda: make_csr(["a.example"], key=dsa.generate_private_key(2048)), "DSA"),
    ("curve spelled out", explicit_curve, "named curve"),
    ("compressed point", compressed_point, "uncompressed point"),
    (
        "RSA of 16384 bits",
        lambda: asking(der.dns_names(b"a.example"), public_key=rsa_spki((1 << 16383) | 1, 65537)),
        "16384 bits",
    ),
    (
        "RSA exponent of 2000 bits",
        lambda: asking(
            der.dns_names(b"a.example"), public_key=rsa_spki((1 << 2047) | 1, (1 << 2000) | 1)
        ),
        "(exponent longer|does not parse)",
    ),
    ("no name at all", lambda: make_csr([]), "names nothing"),
    ("empty list of names", lambda: asking(der.dns_names()), "names nothing|does not parse"),
    ("only an organization", lambda: make_csr([], subject=name(organization_name="X")), "nothing"),
    (
        "two extension requests",
        lambda: der.csr(
            KEY,
            der.extension_request(der.dns_names(b"a.example")),
            der.extension_request(der.dns_names(b"evil.example")),
        ),
        "several extension requests",
    ),
    (
        "two kinds of extension requests",
        lambda: der.csr(
            KEY,
            der.extension_request(der.dns_names(b"a.example")),
            der.extension_request(der.dns_names(b"evil.example"), dotted="1.3.6.1.4.1.311.2.1.14"),
        ),
        "several extension requests",
    ),
    (
        "extension request with two values",
        lambda: der.csr(
            KEY,
            der.sequence(
                der.oid(der.EXTENSION_REQUEST),
                der.set_of(
                    der.sequence(der.dns_names(b"a.example")),
                    der.sequence(der.dns_names(b"evil.example")),
                ),
            ),
        ),
        "does not parse",
    ),
    (
        "extension request without a value",
        lambda: der.csr(KEY, der.sequence(der.oid(der.EXTENSION_REQUEST), der.set_of())),
        "does not parse",
    ),
    (
        "alternative names twice",
        lambda: asking(der.dns_names(b"a.example"), der.dns_names(b"evil.example")),
        "does not parse",
    ),
    (
        "unknown extension twice",
        lambda: asking(
            der.dns_names(b"a.example"), der.extension(OTHER, b"a"), der.extension(OTHER, b"b")
        ),
        "does not parse",
    ),
    (
        "alternative names not DER",
        lambda: asking(der.extension(der.SUBJECT_ALT_NAME, b"\x30\x7f")),
        "does not parse",
    ),
    (
        "uri",
        lambda: make_csr(["a.example", x509.UniformResourceIdentifier("https://a.example")]),
        "kind uri",
    ),
    ("directory name", lambda: make_csr([x509.DirectoryName(name("a"))]), "kind dirName"),
    (
        "other name",
        lambda: make_csr([x509.OtherName(x509.ObjectIdentifier(OTHER), b"\x0c\x01a")]),
        "kind otherName",
    ),
    (
        "registered id",
        lambda: make_csr([x509.RegisteredID(x509.ObjectIdentifier(OTHER))]),
        "kind registeredID",
    ),
    (
        "x400 address",
        lambda: asking(der.raw_names(der.tlv(0xA3, b""))),
        "does not parse",
    ),
    (
        "address of five octets",
        lambda: asking(der.raw_names(der.tlv(0x87, b"\x01\x02\x03\x04\x05"))),
        "does not parse",
    ),
    (
        "address with a mask",
        lambda: asking(der.raw_names(der.tlv(0x87, b"\x0a\x00\x00\x00\xff\x00\x00\x00"))),
        "refused|does not parse",
    ),
    ("name with NUL", lambda: asking(der.dns_names(b"a.example\x00.evil.example")), "letters"),
    ("name not ASCII", lambda: asking(der.dns_names("ä.example".encode())), "not ASCII"),
    ("name with a trailing dot", lambda: asking(der.dns_names(b"a.example.")), "ends with a dot"),
    ("name empty", lambda: asking(der.dns_names(b"")), "is empty"),
    ("name with underscore", lambda: asking(der.dns_names(b"a_b.example")), "underscore"),
    ("name of one label", lambda: asking(der.dns_names(b"localhost")), "single label"),
    ("address as a name", lambda: asking(der.dns_names(b"192.0.2.1")), "IP address"),
    ("wildcard in the middle", lambda: asking(der.dns_names(b"a.*.example")), "leftmost"),
    ("mail address with newline", lambda: asking(der.raw_names(der.tlv(0x81, b"a@b\r\n"))), "CSR"),
    (
        "two common names",
        lambda: asking(
            der.dns_names(b"a.example"),
            subject=subject((COMMON_NAME, b"a.example"), (COMMON_NAME, b"evil.example")),
        ),
        "2 common names",
    ),
]


@pytest.mark.parametrize(
    ("make", "because"), [pytest.param(m, because, id=label) for label, m, because in REFUSED]
)
def test_csr_is_refused_with_the_reason(make: Callable[[], bytes], because: str) -> None:
    """Each bad CSR is badCSR, quickly, and the sentence says why; its good twin parses."""
    data = make()
    started = time.thread_time()
    with pytest.raises(Problem, match=because) as caught:
        parse_csr(data)
    assert time.thread_time() - started < 0.1
    assert caught.value.type is ProblemType.BAD_CSR
    assert caught.value.detail.startswith("CSR ")
    assert parse_csr(asking(der.dns_names(b"a.example"))).identifiers == dns("a.example")


def test_the_table_is_long_enough() -> None:
    """At least 40 bad CSRs are tried."""
    assert len(REFUSED) >= 40


def test_csr_is_kept_as_it_was_signed() -> None:
    """The DER is the client's, and the key is told in every form that is asked for."""
    csr = parse_csr(GOOD)
    assert csr.der == GOOD
    assert csr.spki_der == der.spki(KEY)
    assert csr.spki_sha256 == hashlib.sha256(csr.spki_der).hexdigest()
    assert csr.key_thumbprint == jwk_from_public_key(KEY.public_key()).thumbprint
    assert csr.common_name is None
    assert not csr.must_staple
    assert not csr.requests_ca
    assert csr.key_usages == csr.extended_key_usages == csr.other_extensions == frozenset()
    assert csr.subject_other == ()


@pytest.mark.parametrize(
    ("make", "kind", "can_be_an_account"),
    [
        pytest.param(lambda: private_key("RS256"), "rsa-2048", True, id="RSA 2048"),
        pytest.param(lambda: private_key("rsa-1024"), "rsa-1024", False, id="RSA 1024"),
        pytest.param(lambda: private_key("ES256"), "ec-p256", True, id="P-256"),
        pytest.param(lambda: private_key("ES384"), "ec-p384", True, id="P-384"),
        pytest.param(lambda: private_key("ES512"), "ec-p521", True, id="P-521"),
        pytest.param(lambda: private_key("secp256k1"), "ec-secp256k1", False, id="secp256k1"),
        pytest.param(lambda: private_key("P-224"), "ec-secp224r1", False, id="P-224"),
        pytest.param(lambda: private_key("EdDSA"), "ed25519", True, id="Ed25519"),
        pytest.param(lambda: ed448.Ed448PrivateKey.generate(), "ed448", False, id="Ed448"),
    ],
)
def test_kind_of_key_is_named(make: Callable[[], Any], kind: str, can_be_an_account: bool) -> None:
    """Policy sees the kind; a key that an account could have has a thumbprint."""
    csr = parse_csr(make_csr(["a.example"], key=make()))
    assert csr.key_kind == kind
    assert (csr.key_thumbprint is not None) == can_be_an_account


def test_names_are_canonical_and_one_each() -> None:
    """Upper case and repetition make no second name."""
    csr = parse_csr(make_csr(["A.Example", "a.example", "*.A.example", "192.0.2.1", "2001:db8::1"]))
    assert csr.identifiers == dns("a.example", "*.a.example") | {
        Identifier(IdentifierType.IP, "192.0.2.1"),
        Identifier(IdentifierType.IP, "2001:db8::1"),
    }


def test_mail_address_is_an_identifier() -> None:
    """An rfc822Name becomes an identifier of type email."""
    csr = parse_csr(make_csr([x509.RFC822Name("Alice@example.com")]))
    assert csr.identifiers == {Identifier(IdentifierType.EMAIL, "Alice@example.com")}


@pytest.mark.parametrize(
    ("common_name", "names", "expected"),
    [
        pytest.param("a.example", [], dns("a.example"), id="alone"),
        pytest.param("A.Example", [], dns("a.example"), id="alone in upper case"),
        pytest.param("a.example", ["a.example"], dns("a.example"), id="also an alternative name"),
        pytest.param("a.example", ["b.example"], dns("a.example", "b.example"), id="another"),
        pytest.param("*.a.example", [], dns("*.a.example"), id="wildcard"),
        pytest.param("My Server", ["a.example"], dns("a.example"), id="no name"),
        pytest.param("localhost", ["a.example"], dns("a.example"), id="single label"),
    ],
)
def test_common_name_counts_when_it_is_a_name(
    common_name: str, names: list[str], expected: frozenset[Identifier]
) -> None:
    """RFC 8555 §7.4: an identifier may stand in the common name, in the names, or both."""
    csr = parse_csr(make_csr(names, subject=name(common_name)))
    assert csr.identifiers == expected
    assert csr.common_name == common_name


def test_common_name_that_is_an_address_counts() -> None:
    """An address as common name is the identifier it would be taken for."""
    csr = parse_csr(make_csr(["192.0.2.1"], subject=name("192.0.2.1")))
    assert csr.identifiers == {Identifier(IdentifierType.IP, "192.0.2.1")}


def test_common_name_that_is_an_address_of_e_mail_counts() -> None:
    """Clients for e-mail write it there; another one is beyond the order."""
    jane = Identifier(IdentifierType.EMAIL, "jane@corp.example")
    right = make_csr([x509.RFC822Name(jane.value)], subject=name("jane@Corp.example"))
    assert verify_csr_names(parse_csr(right), [jane]).identifiers == {jane}
    wrong = make_csr([x509.RFC822Name(jane.value)], subject=name("john@corp.example"))
    with pytest.raises(Problem, match=r"names john@corp\.example beyond the order"):
        verify_csr_names(parse_csr(wrong), [jane])


@pytest.mark.parametrize(
    ("address", "is_taken"),
    [("jane@corp.example", True), ("jane@CORP.example", True), ("Jane@corp.example", False),
     ("john@corp.example", False), ("corp.example", False)],
)  # fmt: skip
def test_address_in_the_subject_is_one_of_the_order(address: str, is_taken: bool) -> None:
    """A CA might put it into the certificate, as RFC 5280 §4.1.2.6 did once."""
    jane = Identifier(IdentifierType.EMAIL, "jane@corp.example")
    csr = parse_csr(
        make_csr(
            [x509.RFC822Name(jane.value)], subject=name("jane@corp.example", email_address=address)
        )
    )
    assert csr.subject_mail == (address,)
    if is_taken:
        verify_csr_names(csr, [jane])
        return
    with pytest.raises(Problem, match="in its subject, expected none or one of the order"):
        verify_csr_names(csr, [jane])


def test_empty_common_name_is_none() -> None:
    """Old appliances send a common name of no characters."""
    csr = parse_csr(asking(der.dns_names(b"a.example"), subject=subject((COMMON_NAME, b""))))
    assert csr.common_name is None


def test_what_the_csr_asks_beyond_names_is_laid_open() -> None:
    """Usages, CA flag, must-staple, unknown extensions and other attributes are told."""
    csr = parse_csr(
        make_csr(
            ["a.example"],
            subject=name("a.example", organization_name="Example", country_name="CH"),
            extensions=[
                (x509.BasicConstraints(ca=True, path_length=None), True),
                (key_usage("digital_signature", "key_cert_sign", "crl_sign"), True),
                (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
                (x509.TLSFeature([x509.TLSFeatureType.status_request]), False),
                (x509.SubjectKeyIdentifier(b"1234"), False),
                (x509.UnrecognizedExtension(x509.ObjectIdentifier(OTHER), b"x"), True),
            ],
        )
    )
    assert csr.requests_ca
    assert csr.key_usages == {"digitalSignature", "keyCertSign", "cRLSign"}
    assert csr.extended_key_usages == {"1.3.6.1.5.5.7.3.1"}
    assert csr.must_staple
    assert csr.other_extensions == {"2.5.29.14", OTHER}
    assert csr.subject_other == ("O=Example", "C=CH")
    assert csr.identifiers == dns("a.example")


def test_a_ca_flag_that_is_false_is_no_request() -> None:
    """Old clients say CA:FALSE."""
    extension = x509.BasicConstraints(ca=False, path_length=None)
    csr = parse_csr(make_csr(["a.example"], extensions=[(extension, True)]))
    assert not csr.requests_ca
    assert csr.other_extensions == frozenset()


def test_other_tls_features_are_no_must_staple() -> None:
    """Only status_request is must-staple; anything else is an unknown extension."""
    extension = x509.TLSFeature([x509.TLSFeatureType.status_request_v2])
    csr = parse_csr(make_csr(["a.example"], extensions=[(extension, False)]))
    assert not csr.must_staple
    assert csr.other_extensions == {"1.3.6.1.5.5.7.1.24"}


def test_challenge_password_is_no_extension_request() -> None:
    """The attribute that old tools add does not hide or count as the other."""
    password = der.sequence(der.oid("1.2.840.113549.1.9.7"), der.set_of(der.tlv(0x0C, b"secret")))
    csr = parse_csr(der.csr(KEY, password, der.extension_request(der.dns_names(b"a.example"))))
    assert csr.identifiers == dns("a.example")


def test_microsoft_extension_request_counts() -> None:
    """Windows tools may put the extensions into an attribute of their own."""
    request = der.extension_request(der.dns_names(b"a.example"), dotted="1.3.6.1.4.1.311.2.1.14")
    assert parse_csr(der.csr(KEY, request)).identifiers == dns("a.example")


def test_csr_of_a_hundred_long_names_fits() -> None:
    """The largest order with the largest key stays within the size limit."""
    names = [f"{n:03d}.{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 49}.example" for n in range(100)]
    assert all(len(text) == 253 for text in names)
    data = make_csr(names, key=private_key("rsa-4096"))
    assert len(parse_csr(data).identifiers) == 100
    assert len(data) <= MAX_CSR_BYTES


def verified(csr: ParsedCsr, *names: str) -> ParsedCsr:
    """Return the CSR if it names exactly these."""
    return verify_csr_names(csr, dns(*names))


def test_csr_for_exactly_the_order_is_proven() -> None:
    """The same set in any order and spelling."""
    csr = parse_csr(make_csr(["B.example", "a.example"]))
    assert verified(csr, "a.example", "b.example") is csr


@pytest.mark.parametrize(
    ("names", "ordered", "because"),
    [
        pytest.param(["a.example"], ["a.example", "b.example"], "lacks b.example", id="missing"),
        pytest.param(
            ["a.example", "b.example"], ["a.example"], "names b.example beyond", id="extra"
        ),
        pytest.param(
            ["b.example"], ["a.example"], "lacks a.example and names b.example", id="both"
        ),
        pytest.param(["*.a.example"], ["a.example"], "lacks a.example", id="wildcard for base"),
        pytest.param(["a.example"], ["*.a.example"], r"lacks \*", id="base for wildcard"),
        pytest.param(["www.a.example"], ["*.a.example"], r"lacks \*", id="name under wildcard"),
        pytest.param(["a.example", "192.0.2.1"], ["a.example"], "192.0.2.1 beyond", id="address"),
        pytest.param(["evil-a.example"], ["a.example"], "lacks a.example", id="suffix"),
    ],
)
def test_csr_for_other_names_is_refused(names: list[str], ordered: list[str], because: str) -> None:
    """Each difference is named; the same CSR passes for its own names."""
    csr = parse_csr(make_csr(names))
    with pytest.raises(Problem, match=because) as caught:
        verified(csr, *ordered)
    assert caught.value.type is ProblemType.BAD_CSR
    assert verify_csr_names(csr, csr.identifiers) is csr


def test_common_name_beyond_the_order_is_refused() -> None:
    """A common name that is no name of the order is refused, DNS name or not."""
    for common_name in ("b.example", "My Server", "localhost"):
        csr = parse_csr(make_csr(["a.example"], subject=name(common_name)))
        with pytest.raises(Problem) as caught:
            verified(csr, "a.example")
        assert common_name in caught.value.detail
    csr = parse_csr(make_csr(["a.example"], subject=name("A.example")))
    assert verified(csr, "a.example") is csr


def test_address_and_name_of_the_same_text_differ() -> None:
    """An identifier of another type is another identifier."""
    csr = parse_csr(make_csr(["192.0.2.1"]))
    with pytest.raises(Problem, match="lacks"):
        verify_csr_names(csr, dns("a.example"))
    assert verify_csr_names(csr, [Identifier(IdentifierType.IP, "192.0.2.1")]) is csr


def test_a_long_list_of_differences_is_cut() -> None:
    """The sentence names ten and counts the rest."""
    csr = parse_csr(make_csr([f"{n:02d}.example" for n in range(40)]))
    with pytest.raises(Problem, match="and 29 more"):
        verified(csr, "00.example")


def test_ecdsa_over_every_hash_is_accepted() -> None:
    """SHA-256 and longer hashes verify on every curve."""
    for algorithm in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        data = make_csr(
            ["a.example"], key=ec.generate_private_key(ec.SECP256R1()), hash_algorithm=algorithm
        )
        assert parse_csr(data).key_kind == "ec-p256"
