"""The TLS server and client that end the demonstration, against each other on loopback."""

import hashlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.demo.processes import DemoFailed
from broker.demo.serving import serve_and_look
from tests.peers import authority

NAME = "www.demo.internal"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A chain, its key, and the root that it leads to."""
    root = authority.make_root("demo test")
    directory = tmp_path_factory.mktemp("pair")
    return authority.write_server_files(directory, authority.make_server(root, [NAME]), root)


async def test_client_sees_the_certificate_that_is_served(pair: tuple[Path, Path, Path]) -> None:
    """By its fingerprint, over a modern protocol, with an answer through it."""
    chain, key, root = pair
    seen = await serve_and_look(NAME, chain=chain, key=key, root=root)
    leaf = x509.load_pem_x509_certificate(chain.read_bytes())
    assert seen.fingerprint == hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()
    assert seen.protocol == "TLSv1.3"
    assert seen.answer == "hello over TLS"


async def test_client_does_not_accept_another_name(pair: tuple[Path, Path, Path]) -> None:
    """A demonstration that any certificate passes would show nothing."""
    chain, key, root = pair
    with pytest.raises(DemoFailed, match="the TLS client did not accept the certificate"):
        await serve_and_look("www.other.internal", chain=chain, key=key, root=root)


async def test_client_does_not_accept_another_root(
    pair: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """It trusts the one it was given and no other."""
    chain, key, _ = pair
    other = tmp_path / "other.pem"
    other.write_bytes(authority.make_root("somebody else").certificate_pem)
    with pytest.raises(DemoFailed, match="the TLS client did not accept the certificate"):
        await serve_and_look(NAME, chain=chain, key=key, root=other)
