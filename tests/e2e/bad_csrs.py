"""CSRs with one thing wrong, each made for the names of an order."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku

from tests.e2e import weak_keys
from tests.e2e.front_door import BLOCKED_KEY, FrontDoor
from tests.e2e.requester import Client, fresh_name
from tests.unit.protocol import der
from tests.unit.protocol.builders import VECTORS, key_usage, make_csr, name, private_key

KEY = private_key("ES256", "csr")
OTHER = "1.3.6.1.4.1.55555.1"
CSR_LIMIT = 32 * 1024
"""Largest CSR that is read, in bytes."""


@dataclass(frozen=True)
class Asking:
    """Whose order it is, and what it names."""

    door: FrontDoor
    owner: Client
    names: list[str]

    @property
    def octets(self) -> list[bytes]:
        """The names as they stand in a certificate."""
        return [one.encode() for one in self.names]


Make = Callable[[Asking], bytes]


def named(*more: str | x509.GeneralName, **options: Any) -> Make:
    """Return what asks for the order's names and more."""
    return lambda asking: make_csr([*asking.names, *more], **{"key": KEY, **options})


def only(*names: str | x509.GeneralName, **options: Any) -> Make:
    """Return what asks for other names than the order's."""
    return lambda _: make_csr(names, **{"key": KEY, **options})


def extended(*extensions: x509.ExtensionType, critical: bool = False) -> Make:
    """Return what asks for the order's names and for extensions."""
    return named(extensions=[(one, critical) for one in extensions])


def handmade(*extensions: bytes, **options: Any) -> Make:
    """Return what asks for the order's names in DER by hand, and for more."""

    def make(asking: Asking) -> bytes:
        wanted = der.extension_request(der.dns_names(*asking.octets), *extensions)
        return der.csr(options.pop("key", KEY), wanted, **options)

    return make


def raw_name(octets: bytes) -> Make:
    """Return what asks for a further DNS name that no library would write."""

    def make(asking: Asking) -> bytes:
        return der.csr(KEY, der.extension_request(der.dns_names(*asking.octets, octets)))

    return make


def of_key(key: Callable[[], Any], **options: Any) -> Make:
    """Return what is right but for its key."""
    return lambda asking: make_csr(asking.names, key=key(), **options)


def changed(change: Callable[[bytes], bytes]) -> Make:
    """Return a good CSR with its octets changed."""
    return lambda asking: change(make_csr(asking.names, key=KEY))


def subject(*attributes: tuple[str, bytes]) -> Make:
    """Return what has a subject in DER by hand."""
    text = der.sequence(*(der.rdn(dotted, value) for dotted, value in attributes))
    return handmade(subject=text)


def spki_by_hand(spki: bytes) -> Make:
    """Return what has a key written in another way, signed by the usual one."""
    return handmade(public_key=spki)


def rsa_spki(n: int, e: int) -> bytes:
    """Return the SubjectPublicKeyInfo of a made-up RSA key."""
    algorithm = der.sequence(der.oid("1.2.840.113549.1.1.1"), b"\x05\x00")
    return der.sequence(algorithm, der.bit_string(der.sequence(der.integer(n), der.integer(e))))


def ec_spki(parameters: bytes, point: bytes) -> bytes:
    """Return the SubjectPublicKeyInfo of an EC key, its parameters and point as given."""
    algorithm = der.sequence(der.oid("1.2.840.10045.2.1"), parameters)
    return der.sequence(algorithm, der.bit_string(point))


def point(*, compressed: bool = False) -> bytes:
    """Return the point of the usual key."""
    numbers = KEY.public_key().public_numbers()
    x: bytes = numbers.x.to_bytes(32, "big")
    y: bytes = numbers.y.to_bytes(32, "big")
    return bytes([2 + y[-1] % 2]) + x if compressed else b"\x04" + x + y


