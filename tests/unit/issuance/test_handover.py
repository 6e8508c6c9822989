"""Chains: which is served, which others are, and what never gets to a client."""

from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.issuance.errors import Broken, Refused, Unreachable
from broker.issuance.events import EventKind
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import OrderStatus
from tests.fakes.fake_upstream import CaOrder, FakeUpstream
from tests.fakes.world import World, leaf_of, make_csr

NAME = "www.example.com"
DAY = timedelta(days=1)


class CrossSigner:
    """Another root that has certified the CA's own key."""

    def __init__(self, ca: FakeUpstream, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.root = self._certify(ca, subject, subject, self.key.public_key())
        self.crossed = self._certify(ca, ca.root.subject, subject, ca.root.public_key())

    def chain(self, order: CaOrder) -> bytes:
        """Return the chain of an order's certificate that leads to this root."""
        leaf = x509.load_der_x509_certificate(order.leaf_der)
        return leaf.public_bytes(Encoding.PEM) + self.crossed.public_bytes(Encoding.PEM)

    def _certify(
        self, ca: FakeUpstream, subject: x509.Name, issuer: x509.Name, key: Any
    ) -> x509.Certificate:
        start = ca.root.not_valid_before_utc
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + 3650 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )


def offering(world: World, *names: str) -> list[CrossSigner]:
    """Let the CA offer a chain to a root of each of these names, beside its own."""
    signers = [CrossSigner(world.ca, name) for name in names]
    world.ca.alternates = lambda order: [signer.chain(order) for signer in signers]
    return signers


async def chains(world: World) -> list[bytes]:
    """Order a certificate and return all its chains, the default one first."""
    client = await world.client()
    order = await client.issue(NAME)
    handed = [await world.renewing.handover.certificate(client.account, order.certificate_id or "")]
    for number in range(1, handed[0].chains):
        handed.append(
            await world.renewing.handover.certificate(
                client.account, order.certificate_id or "", number
            )
        )
    return [each.chain_pem for each in handed]


async def test_other_chains_are_kept_in_the_order_of_the_ca(world: World) -> None:
    """The first is the default; all have the one leaf."""
    one, two = offering(world, "One", "Two")
    found = await chains(world)
    issued = world.ca.issued[0]
    assert found == [issued.chain_pem, one.chain(issued), two.chain(issued)]
    assert len({leaf_of(pem) for pem in found}) == 1


@pytest.mark.parametrize("by", ["name", "fingerprint of the root", "fingerprint of the topmost"])
async def test_preferred_chain_is_the_default_and_the_first_is_still_to_be_had(
    world: World, by: str
) -> None:
    """By the name of the issuer that the topmost certificate names, or by a fingerprint."""
    _, two = offering(world, "One", "Two")
    wish = {
        "name": "Two",
        "fingerprint of the root": two.root.fingerprint(hashes.SHA256()).hex(),
        "fingerprint of the topmost": two.crossed.fingerprint(hashes.SHA256()).hex(),
    }[by]
    world.anchors.ders = [
        world.ca.root.public_bytes(Encoding.DER),
        two.root.public_bytes(Encoding.DER),
    ]
    if by == "name":
        world.anchors.ders = None
    world.anchors.wish = wish
    found = await chains(world)
    issued = world.ca.issued[0]
    assert found[0] == two.chain(issued)
    assert issued.chain_pem in found[1:]


async def test_preferred_chain_that_is_not_offered_is_told_and_the_default_served(
    world: World,
) -> None:
    """An order is not lost for it: certbot and lego do the same."""
    offering(world, "One")
    world.anchors.wish = "Three"
    found = await chains(world)
    assert found[0] == world.ca.issued[0].chain_pem
    assert await world.count(EventKind.PREFERRED_CHAIN_MISSING) == 1


