"""Who asks, put together for policy and kept beside the order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.issuance.origins import NOWHERE, Origin
from broker.issuance.requesting import (
    decided_origin,
    decided_requester,
    is_decided_renewal,
    requester_facts,
    requester_of,
)
from broker.policy.decisions import ClientCertificate, EabGrant, Requester
from tests.fakes.world import World

NAME = "www.example.com"

WHOLE = Requester(
    account_id="acct1",
    thumbprint="A" * 43,
    eab_key_id="math",
    node="web-01",
    namespace="shop",
    service_account="api",
    address="192.0.2.7",
    client_certificate=ClientCertificate(fingerprint="ab" * 32, names=("a.corp.example",)),
    owner="web team",
)


@pytest.mark.parametrize(
    "requester",
    [pytest.param(WHOLE, id="whole"), pytest.param(Requester(), id="nobody")],
)
def test_what_is_kept_is_read_again(requester: Requester) -> None:
    """As JSON, the way the store has it; what there is none of is left out."""
    kept = json.loads(json.dumps({"requester": requester_facts(requester)}))
    assert decided_requester(kept) == requester
    assert None not in kept["requester"].values()


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param({}, id="before"),
        pytest.param({"requester": "x"}, id="text"),
        pytest.param({"requester": {"address": 7, "client_certificate": "x"}}, id="other-shapes"),
    ],
)
def test_orders_from_before_were_asked_for_by_nobody(kept: dict[str, Any]) -> None:
    """What cannot be read says nothing."""
    assert decided_requester(kept) == Requester()
    assert decided_origin(kept) == NOWHERE
    assert not is_decided_renewal(kept)


def test_an_order_is_asked_about_again_as_it_was_asked_for() -> None:
    """From the address and with the certificate of then."""
    kept = {"requester": requester_facts(WHOLE), "is_unchanged_renewal": True}
    assert decided_origin(kept) == Origin(
        address="192.0.2.7", client_certificate=WHOLE.client_certificate
    )
    assert is_decided_renewal(kept)


async def test_a_requester_is_account_binding_node_and_origin(world: World) -> None:
    """Each from who knows it."""
    client = await world.client()
    grant = EabGrant(
        key_id="", names=(), profiles=(), node="n1", namespace="shop", service_account="api",
        attestation="kubernetes",
    )  # fmt: skip
    made = requester_of(client.account, grant, Origin(address="192.0.2.7"), "web team")
    assert (made.node, made.namespace, made.service_account) == ("n1", "shop", "api")
    assert made.attestation == "kubernetes"
    assert (made.address, made.owner) == ("192.0.2.7", "web team")
    assert made.account_id == client.account.account_id
    assert made.thumbprint == client.account.thumbprint


async def test_an_order_keeps_who_asked_for_it(world: World) -> None:
    """For release, failover and `policy diff`."""
    client = await world.client()
    order = await client.ready(NAME)
    kept = decided_requester(order.decision)
    assert kept.account_id == client.account.account_id
    assert kept.thumbprint == client.account.thumbprint