def spelled_out_curve() -> bytes:
    """Return P-256 parameter by parameter (CVE-2022-0778)."""
    stored = json.loads((VECTORS / "explicit_curve.json").read_text())
    curve = {one: bytes.fromhex(text) for one, text in stored.items() if one != "origin"}
    field = der.sequence(
        der.oid("1.2.840.10045.1.1"), der.integer(int.from_bytes(curve["p"], "big"))
    )
    return der.sequence(
        der.integer(1),
        field,
        der.sequence(der.octet_string(curve["a"]), der.octet_string(curve["b"])),
        der.octet_string(curve["g"]),
        der.integer(int.from_bytes(curve["n"], "big")),
        der.integer(1),
    )


def two_requests(dotted: str = der.EXTENSION_REQUEST) -> Make:
    """Return what asks twice: once for the order's names, once for another's."""

    def make(asking: Asking) -> bytes:
        first = der.extension_request(der.dns_names(*asking.octets))
        second = der.extension_request(der.dns_names(b"evil.test"), dotted=dotted)
        return der.csr(KEY, *sorted((first, second)))  # DER wants a SET sorted

    return make


def unused_bits(data: bytes) -> bytes:
    """Say of the signature that its last bit does not count, whatever it is."""
    size = len(x509.load_der_x509_csr(data).signature)
    return data[: -size - 1] + b"\x01" + data[-size:]


def certificate_instead(asking: Asking) -> bytes:
    """Send a certificate."""
    _, leaf = asking.owner.certificate(fresh_name())
    return leaf


def signed_by_another(asking: Asking) -> bytes:
    """Show one key and sign with another."""
    wanted = der.extension_request(der.dns_names(*asking.octets))
    return der.csr(private_key("ES256", "another"), wanted, public_key=der.spki(KEY))


def account_of(community: str, kind: str = "ES256") -> Make:
    """Return what is for the key of somebody else's account."""

    def make(asking: Asking) -> bytes:
        key = private_key(kind, fresh_name())
        asking.door.account(community, key=key)
        return make_csr(asking.names, key=key)

    return make


def usages(*names: str) -> x509.KeyUsage:
    """Return key usages by their names in cryptography."""
    return key_usage(*names)


BAD_CSR, BAD_KEY = "badCSR", "badPublicKey"
TEXT, BITS = b"\x0c\x05hello", b"\x03\x02\x00\x80"

