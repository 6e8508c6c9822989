"""Keys that must not be certified."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.errors import Broken
from broker.keys.weakness import OfflineKeyInspector, find_weaknesses, parse_block_list
from broker.protocol.csr import ParsedCsr, parse_csr
from tests.unit.keys import weak_keys


def made(modulus: Callable[[], int], e: int = 65537) -> Callable[[], rsa.RSAPublicKey]:
    """Return what makes the key; its primes are looked for in the test, not in collecting it."""
    return lambda: weak_keys.public_key(modulus(), e)


def sized(bits: int) -> Callable[[], rsa.RSAPublicKey]:
    """Return what makes a key of *bits* bits that has no other fault."""
    return made(lambda: weak_keys.good_modulus(bits))


def small_private_exponent() -> rsa.RSAPublicKey:
    """Return a key whose public exponent is as long as the modulus."""
    return weak_keys.public_key(*weak_keys.small_private_exponent())


GOOD = weak_keys.good_modulus

WEAK = [
    pytest.param(made(weak_keys.close_primes), "two primes so close", id="fermat"),
    pytest.param(made(weak_keys.roca_shaped), "ROCA", id="roca"),
    pytest.param(made(weak_keys.small_factor), "factor of at most", id="small-factor"),
    pytest.param(small_private_exponent, "private exponent so small", id="small-private-exponent"),
    pytest.param(made(weak_keys.repeating), "repeats a byte", id="pattern"),
    pytest.param(made(GOOD, 3), "exponent is 3, expected an odd one from 65537", id="exponent-3"),
    pytest.param(made(GOOD, 17), "exponent is 17", id="exponent-17"),
    pytest.param(sized(1024), "1024 bits, expected 2048", id="1024"),
    pytest.param(sized(2047), "2047 bits, expected 2048", id="2047"),
    pytest.param(sized(2052), "multiple of 8", id="2052"),
    pytest.param(sized(4104), "expected 2048 to 4096", id="4104"),
]


@pytest.mark.parametrize(("key", "words"), WEAK)
def test_a_weak_rsa_key_is_found_and_named(key: Callable[[], rsa.RSAPublicKey], words: str) -> None:
    """The sentence says which weakness it is."""
    found = find_weaknesses(key())
    assert [sentence for sentence in found if words in sentence], found


@pytest.mark.parametrize("bits", [2048, 3072, 4096])
def test_a_good_rsa_key_passes(bits: int) -> None:
    """The same look finds nothing against a sound key."""
    assert find_weaknesses(weak_keys.public_key(weak_keys.good_modulus(bits))) == ()


def test_a_key_beyond_the_limit_is_not_looked_into() -> None:
    """Checks whose time grows with the size are not run on a size made to be slow."""
    n = weak_keys.small_factor() * weak_keys.prime(7, 2100)
    assert find_weaknesses(weak_keys.public_key(n)) == (
        "RSA key has 4148 bits, expected 2048 to 4096",
    )


def csr_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> ParsedCsr:
    """Return a CSR of *key*, parsed."""
    san = x509.SubjectAlternativeName([x509.DNSName("www.example.com")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(san, critical=False)
        .sign(key, hashes.SHA256())
    )
    return parse_csr(request.public_bytes(Encoding.DER))


def spki_sha256(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    """Return the line of a block list for *key*."""
    spki = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


async def test_good_keys_pass_the_inspector() -> None:
    """Sound keys of both families have nothing against them."""
    inspector = OfflineKeyInspector()
    elliptic, modular = (
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
    )
    assert list(await inspector.inspect(csr_of(elliptic))) == []
    assert list(await inspector.inspect(csr_of(modular))) == []


async def test_a_small_rsa_key_fails_the_inspector() -> None:
    """A CSR of a key that is too small parses, and is told."""
    key = rsa.generate_private_key(65537, 1024)
    found = await OfflineKeyInspector().inspect(csr_of(key))
    assert list(found) == ["RSA key has 1024 bits, expected 2048 to 4096"]


async def test_a_blocked_key_is_found_and_another_passes(tmp_path: Path) -> None:
    """The operator's list speaks of the very key, and of every family."""
    blocked, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    path = tmp_path / "leaked.txt"
    path.write_text(f"# found in an image\n\n{spki_sha256(blocked).upper()}  # host 7\n")
    inspector = OfflineKeyInspector([path])
    assert list(await inspector.inspect(csr_of(blocked))) == [
        "key is on the block list 'leaked.txt'"
    ]
    assert list(await inspector.inspect(csr_of(other))) == []


@pytest.mark.parametrize(
    ("content", "line"),
    [
        pytest.param(b"# ok\nabc\n", 2, id="short"),
        pytest.param(b"\n\n" + b"0" * 63 + b"g\n", 3, id="not-hex"),
        pytest.param(b"0" * 65 + b"\n", 1, id="long"),
        pytest.param(b"0" * 64 + b" " + b"1" * 64 + b"\n", 1, id="two-on-a-line"),
        pytest.param(b"# ok\n\xff\n", 2, id="not-utf-8"),
    ],
)
def test_a_malformed_line_is_named(content: bytes, line: int) -> None:
    """A list that is half understood protects half: the whole of it is refused."""
    with pytest.raises(Broken, match=f"^leaked.txt:{line}: "):
        parse_block_list(content, source="leaked.txt")


def test_a_list_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A block list that has gone does not become an empty one."""
    with pytest.raises(Broken, match=r"block list .*gone\.txt cannot be read"):
        OfflineKeyInspector([tmp_path / "gone.txt"])
