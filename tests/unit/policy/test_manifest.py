"""Manifests of signed policies: one spelling, and signatures that count once a person."""

import base64
import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.policy.manifest import (
    MANIFEST_NAME,
    Manifest,
    Seal,
    VerifyKey,
    digest_lines,
    is_bundle_file,
    key_fingerprint,
    parse_manifest,
    parse_verify_key,
    set_digest,
    verify_bundle,
)
from broker.policy.yamlfile import Faults

ANNA = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
BEN = ec.derive_private_key(7, ec.SECP256R1())
EVE = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))
KEYS: dict[str, VerifyKey] = {"anna": ANNA.public_key(), "ben": BEN.public_key()}
FILES = {"default.yaml": b"a: 1\n", "communities/web.yaml": b"b: 2\n"}


def digests(files: dict[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each file."""
    return {name: hashlib.sha256(octets).hexdigest() for name, octets in files.items()}


def manifest(version: int = 7, audience: str = "penstock") -> bytes:
    """Return the manifest of FILES."""
    return str(Manifest(audience=audience, version=version, files=digests(FILES))).encode()


def anna(octets: bytes) -> bytes:
    """Sign as openssl writes it: 64 octets."""
    return ANNA.sign(octets)


def ben(octets: bytes) -> bytes:
    """Sign with ECDSA, in base64."""
    return base64.b64encode(BEN.sign(octets, ec.ECDSA(hashes.SHA256()))) + b"\n"


def signed(octets: bytes, *signers: Callable[[bytes], bytes]) -> dict[str, bytes]:
    """Return a manifest with signatures over it."""
    made = {f"bundle.{number}.sig": sign(octets) for number, sign in enumerate(signers)}
    return {MANIFEST_NAME: octets, **made}


def verified(bundle: dict[str, bytes], files: dict[str, bytes] | None = None) -> Seal:
    """Return what is proved where both have to sign."""
    return verify_bundle(files or FILES, bundle, keys=KEYS, needed=2, audience="penstock")


def faults(bundle: dict[str, bytes], files: dict[str, bytes] | None = None) -> list[str]:
    """Return what is said against it."""
    with pytest.raises(Faults) as caught:
        verified(bundle, files)
    return [f"{one.source}: {one.message}" for one in caught.value.faults]


def test_manifest_is_what_sha256sum_prints_below_three_lines() -> None:
    """So that anybody can make and check it without us."""
    digest = digests(FILES)
    assert manifest().decode() == (
        "penstock-policy-bundle: 1\nfor: penstock\nversion: 7\n"
        f"{digest['communities/web.yaml']}  communities/web.yaml\n"
        f"{digest['default.yaml']}  default.yaml\n"
    )
    assert parse_manifest(manifest()).files == digest


def test_digest_of_a_set_is_over_its_lines() -> None:
    """Whatever the order in which the files were read."""
    digest = digests(FILES)
    assert set_digest(digest) == hashlib.sha256(digest_lines(digest).encode()).hexdigest()
    assert set_digest(dict(reversed(digest.items()))) == set_digest(digest)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("bundle: 1", "bundle: 2"), "does not begin with"),
        (lambda text: text.removesuffix("\n"), "ends in the middle of a line"),
        (lambda text: text.replace("version: 7", "version: 07"), "expected 'version: '"),
        (lambda text: text.replace("version: 7", "version: -1"), "expected 'version: '"),
        (lambda text: text.replace("for: penstock", "for: "), "expected 'for: '"),
        (lambda text: text.replace("  default", " *default"), "no line of sha256sum"),
        (lambda text: text + text.splitlines()[-1] + "\n", "names a file twice"),
        (lambda text: text.replace("\n", "\r\n"), "does not begin with"),
        (lambda text: text.replace("7\n", "7\n" + "0" * 64 + "  z.yaml\n"), "order of the names"),
        (lambda text: text[:0], "does not begin with"),
    ],
    ids=["head", "cut", "zero", "sign", "audience", "star", "twice", "crlf", "order", "empty"],
)
def test_manifest_has_one_spelling(change: Callable[[str], str], words: str) -> None:
    """Two texts that mean the same would be two things to sign."""
    with pytest.raises(Faults, match=words):
        parse_manifest(change(manifest().decode()).encode())


def test_manifest_that_is_no_text_is_refused() -> None:
    """And one that is far too long."""
    with pytest.raises(Faults, match="is not UTF-8"):
        parse_manifest(b"\xff" + manifest())
    with pytest.raises(Faults, match="the limit is"):
        parse_manifest(bytes(2 * 1024 * 1024))


def test_signatures_of_enough_people_prove_the_version() -> None:
    """In both kinds and both spellings."""
    found = verified(signed(manifest(), anna, ben))
    assert found == Seal(version=7, signers=("anna", "ben"))


def test_one_person_counts_once() -> None:
    """However often they sign, and whatever their files are called."""
    (said,) = faults(signed(manifest(), anna, anna, anna))
    assert said == f"{MANIFEST_NAME}: is signed by anna, which is 1 of 2 who have to sign it"


def test_stranger_counts_for_nothing() -> None:
    """Nor does a signature over another manifest."""
    assert "is signed by anna," in faults(signed(manifest(), anna, EVE.sign))[0]
    other = signed(manifest(), anna) | {"bundle.x.sig": ben(manifest(version=8))}
    assert "is signed by anna," in faults(other)[0]
    assert "is signed by nobody," in faults({MANIFEST_NAME: manifest()})[0]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (FILES | {"default.yaml": b"a: 2\n"}, "default.yaml: is not as it was signed"),
        (FILES | {"more.yaml": b"c: 3\n"}, "more.yaml: is not in the signed manifest"),
        ({"default.yaml": b"a: 1\n"}, "lists communities/web.yaml, which is not there"),
    ],
    ids=["changed", "added", "taken away"],
)
def test_every_file_is_covered(files: dict[str, bytes], words: str) -> None:
    """Octet for octet, none more and none less."""
    assert any(words in said for said in faults(signed(manifest(), anna, ben), files))


def test_unsigned_set_is_refused() -> None:
    """Once signed ones are demanded."""
    assert faults({}) == [f"{MANIFEST_NAME}: is not there, and only signed policies are taken"]


def test_set_for_other_brokers_is_refused() -> None:
    """What was signed for the laboratory is none for production."""
    (said,) = faults(signed(manifest(audience="lab"), anna, ben))
    assert "is for 'lab', this broker takes those for 'penstock'" in said


@pytest.mark.parametrize("key", [ANNA, BEN], ids=["ed25519", "p-256"])
def test_key_is_read_from_pem_or_its_body(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    """As openssl prints it."""
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    body = "".join(pem.splitlines()[1:-1])
    expected = key_fingerprint(key.public_key())
    assert {key_fingerprint(parse_verify_key(text)) for text in (pem, body)} == {expected}


def test_other_keys_do_not_sign() -> None:
    """A curve that is not agreed on, and what is no key."""
    curve = ec.derive_private_key(7, ec.SECP384R1()).public_key()
    text = base64.b64encode(curve.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ValueError, match="another kind"):
        parse_verify_key(text.decode())
    with pytest.raises(ValueError, match="is no public key"):
        parse_verify_key("c2VjcmV0")


def test_files_of_a_bundle_are_known_by_name() -> None:
    """Nothing else is taken for one."""
    assert is_bundle_file("bundle.manifest")
    assert is_bundle_file("bundle.anna.sig")
    for name in ("bundle.yaml", "bundle..sig", "bundle.a/b.sig", "x.bundle.anna.sig"):
        assert not is_bundle_file(name)
