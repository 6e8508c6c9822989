"""What certbot does through Penstock, looked at closely; `test_matrix.py` has every client."""

import secrets
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.deployments.cas import WEB_ZONE, Deployment
from tests.peers.certbot import Certbot
from tests.peers.client import ClientFailed, Obtained

pytestmark = pytest.mark.peers


def fresh_names() -> list[str]:
    """Return names that no other test uses, which every CA proves by http-01."""
    label = f"h{secrets.token_hex(4)}"
    return [f"{label}.{WEB_ZONE}", f"{label}-b.{WEB_ZONE}"]


def check_obtained(obtained: Obtained, names: list[str], deployment: Deployment) -> None:
    """See that key, names, chain and origin are as asked for."""
    leaf = obtained.leaf()
    assert obtained.names() == sorted(names)
    chain = [leaf, *obtained.issuers()]
    root = x509.load_pem_x509_certificate(deployment.root_pem())
    for child, issuer in zip(chain, [*chain[1:], root], strict=True):
        if child != issuer:
            child.verify_directly_issued_by(issuer)
    assert obtained.key is not None
    key = serialization.load_pem_private_key(obtained.key.read_bytes(), None)
    assert key.public_key() == leaf.public_key()
    assert leaf.serial_number in deployment.issued_serials()


async def test_certbot_obtains_renews_and_revokes(deployment: Deployment, tmp_path: Path) -> None:
    """Certbot's three verbs work with http-01 on both sides, the CA's own records agreeing."""
    names = fresh_names()
    client = Certbot(
        tmp_path / "certbot", deployment.penstock.directory_url, deployment.penstock.ca_bundle
    )
    obtained = await client.certonly_standalone(names, http_port=deployment.client_port)
    check_obtained(obtained, names, deployment)
    first = obtained.leaf()

    await client.renew()
    renewed = client.obtained(names[0])
    check_obtained(renewed, names, deployment)
    assert renewed.leaf().serial_number != first.serial_number

    assert not await deployment.is_revoked(renewed.leaf())
    await client.revoke(renewed, reason="superseded")
    assert await deployment.is_revoked(renewed.leaf())
    with pytest.raises(ClientFailed, match="is revoked already"):
        await client.revoke(renewed)


async def test_certificate_key_revokes(deployment: Deployment, tmp_path: Path) -> None:
    """The holder of the certificate's key revokes it without the account that ordered it."""
    names = fresh_names()[:1]
    url, bundle = deployment.penstock.directory_url, deployment.penstock.ca_bundle
    client = Certbot(tmp_path / "owner", url, bundle)
    obtained = await client.certonly_standalone(names, http_port=deployment.client_port)
    stranger = Certbot(tmp_path / "stranger", url, bundle)
    await stranger.run(["register"])
    with pytest.raises(ClientFailed):
        await stranger.revoke(obtained)
    assert not await deployment.is_revoked(obtained.leaf())
    await stranger.revoke(obtained, by_certificate_key=True)
    assert await deployment.is_revoked(obtained.leaf())


async def test_csr_reaches_the_ca_byte_for_byte(deployment: Deployment, tmp_path: Path) -> None:
    """A CSR made elsewhere, its key never shown to anyone, comes back certified for that key."""
    names = fresh_names()[:1]
    key = ec.generate_private_key(ec.SECP256R1())
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(names[0])]), critical=False)
        .sign(key, hashes.SHA256())
    )
    csr_file = tmp_path / "request.pem"
    csr_file.write_bytes(csr.public_bytes(serialization.Encoding.PEM))
    client = Certbot(
        tmp_path / "certbot", deployment.penstock.directory_url, deployment.penstock.ca_bundle
    )
    obtained = await client.certonly_standalone(
        names, http_port=deployment.client_port, csr=csr_file
    )
    assert obtained.leaf().public_key() == key.public_key()
    orders = await deployment.penstock.a_json("order", "list")
    shown = await deployment.penstock.a_json("order", "show", orders[0]["order"])
    digest = hashes.Hash(hashes.SHA256())
    digest.update(csr.public_bytes(serialization.Encoding.DER))
    assert shown["csr_sha256"] == digest.finalize().hex()
