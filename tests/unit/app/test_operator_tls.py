"""TLS of the operator API: 1.3 alone, no session that outlives its anchors, anchors from a file."""

import ssl
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.operator_tls import OperatorTls, read_anchors
from broker.issuance.errors import Broken
from tests.fakes.builtin_ca import make_world
from tests.fakes.clock import START
from tests.unit.app.test_agent_tls import pair


async def test_front_speaks_tls_1_3_alone_and_resumes_nothing(tmp_path: Path) -> None:
    """A resumed session would not be verified by the anchors of now."""
    tls = OperatorTls(await pair(tmp_path, await make_world()), frozenset)
    assert tls.front.minimum_version is ssl.TLSVersion.TLSv1_3
    assert tls.front.num_tickets == 0
    assert tls.front.options & ssl.OP_NO_TICKET
    assert tls.front.verify_mode is ssl.CERT_OPTIONAL
    assert not tls.front.verify_flags & ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN


async def test_connection_is_current_for_as_long_as_its_anchors_are(tmp_path: Path) -> None:
    """A new pair of the broker's own ends nothing."""
    world = await make_world()
    files = await pair(tmp_path, world)
    anchors = {world.root.certificate.public_bytes(Encoding.DER)}
    tls = OperatorTls(files, lambda: frozenset(anchors))
    tls.refresh()
    shown = tls._shown
    assert shown is not None
    connection = shown.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_side=True)
    assert tls.is_current(connection)
    await pair(tmp_path, world, "another")
    tls.refresh()
    assert tls._shown is not shown
    assert tls.is_current(connection)
    anchors.add(world.issuing.certificate.public_bytes(Encoding.DER))
    assert not tls.is_current(connection)


async def test_anchors_are_those_of_the_file(tmp_path: Path) -> None:
    """And without a file there are none."""
    world = await make_world()
    path = tmp_path / "anchors.pem"
    path.write_bytes(world.root.certificate.public_bytes(Encoding.PEM))
    assert read_anchors(path) == {world.root.certificate.public_bytes(Encoding.DER)}
    assert read_anchors(None) == frozenset()


@pytest.mark.parametrize("content", [None, b"", b"no PEM"], ids=["missing", "empty", "other"])
def test_anchors_that_cannot_be_used_are_told(tmp_path: Path, content: bytes | None) -> None:
    """With the path."""
    path = tmp_path / "anchors.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(Broken, match=str(path)):
        read_anchors(path)


@pytest.mark.parametrize("usage", [None, False], ids=["none", "signs-nothing"])
def test_anchors_that_certify_nobody_are_told(tmp_path: Path, usage: bool | None) -> None:
    """OpenSSL would end each connection without a word; this says which certificate it is."""
    path = tmp_path / "anchors.pem"
    path.write_bytes(self_signed(usage=usage))
    with pytest.raises(Broken, match="'CN=people' has no key usage keyCertSign"):
        read_anchors(path)
    path.write_bytes(self_signed(usage=True))
    assert len(read_anchors(path)) == 1


def self_signed(*, usage: bool | None) -> bytes:
    """Return a CA whose key usage lets it sign certificates or not; None: it has none."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "people")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(START + timedelta(days=1))
    )
    if usage is not None:
        builder = builder.add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=usage,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
