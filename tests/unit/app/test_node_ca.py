"""The node CA: identities for nodes, and anchors for as long as one may be alive."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.app.node_ca import NodeCa
from broker.config.agents import NodeIdentity
from broker.issuance.errors import Broken
from broker.upstreams.authority import AuthorityPlan, IssuerSet, PermittedNames, create_issuing
from tests.fakes.builtin_ca import DAY, CaWorld, make_world, spki

SECTION = NodeIdentity(upstream="nodes", profile="client")


async def world_of_nodes() -> tuple[CaWorld, NodeCa]:
    """Return a CA that certifies nodes."""
    made = await make_world(permitted=PermittedNames(("node.penstock.internal",)))
    return made, NodeCa(SECTION, {"nodes": made.ca}.get)


async def test_identity_names_the_node_by_its_id_and_is_for_clients() -> None:
    """The leaf alone is given: the broker knows its own issuers."""
    _, node_ca = await world_of_nodes()
    key = ec.generate_private_key(ec.SECP256R1())
    made = await node_ca.issue("0ab1", spki(key), "reference-1")
    (leaf,) = x509.load_pem_x509_certificates(made.chain_pem)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["0ab1.node.penstock.internal"]
    usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert (made.not_after, made.certificate_der) == (
        leaf.not_valid_after_utc, leaf.public_bytes(Encoding.DER),
    )  # fmt: skip


async def test_same_reference_has_the_same_identity() -> None:
    """And another reference another one."""
    _, node_ca = await world_of_nodes()
    key = spki(ec.generate_private_key(ec.SECP256R1()))
    first = await node_ca.issue("0ab1", key, "reference-1")
    assert await node_ca.issue("0ab1", key, "reference-1") == first
    assert await node_ca.issue("0ab1", key, "reference-2") != first


async def test_revoked_identity_is_on_the_list_once() -> None:
    """A second revocation is no error."""
    made, node_ca = await world_of_nodes()
    key = spki(ec.generate_private_key(ec.SECP256R1()))
    identity = await node_ca.issue("0ab1", key, "reference-1")
    await node_ca.revoke(identity.certificate_der)
    await node_ca.revoke(identity.certificate_der)
    published = await made.ca.current_crl(made.issuing.published_name)
    assert published is not None
    crl = x509.load_der_x509_crl(published.der)
    assert [one.serial_number for one in crl] == [
        x509.load_der_x509_certificate(identity.certificate_der).serial_number
    ]


async def test_issuers_stay_anchors_when_the_ca_rolls_over() -> None:
    """The past one, the current one, and the root: whoever signed what may be alive."""
    made, node_ca = await world_of_nodes()
    before = node_ca.anchors()
    plan = AuthorityPlan(key_id="issuing-2", subject="CN=Issuing 2", lifetime=365 * DAY)
    second = await create_issuing(made.signer, made.clock, plan, made.root)
    made.ca.adopt(IssuerSet(second, past=(made.issuing,)))
    after = node_ca.anchors()
    assert before < after
    ders = [one.certificate.public_bytes(Encoding.DER) for one in (made.issuing, second, made.root)]
    assert after == frozenset(ders)


async def test_ca_that_was_not_made_is_told_to_the_operator() -> None:
    """Nobody can be let in, and nobody is believed."""
    node_ca = NodeCa(SECTION, lambda _name: None)
    with pytest.raises(Broken, match="ca init"):
        await node_ca.issue("0ab1", b"", "reference-1")
    assert node_ca.anchors() == frozenset()
