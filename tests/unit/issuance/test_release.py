"""Nothing that came from an upstream is released unread."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from broker.issuance.records import OrderRecord
from broker.protocol.certificates import ChainError
from broker.protocol.resources import OrderStatus
from tests.fakes.fake_upstream import FakeUpstream
from tests.fakes.world import World, dns, leaf_of

NAME = "www.example.com"


async def received(world: World) -> tuple[OrderRecord, bytes]:
    """Return an order in processing and the chain that the CA has for it."""
    world.ca.holds_back = True
    client = await world.client()
    order = await client.finalize(await client.ready(NAME))
    world.ca.issue_held()
    return order, world.ca.issued[0].chain_pem


async def test_certificate_is_kept_as_it_came(world: World) -> None:
    """Byte for byte, with what is needed to find and to revoke it."""
    order, pem = await received(world)
    judged = await world.gate.judge(order, pem)
    assert (judged.findings, judged.is_known) == ((), False)
    made, leaf = judged.certificate, leaf_of(pem)
    assert made.is_released
    assert made.chain_pem == pem
    assert made.leaf_der == leaf.public_bytes(Encoding.DER)
    assert made.fingerprint == hashlib.sha256(made.leaf_der).hexdigest()
    spki = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert made.spki_sha256 == hashlib.sha256(spki).hexdigest()
    assert made.identifiers == (dns(NAME),)
    assert (made.order_id, made.account_id) == (order.order_id, order.account_id)
    assert (made.not_after, made.received_at) == (
        leaf.not_valid_after_utc,
        world.clock.now(),
    )
    assert made.cert_id is not None, "the leaf has an authority key identifier"
    assert int(made.serial, 16) == leaf.serial_number


@pytest.mark.parametrize("pem", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n"], ids=repr)
async def test_what_is_no_chain_is_not_judged(world: World, pem: bytes) -> None:
    """It may be asked for again."""
    order, _ = await received(world)
    with pytest.raises(ChainError):
        await world.gate.judge(order, pem)


async def test_order_without_a_csr_is_a_fault_of_ours(world: World) -> None:
    """There is nothing to compare the certificate with."""
    order, pem = await received(world)
    with pytest.raises(ValueError, match="without a CSR"):
        await world.gate.judge(replace(order, csr_der=None), pem)


async def test_certificate_that_was_kept_before_is_known(world: World) -> None:
    """Whoever it was kept for."""
    order, pem = await received(world)
    assert (await world.finish(order)).status is OrderStatus.VALID
    judged = await world.gate.judge(order, pem)
    assert judged.is_known
    assert [one.check for one in judged.findings] == ["issued-once"]
    assert not judged.certificate.is_released


def none_configured(world: World) -> None:
    """Configure no anchor."""


def right_anchor(world: World) -> None:
    """Configure the CA's root."""
    world.anchors.ders = [world.ca.root.public_bytes(Encoding.DER)]


def other_anchor(world: World) -> None:
    """Configure somebody else's root."""
    world.anchors.ders = [FakeUpstream(world.clock, "other").root.public_bytes(Encoding.DER)]


def no_anchor(world: World) -> None:
    """Configure an empty list."""
    world.anchors.ders = []


@pytest.mark.parametrize(
    ("configure", "checks"),
    [
        (none_configured, []),
        (right_anchor, []),
        (other_anchor, ["issued-anchor"]),
        (no_anchor, ["issued-anchor"]),
    ],
    ids=["none configured", "right", "another's", "empty list"],
)
async def test_chain_has_to_lead_to_an_anchor_where_some_are_configured(
    world: World, configure: Callable[[World], None], checks: list[str]
) -> None:
    """An empty list lets nothing through."""
    order, pem = await received(world)
    configure(world)
    judged = await world.gate.judge(order, pem)
    assert [one.check for one in judged.findings] == checks


async def test_cap_runs_from_receipt_under_the_rule_that_set_it(world: World) -> None:
    """A chain that lay about for a week is still within the cap; a tighter one names its rule."""
    order, pem = await received(world)
    world.clock.advance(timedelta(days=7))
    assert (await world.gate.judge(order, pem)).findings == ()
    facts = {**order.decision, "cap_rule": "old policy.yaml:77 caps[2]"}
    tighter = replace(order, cap_seconds=80 * 86400, decision=facts)
    (finding,) = (await world.gate.judge(tighter, pem)).findings
    assert finding.check == "issued-end"
    assert finding.rule is not None
    assert (finding.rule.source, finding.rule.line) == ("old policy.yaml", 77)
    assert "old policy.yaml:77" in finding.sentence


@pytest.mark.parametrize("tolerance", [None, "60", 0], ids=repr)
async def test_tolerance_is_what_the_decision_says(world: World, tolerance: object) -> None:
    """One that cannot be read is none."""
    order, pem = await received(world)
    exact = replace(order, cap_seconds=order.cap_seconds - 30)
    assert (await world.gate.judge(exact, pem)).findings == ()
    facts = {**order.decision, "tolerance_seconds": tolerance}
    (finding,) = (await world.gate.judge(replace(exact, decision=facts), pem)).findings
    assert finding.check == "issued-end"
