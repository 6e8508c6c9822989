"""One certificate as an auditor asks about it."""

import json
from dataclasses import replace
from typing import Any

import pytest

from broker.issuance.events import Actor, Event, EventKind
from broker.operations import OperatorDesk
from broker.operations.parties import AuditParty
from broker.web.operator import OperationError
from tests.fakes.clock import START
from tests.unit.operations.conftest import ANNA, Office
from tests.unit.operations.test_audit import FakeKeeper


@pytest.fixture
def desk(office: Office) -> OperatorDesk:
    """The office's desk with a trail."""
    assert isinstance(office.desk, OperatorDesk)
    store: Any = office.world.store
    keeper = FakeKeeper(store)
    return OperatorDesk(replace(office.desk._rooms, audit=AuditParty(keeper, store, store)))


async def issued(office: Office) -> Any:
    """Return a certificate that was issued."""
    client = await office.world.client()
    order = await client.issue("www.example.com")
    assert order.certificate_id is not None
    found = await office.world.store.find_certificate(order.certificate_id)
    assert found is not None
    return found


async def test_evidence_says_who_asked_and_what_decided(office: Office, desk: OperatorDesk) -> None:
    """By serial number, by fingerprint and by id it is the same document."""
    certificate = await issued(office)
    await office.world.store.append(
        Event(
            kind=EventKind.SIGNATURES_MADE,
            at=START,
            order_id=certificate.order_id,
            data={"for": "fulfil", "signatures": [{"key": "vault:t/k#1", "vault_request": "r1"}]},
        ),
        durable=False,
    )
    found = await desk.cert_evidence(certificate=certificate.serial)
    for reference in (certificate.fingerprint, certificate.certificate_id):
        assert await desk.cert_evidence(certificate=reference) == found
    assert found["certificate"]["serial"] == certificate.serial
    assert found["requester"]["account"]["account"] == certificate.account_id
    assert found["decided_at_order"]["policy_sha256"]
    assert found["decided_at_finalize"]["lever"]
    assert [one["vault_request"] for one in found["signatures"]] == ["r1"]
    kinds = [one["kind"] for one in found["records"]]
    assert {"account-created", "order-created", "certificate-issued"} <= set(kinds)
    assert found["chain"]["records"] == [one["record"] for one in found["records"]]
    assert found["chain"]["covered_by"] is None
    assert "PRIVATE KEY" not in json.dumps(found)


async def test_covering_checkpoint_is_named(office: Office, desk: OperatorDesk) -> None:
    """The first one that covers all of its records."""
    certificate = await issued(office)
    await desk.audit_checkpoint(actor=ANNA)
    found = await desk.cert_evidence(certificate=certificate.serial)
    assert found["chain"]["covered_by"]["jws"] == "a.b.c"


async def test_other_orders_of_the_account_are_not_evidence(
    office: Office, desk: OperatorDesk
) -> None:
    """Each certificate has its own."""
    client = await office.world.client()
    orders = [await client.issue(f"{n}.example.com") for n in "ab"]
    first, second = [
        await office.world.store.find_certificate(one.certificate_id or "") for one in orders
    ]
    assert first is not None
    assert second is not None
    found = await desk.cert_evidence(certificate=first.serial)
    assert second.order_id not in {one["order"] for one in found["records"]}


async def test_unknown_certificate_is_told(desk: OperatorDesk) -> None:
    """With what would be one."""
    with pytest.raises(OperationError, match="no certificate"):
        await desk.cert_evidence(certificate="0123")


async def test_people_who_approved_are_named(office: Office, desk: OperatorDesk) -> None:
    """Those of the approval that the order rests on, and of no other."""
    store = office.world.store
    certificate = await issued(office)
    order = await store.load_order(certificate.order_id)
    assert order is not None
    decided = {**order.decision, "approvals": ["ap-1"]}
    await store._database.write(
        lambda transaction: transaction.change(
            "UPDATE orders SET decision = ? WHERE order_id = ?",
            json.dumps(decided),
            order.order_id,
        )
    )
    for number in ("ap-1", "ap-2"):
        await store.append(
            Event(
                kind=EventKind.APPROVAL_GRANTED,
                at=START,
                actor=Actor(f"operator:of-{number}", "ticket 7"),
                data={"approval_id": number},
            ),
            durable=False,
        )
    found = await desk.cert_evidence(certificate=certificate.serial)
    assert [(one["actor"], one["reason"]) for one in found["approvals"]] == [
        ("operator:of-ap-1", "ticket 7")
    ]