async def test_chain_that_leads_to_no_anchor_gives_way_to_one_that_does(world: World) -> None:
    """And is not offered either: each chain is asked the same."""
    (one,) = offering(world, "One")
    world.anchors.ders = [one.root.public_bytes(Encoding.DER)]
    found = await chains(world)
    assert found == [one.chain(world.ca.issued[0])]
    (event,) = await world.events(EventKind.ALTERNATE_CHAIN_WITHHELD)
    assert "anchors" in str(event.data["fault"])


async def test_chain_of_another_leaf_is_kept_back(world: World) -> None:
    """Byte for byte the same certificate, or it is none of this one's chains."""
    client = await world.client()
    first = await client.issue("other.example.com")
    stranger = await client.chain(first)
    world.ca.alternates = lambda _: [stranger]
    found = await chains(world)
    assert found == [world.ca.issued[1].chain_pem]
    (event,) = await world.events(EventKind.ALTERNATE_CHAIN_WITHHELD)
    assert "another certificate" in str(event.data["fault"])
    assert world.ca.revoked == {}


@pytest.mark.parametrize(
    "pem", [b"", b"<html>", b"-----BEGIN PRIVATE KEY-----\n"], ids=["empty", "html", "key"]
)
async def test_what_is_no_chain_is_kept_back(world: World, pem: bytes) -> None:
    """The first one is served all the same."""
    world.ca.alternates = lambda _: [pem]
    assert await chains(world) == [world.ca.issued[0].chain_pem]


async def test_same_chain_twice_is_one(world: World) -> None:
    """Some CAs name the default among its alternates."""
    world.ca.alternates = lambda order: [order.chain_pem, order.chain_pem]
    assert len(await chains(world)) == 1


@pytest.mark.parametrize("outcome", [Unreachable("away"), Broken("nonsense")])
async def test_other_chains_that_cannot_be_had_hold_up_nothing(
    world: World, outcome: Exception
) -> None:
    """Where nothing depends on them."""
    offering(world, "One")
    world.ca.fail("download_alternates", outcome)
    assert await chains(world) == [world.ca.issued[0].chain_pem]


@pytest.mark.parametrize("times", [2, 100], ids=["for a moment", "for good"])
async def test_chain_that_is_preferred_is_waited_for_a_while(world: World, times: int) -> None:
    """An order is worth two minutes of it, and no more."""
    (one,) = offering(world, "One")
    world.anchors.wish = "One"
    world.ca.fail("download_alternates", Unreachable("away"), times=times)
    client = await world.client()
    order = await world.finish(await client.finalize(await client.ready(NAME), make_csr(NAME)))
    assert order.status is OrderStatus.VALID
    issued = world.ca.issued[0]
    assert await client.chain(order) == (one.chain(issued) if times == 2 else issued.chain_pem)


async def test_refusal_of_other_chains_is_none_of_the_order(world: World) -> None:
    """A CA that says no to them has said yes to the certificate."""
    world.ca.fail("download_alternates", Refused(Problem(ProblemType.MALFORMED, "no")))
    assert len(await chains(world)) == 1


async def test_number_without_a_chain_is_not_there(world: World) -> None:
    """Like a certificate of somebody else."""
    client, stranger = await world.client(), await world.client()
    order = await client.issue(NAME)
    certificate = world.renewing.handover.certificate
    assert (await certificate(client.account, order.certificate_id or "", 0)).chains == 1
    for account, number in ((client.account, 1), (client.account, -1), (stranger.account, 0)):
        with pytest.raises(Problem) as caught:
            await certificate(account, order.certificate_id or "", number)
        assert caught.value.status == 404


async def test_download_succeeds_though_its_use_cannot_be_noted(world: World) -> None:
    """It is noted when the certificate is fetched the next time."""

    class Failing:
        async def note_use(self, _: object) -> None:
            raise Unreachable("disk is full")

    client = await world.client()
    order = await client.issue(NAME)
    world.renewing.handover._retirements = Failing()  # type: ignore[assignment]
    assert await client.chain(order)
