"""A decryption key is sealed before its first use; a key that signs never is."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from agents.config import CertificateSection, KeyKind, KeySection
from agents.sealing import SealFault, seal_key, sealed_path
from tests.fakes.node_authority import Issue, Node, craft_here, pem_of

RECOVERY = rsa.generate_private_key(65537, 2048)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    craft_here(monkeypatch)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A node with the organisation's recovery certificate."""
    return Node(tmp_path)


def recovery(node: Node) -> x509.Certificate:
    """Return the recovery certificate, put where the configuration names it."""
    issue = Issue((), common_name="recovery", usages=("key_encipherment",), server_auth=False)
    made = node.authority.sign(RECOVERY, issue, issuer=None, key=RECOVERY)
    (node.home / "recovery.pem").write_text(pem_of(made), encoding="ascii")
    return made


def section(node: Node) -> CertificateSection:
    """Return a certificate whose key is to be sealed."""
    key = KeySection(kind=KeyKind.RSA_2048, seal_to=str(node.home / "recovery.pem"))
    return node.section(name="mail", names=["post@www.example"], key=key)


def test_a_decryption_key_is_sealed_to_the_recovery_certificate(node: Node) -> None:
    """The organisation opens it; the copy is made once and readable by its owner alone."""
    certificate = recovery(node)
    wanted = section(node)
    issue = Issue(wanted.names, usages=("key_encipherment",), server_auth=False)
    verified, key = node.obtain(wanted, issue)
    path = seal_key(wanted, verified, key, state_dir=str(node.state))
    assert path == sealed_path("mail", verified.spki_sha256, str(node.state))
    octets = Path(path).read_bytes()
    assert pkcs7.pkcs7_decrypt_der(octets, certificate, RECOVERY, []) == Path(key).read_bytes()
    assert Path(path).stat().st_mode & 0o777 == 0o600
    assert seal_key(wanted, verified, key, state_dir=str(node.state)) == path
    assert Path(path).read_bytes() == octets


@pytest.mark.parametrize(
    "usages",
    [("digital_signature", "key_encipherment"), ("content_commitment",), None, ("encipher_only",)],
    ids=["both", "signs", "not stated", "neither"],
)
def test_a_key_that_may_sign_is_never_sealed(node: Node, usages: tuple[str, ...] | None) -> None:
    """Whoever has a copy could sign as its owner; where it is not said, it may."""
    recovery(node)
    wanted = section(node)
    if usages == ("encipher_only",):
        usages = ("crl_sign",)
    verified, key = node.obtain(wanted, Issue(wanted.names, usages=usages))
    with pytest.raises(SealFault, match="never sealed"):
        seal_key(wanted, verified, key, state_dir=str(node.state))
    assert not Path(sealed_path("mail", verified.spki_sha256, str(node.state))).exists()


def test_nothing_is_sealed_unasked(node: Node) -> None:
    """Most keys are not."""
    wanted = node.section()
    verified, key = node.obtain(wanted)
    assert seal_key(wanted, verified, key, state_dir=str(node.state)) is None


def test_what_cannot_be_sealed_is_not_used(node: Node) -> None:
    """A recovery certificate that is not there, and a key that cannot be brought out."""
    wanted = section(node)
    issue = Issue(wanted.names, usages=("key_encipherment",), server_auth=False)
    verified, key = node.obtain(wanted, issue)
    with pytest.raises(SealFault, match=r"recovery\.pem"):
        seal_key(wanted, verified, key, state_dir=str(node.state))
    recovery(node)
    with pytest.raises(SealFault, match="on a token"):
        seal_key(wanted, verified, "pkcs11:token=w", state_dir=str(node.state))
