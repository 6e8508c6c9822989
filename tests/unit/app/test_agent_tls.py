"""TLS of the agents' listener: the newest pair, every anchor, and client certificates by choice."""

import ssl
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from broker.app.agent_tls import AgentTls
from broker.app.own_files import PairFiles
from tests.fakes.builtin_ca import CaWorld, make_world, request, spki
from tests.fakes.node_world import AgentKey


async def pair(folder: Path, world: CaWorld, reference: str = "own") -> PairFiles:
    """Write a certificate and its key."""
    key = AgentKey().private
    chain = await world.ca.certify(request(reference=reference), spki(key))
    files = PairFiles(folder / "tls.crt", folder / "tls.key", b"a passphrase")
    files.put(chain, key)
    return files


async def test_client_certificates_are_asked_for_and_not_demanded(tmp_path: Path) -> None:
    """Where a load balancer ends TLS, agents sign instead."""
    world = await make_world()
    files = await pair(tmp_path, world)
    tls = AgentTls(files, frozenset, None)
    assert tls.front.verify_mode is ssl.CERT_OPTIONAL
    assert tls.front.minimum_version is ssl.TLSVersion.TLSv1_2
    assert tls.front.verify_flags & ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN


async def test_new_anchors_and_a_new_pair_are_taken_in(tmp_path: Path) -> None:
    """And nothing is made anew while nothing has changed."""
    world = await make_world()
    files = await pair(tmp_path, world)
    root = world.root.certificate.public_bytes(Encoding.DER)
    issuing = world.issuing.certificate.public_bytes(Encoding.DER)
    anchors = {root}
    tls = AgentTls(files, lambda: frozenset(anchors), None)
    tls.refresh()
    first = tls._shown
    assert first is not None
    tls.refresh()
    assert tls._shown is first
    anchors.add(issuing)
    tls.refresh()
    second = tls._shown
    assert second is not None
    assert set(second.get_ca_certs(binary_form=True)) == {root, issuing}
    await pair(tmp_path, world, "another")
    tls.refresh()
    assert tls._shown is not second


async def test_what_cannot_be_used_leaves_all_as_it_was(tmp_path: Path) -> None:
    """Agents go on with the pair that was there."""
    world = await make_world()
    files = await pair(tmp_path, world)
    tls = AgentTls(files, frozenset, None)
    tls.refresh()
    shown = tls._shown
    files.certificate.write_text("no certificate at all")
    tls.refresh()
    assert tls._shown is shown


async def test_handshake_without_a_pair_is_refused(tmp_path: Path) -> None:
    """By an alert, not by a fault of ours."""
    files = PairFiles(tmp_path / "tls.crt", tmp_path / "tls.key", None)
    tls = AgentTls(files, frozenset, None)
    tls.refresh()
    alert = tls._choose(ssl.SSLObject.__new__(ssl.SSLObject), None, tls.front)
    assert alert == ssl.ALERT_DESCRIPTION_INTERNAL_ERROR
