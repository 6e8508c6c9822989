"""TLS of the operator API: 1.3 alone, no session that outlives its anchors, anchors from a file."""

import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.operator_tls import OperatorTls, read_anchors
from broker.issuance.errors import Broken
from tests.fakes.builtin_ca import make_world
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
