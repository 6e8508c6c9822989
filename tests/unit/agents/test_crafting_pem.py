"""Certificates and keys found in PEM."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agents.crafting_pem import first_key, pem_certificates, to_pem
from agents.crafting_ports import CraftFault
from tests.fakes.node_authority import NodeAuthority, key_pem


def test_certificates_come_out_as_they_were_written() -> None:
    """In their order, whatever stands between them and however lines end."""
    authority = NodeAuthority()
    text = authority.certify_key(ec.generate_private_key(ec.SECP256R1()))
    found = pem_certificates("subject=/CN=x\n" + text.replace("\n", "\r\n") + "# a note\n")
    assert len(found) == 2
    assert to_pem(found).decode() == text


def test_nothing_is_found_where_nothing_is() -> None:
    """Keys and requests are no certificates."""
    assert pem_certificates(key_pem(ec.generate_private_key(ec.SECP256R1())).decode()) == []


def test_what_is_no_base64_is_refused() -> None:
    """It is a fault, not less than was sent."""
    with pytest.raises(CraftFault, match="no base64"):
        pem_certificates("-----BEGIN CERTIFICATE-----\nAAA=A\n-----END CERTIFICATE-----\n")


def test_the_one_key_is_found_among_certificates() -> None:
    """A combined file gives its key alone."""
    key = ec.generate_private_key(ec.SECP256R1())
    chain = NodeAuthority().certify_key(key).encode()
    assert first_key(chain + key_pem(key) + chain) == key_pem(key)


@pytest.mark.parametrize("count", [0, 2])
def test_none_and_two_keys_are_refused(count: int) -> None:
    """Nobody has said which is meant."""
    text = b"".join(key_pem(ec.generate_private_key(ec.SECP256R1())) for _ in range(count))
    with pytest.raises(CraftFault, match=f"{count} private keys"):
        first_key(text)


@pytest.mark.parametrize(
    "text",
    [
        b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        (
            b"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n"
            b"AAAA\n-----END RSA PRIVATE KEY-----\n"
        ),
    ],
    ids=["PKCS#8", "traditional"],
)
def test_an_encrypted_key_is_named_as_such(text: bytes) -> None:
    """Nobody is there to type a password."""
    with pytest.raises(CraftFault, match="encrypted"):
        first_key(text)