NAMES: dict[str, tuple[Make, str]] = {
    "a name missing": (lambda a: make_csr(a.names[:1], key=KEY), "lacks h"),
    "a name too many": (named("extra.farm.example.test"), "names extra.* beyond the order"),
    "other names": (only("a.farm.example.test"), "lacks .* and names a.farm"),
    "names below": (lambda a: make_csr([f"www.{n}" for n in a.names], key=KEY), "lacks"),
    "wildcards": (lambda a: make_csr([f"*.{n}" for n in a.names], key=KEY), "lacks"),
    "parent": (named("farm.example.test"), "beyond the order"),
    "a thousand names": (named(*(f"n{n}.farm.example.test" for n in range(1000))), "and 990 more"),
    "no names": (lambda _: make_csr([], key=KEY), "names nothing"),
    "empty list of names": (lambda _: der.csr(KEY, der.extension_request(der.dns_names())),
                            "names nothing|does not parse"),
    "common name beyond": (named(subject=name("evil.example")), "evil.example beyond the order"),
    "common name alone": (lambda a: make_csr([], key=KEY, subject=name(a.names[0])), "lacks"),
    "common name a sentence": (named(subject=name("My Server")), "the common name 'My Server'"),
    "common name an address": (named(subject=name("192.0.2.1")), "192.0.2.1 beyond the order"),
    "common name with a dot behind": (lambda a: make_csr(a.names, key=KEY,
                                      subject=name(a.names[0] + ".")), "the common name"),
    "two common names": (subject(("2.5.4.3", b"a.test"), ("2.5.4.3", b"b.test")),
                         "2 common names"),
    "organization": (named(subject=name(organization_name="Evil")), "subject attributes O=Evil"),
    "mail address in the subject": (named(subject=name(email_address="a@example.com")),
                                    "e-mail address 'a@example.com' in its subject"),
    "serial number in the subject": (named(subject=name(serial_number="1")), "subject attributes"),
    "address": (named("192.0.2.1"), "192.0.2.1 beyond the order"),
    "address of IPv6": (named("2001:db8::1"), "beyond the order"),
    "mail address": (named(x509.RFC822Name("a@example.com")), "a@example.com beyond the order"),
    "uri": (named(x509.UniformResourceIdentifier("https://a.test")), "of kind uri, expected dns"),
    "directory name": (named(x509.DirectoryName(name("a"))), "of kind dirName"),
    "other name": (named(x509.OtherName(x509.ObjectIdentifier(OTHER), TEXT)), "of kind otherName"),
    "user principal name": (named(x509.OtherName(
        x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x05admin")), "of kind otherName"),
    "registered id": (named(x509.RegisteredID(x509.ObjectIdentifier(OTHER))), "registeredID"),
    "name with NUL": (raw_name(b"a.test\x00.evil.test"), "letters, digits"),
    "name not ASCII": (raw_name("bücher.test".encode()), "not ASCII|does not parse"),
    "name with a dot behind": (lambda a: make_csr([a.names[0], a.names[1] + "."], key=KEY),
                               "ends with a dot"),
    "name with underscore": (raw_name(b"_a.farm.example.test"), "underscore"),
    "name empty": (raw_name(b""), "is empty"),
    "name of one label": (raw_name(b"localhost"), "single label"),
    "address as a name": (raw_name(b"127.0.0.1"), "IP address"),
    "wildcard in the middle": (raw_name(b"a.*.example.test"), "leftmost"),
    "names not DER": (lambda _: der.csr(KEY, der.extension_request(
        der.extension(der.SUBJECT_ALT_NAME, b"\x30\x7f"))), "does not parse"),
    "names twice": (handmade(der.dns_names(b"evil.test")), "does not parse"),
    "two extension requests": (two_requests(), "several extension requests"),
    "another kind of request": (two_requests("1.3.6.1.4.1.311.2.1.14"), "several extension"),
}  # fmt: skip
"""C1: the order's identifiers, no fewer, no more, of no other kind."""

EXTENSIONS: dict[str, tuple[Make, str]] = {
    "CA": (extended(x509.BasicConstraints(ca=True, path_length=None), critical=True),
           "CA:TRUE, expected an end"),
    "CA with a path length": (extended(x509.BasicConstraints(ca=True, path_length=0)), "CA:TRUE"),
    "keyCertSign": (extended(usages("key_cert_sign")), "keyCertSign of a CA"),
    "cRLSign": (extended(usages("digital_signature", "crl_sign")), "cRLSign of a CA"),
    "nonRepudiation": (extended(usages("content_commitment")), "nonRepudiation, profile 'server'"),
    "dataEncipherment": (extended(usages("data_encipherment")), "dataEncipherment"),
    **{word: (extended(x509.ExtendedKeyUsage([oid])), f"extended key usages {shown}.*, profile")
       for word, oid, shown in (
           ("clientAuth", Eku.CLIENT_AUTH, "client-auth"), ("codeSigning", Eku.CODE_SIGNING, "1.3"),
           ("any usage", Eku.ANY_EXTENDED_KEY_USAGE, "2.5.29.37.0"),
           ("OCSPSigning", Eku.OCSP_SIGNING, "1.3"), ("timeStamping", Eku.TIME_STAMPING, "1.3"),
           ("smart card logon", Eku.SMARTCARD_LOGON, "1.3"),
           ("emailProtection", Eku.EMAIL_PROTECTION, "email-protection"))},
    "serverAuth and more": (extended(x509.ExtendedKeyUsage([Eku.SERVER_AUTH, Eku.CODE_SIGNING])),
                            "allows server-auth"),
    "must-staple": (extended(x509.TLSFeature([x509.TLSFeatureType.status_request])),
                    "must-staple, which profile 'server' does not allow"),
    "another TLS feature": (extended(x509.TLSFeature([x509.TLSFeatureType.status_request_v2])),
                            "the extensions 1.3.6.1.5.5.7.1.24"),
    "name constraints": (extended(x509.NameConstraints([x509.DNSName("test")], None)),
                         "the extensions 2.5.29.30"),
    "policies": (extended(x509.CertificatePolicies([x509.PolicyInformation(
        x509.ObjectIdentifier("2.23.140.1.2.1"), None)])), "the extensions 2.5.29.32"),
    "policy constraints": (extended(x509.PolicyConstraints(0, None)), "the extensions 2.5.29.36"),
    "authority information": (extended(x509.AuthorityInformationAccess([x509.AccessDescription(
        x509.ObjectIdentifier("1.3.6.1.5.5.7.48.1"),
        x509.UniformResourceIdentifier("http://evil.test"))])), "the extensions 1.3.6.1.5.5.7.1.1"),
    "CRL distribution points": (extended(x509.CRLDistributionPoints([x509.DistributionPoint(
        [x509.UniformResourceIdentifier("http://evil.test")], None, None, None)])), "2.5.29.31"),
    "subject key identifier": (extended(x509.SubjectKeyIdentifier(bytes(20))), "2.5.29.14"),
    "issuer's alternative name": (extended(x509.IssuerAlternativeName([x509.DNSName("a.test")])),
                                  "2.5.29.18"),
    "CT poison": (extended(x509.PrecertPoison(), critical=True), "1.3.6.1.4.1.11129.2.4.3"),
    "Microsoft's template": (handmade(der.extension("1.3.6.1.4.1.311.21.7", b"\x30\x00")),
                             "1.3.6.1.4.1.311.21.7|does not parse"),
    "unknown": (handmade(der.extension(OTHER, TEXT)), f"the extensions {OTHER}"),
    "unknown and critical": (handmade(der.extension(OTHER, TEXT, critical=True)), OTHER),
    "unknown of 20,000 octets": (handmade(der.extension(OTHER, bytes(20_000))), OTHER),
    "unknown twice": (handmade(der.extension(OTHER, b"a"), der.extension(OTHER, b"b")),
                      "does not parse"),
    "200 unknown": (handmade(*(der.extension(f"{OTHER}.{n}", b"a") for n in range(200))),
                    "and 190 more"),
}  # fmt: skip
"""C5: nothing is smuggled to the CA that the profile does not name."""

FORM: dict[str, tuple[Make, str]] = {
    "one octet": (lambda _: b"\x00", "does not parse"),
    "text": (lambda _: b"hello", "does not parse"),
    "JSON": (lambda _: b'{"csr": "hello"}', "does not parse"),
    "PEM": (lambda a: pem_of(make_csr(a.names, key=KEY)), "is PEM, expected DER"),
    "PEM of a certificate": (lambda _: b"-----BEGIN CERTIFICATE-----\n", "is PEM"),
    "a certificate": (certificate_instead, "does not parse"),
    "octet behind": (changed(lambda data: data + b"\x00"), "does not parse"),
    "twice": (changed(lambda data: data * 2), "does not parse"),
    "cut short": (changed(lambda data: data[:-1]), "does not parse"),
    "BER": (changed(lambda data: b"\x30\x80" + data[3:] + b"\x00\x00"), "does not parse"),
    "too large": (lambda _: der.sequence(bytes(CSR_LIMIT)), "the limit is 32768"),
    "deep": (lambda _: deep(8_000), "does not parse"),
    "version 1": (handmade(version=1), "does not parse"),
    "version 3": (handmade(version=3), "does not parse"),
    "signature flipped": (changed(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
                          "does not verify"),
    "name changed": (changed(lambda data: data.replace(b"farm", b"barn")), "does not verify"),
    "signature with unused bits": (changed(unused_bits), "unused bits|does not parse|verify"),
    "signed by another key": (signed_by_another, "does not verify"),
    "SHA-1": (handmade(signature_oid=der.ECDSA_SHA1, hash_algorithm=hashes.SHA1()),
              "MD5 or SHA-1, expected SHA-256"),
    "MD5": (handmade(key=private_key("RS256", "csr"), signature_oid=der.RSA_MD5,
                     hash_algorithm=hashes.MD5()), "MD5 or SHA-1, expected SHA-256"),
    "unknown signature": (handmade(signature_oid=OTHER), "cannot be verified"),
    "curve spelled out": (lambda a: spki_by_hand(ec_spki(spelled_out_curve(), point()))(a),
                          "named curve|does not parse"),
    "point compressed": (lambda a: spki_by_hand(
        ec_spki(der.oid("1.2.840.10045.3.1.7"), point(compressed=True)))(a), "uncompressed"),
    "point off the curve": (lambda a: spki_by_hand(
        ec_spki(der.oid("1.2.840.10045.3.1.7"), b"\x04" + bytes(63) + b"\x01"))(a),
        "does not parse"),
    "RSA of 16384 bits": (spki_by_hand(rsa_spki((1 << 16383) | 1, 65537)), "16384 bits"),
    "RSA exponent of 2000 bits": (spki_by_hand(rsa_spki((1 << 2047) | 1, (1 << 2000) | 1)),
                                  "exponent longer|does not parse"),
    "DSA": (of_key(lambda: dsa.generate_private_key(2048)), "DSA key"),
    "ML-DSA": (spki_by_hand(der.sequence(der.sequence(der.oid("2.16.840.1.101.3.4.3.17")),
                                         der.bit_string(bytes(1312)))), "CSR "),
    "the account's own key": (lambda a: make_csr(a.names, key=a.owner.key), "an account key"),
    "another account's key": (account_of("default"), "an account key as its key"),
    "key of an account of the other community": (account_of("other"), "an account key"),
    "RSA key of another account": (account_of("default", "RS256"), "an account key"),
}  # fmt: skip
"""C2 and C6: what does not parse, does not verify, or is the key of an account."""

KEYS: dict[str, tuple[Make, str]] = {
    "RSA of 1024 bits": (of_key(lambda: weak_keys.sized(1024)), "rsa-1024, allowed: ec-p256"),
    "RSA of 2047 bits": (of_key(lambda: weak_keys.sized(2047)), "rsa-2047, allowed"),
    "RSA of 2056 bits": (of_key(lambda: weak_keys.sized(2056)), "rsa-2056, allowed"),
    "RSA of 4104 bits": (of_key(lambda: weak_keys.sized(4104)), "rsa-4104, allowed"),
    "RSA exponent 3": (of_key(lambda: weak_keys.sized(2048, 3)), "exponent is 3, expected"),
    "RSA exponent 17": (of_key(lambda: weak_keys.sized(2048, 17)), "exponent is 17"),
    "RSA primes close": (of_key(weak_keys.close_primes), "CVE-2022-26320"),
    "RSA of a faulty chip": (of_key(weak_keys.roca), "CVE-2017-15361"),
    "RSA with a small factor": (of_key(weak_keys.small_factor), "prime factor of at most"),
    "RSA with a pattern": (of_key(weak_keys.repeating), "repeats a byte"),
    "P-224": (of_key(lambda: private_key("P-224", "csr")), "ec-secp224r1, allowed"),
    "P-521": (of_key(lambda: private_key("ES512", "csr")), "ec-p521, allowed"),
    "secp256k1": (of_key(lambda: private_key("secp256k1", "csr")), "ec-secp256k1, allowed"),
    "brainpool": (of_key(lambda: ec.generate_private_key(ec.BrainpoolP256R1())),
                  "brainpoolp256r1, allowed"),
    "Ed25519": (of_key(lambda: private_key("EdDSA", "csr")), "ed25519, allowed"),
    "Ed448": (of_key(ed448.Ed448PrivateKey.generate), "ed448, allowed"),
    "on the operator's list": (of_key(lambda: BLOCKED_KEY), "on the block list 'blocked.txt'"),
}  # fmt: skip
"""C3 and C4: keys that policy does not allow, or that somebody could find."""


def pem_of(csr_der: bytes) -> bytes:
    """Return a CSR in PEM."""
    return x509.load_der_x509_csr(csr_der).public_bytes(Encoding.PEM)


def deep(levels: int) -> bytes:
    """Return sequences within sequences."""
    data = b""
    for _ in range(levels):
        data = der.sequence(data)
    return data


TABLE = {
    **{f"{word}: {label}": (make, BAD_CSR, says)
       for word, table in (("names", NAMES), ("extensions", EXTENSIONS), ("form", FORM))
       for label, (make, says) in table.items()},
    **{f"key: {label}": (make, BAD_KEY, says) for label, (make, says) in KEYS.items()},
    "key: RSA with a short private exponent":
        (of_key(weak_keys.small_private_exponent), BAD_CSR, "exponent|does not parse"),
}  # fmt: skip
