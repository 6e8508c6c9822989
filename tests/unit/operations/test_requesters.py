"""The desk about requesters."""

import json
from datetime import timedelta

import pytest

from broker.issuance.events import EventKind
from broker.protocol.encoding import encode_base64url, parse_base64url
from broker.protocol.problems import Problem
from broker.web.operator import OperationError
from tests.unit.operations.conftest import ANNA, Office

NAME = "www.example.com"


async def test_order_is_shown_with_all_that_belongs_to_it(office: Office) -> None:
    """Authorizations, upstream order, events, decision, and the lever that held the cap."""
    client = await office.world.client()
    order = await client.issue(NAME)
    shown = await office.desk.order_show(order_id=order.order_id)
    assert shown["status"] == "valid"
    assert shown["lever"] == "ask"
    assert shown["cap"] == "90d"
    assert shown["authorizations"][0]["proof"] == "challenge"
    assert shown["upstream_order"]["status"] == "spent"
    assert "certificate-issued" in [event["kind"] for event in shown["events"]]
    assert shown["decision"]["policy_sha256"]
    json.dumps(shown)


async def test_no_token_and_no_csr_is_shown(office: Office) -> None:
    """What an operator sees can be pasted into a ticket."""
    client = await office.world.client()
    order = await client.issue(NAME)
    (authorization,) = await client.authorizations(order)
    text = json.dumps(await office.desk.order_show(order_id=order.order_id))
    assert all(challenge.token not in text for challenge in authorization.challenges)
    assert order.csr_der is not None
    assert encode_base64url(order.csr_der)[:40] not in text
    assert order.csr_der.hex()[:40] not in text


async def test_orders_are_listed_by_status(office: Office) -> None:
    """A status that there is not is told with those there are."""
    client = await office.world.client()
    order = await client.order(NAME)
    (row,) = await office.desk.order_list(status="pending")
    assert row["order"] == order.order_id
    assert await office.desk.order_list(status="valid") == []
    assert await office.desk.order_list(account="nobody") == []
    with pytest.raises(OperationError, match="'done' is no status"):
        await office.desk.order_list(status="done")


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_list_has_a_bounded_length(office: Office, limit: int) -> None:
    """Nobody reads more, and the store is not held up."""
    with pytest.raises(OperationError, match="is not between 1 and 1000"):
        await office.desk.cert_list(limit=limit)


async def test_certificate_is_found_by_id_and_by_fingerprint(office: Office) -> None:
    """As openssl prints it, too."""
    order = await (await office.world.client()).issue(NAME)
    (row,) = await office.desk.cert_list(community="default")
    assert row["certificate"] == order.certificate_id
    colons = ":".join(row["fingerprint"][place : place + 2].upper() for place in range(0, 64, 2))
    for reference in (row["certificate"], row["fingerprint"], colons):
        shown = await office.desk.cert_show(certificate=reference)
        assert shown["names"] == [NAME]
        assert shown["chain_pem"].startswith("-----BEGIN CERTIFICATE-----")


async def test_revocation_reaches_the_ca_with_who_and_why(office: Office) -> None:
    """And enters the event table."""
    order = await (await office.world.client()).issue(NAME)
    assert order.certificate_id is not None
    made = await office.world.drive(
        office.desk.cert_revoke(actor=ANNA, certificate=order.certificate_id, code=4)
    )
    assert made["revoked"] is not None
    assert made["revocation_reason"] == 4
    (event,) = await office.world.events(EventKind.CERTIFICATE_REVOCATION_REQUESTED)
    assert event.actor == ANNA


async def test_account_is_deactivated_once(office: Office) -> None:
    """Its next request is refused; a second time there is nothing to do."""
    client = await office.world.client()
    account_id = client.account.account_id
    made = await office.desk.account_deactivate(actor=ANNA, account_id=account_id)
    assert made["status"] == "deactivated"
    assert (await office.desk.account_show(account_id=account_id))["status"] == "deactivated"
    with pytest.raises(Problem, match="deactivated"):
        await office.world.accounts.require("default", account_id)
    with pytest.raises(OperationError, match="is deactivated already"):
        await office.desk.account_deactivate(actor=ANNA, account_id=account_id)
    (event,) = await office.world.events(EventKind.ACCOUNT_DEACTIVATED)
    assert event.actor == ANNA
    (row,) = await office.desk.account_list()
    assert row["account"] == account_id


async def test_minted_key_binds_an_account_and_is_shown_once(office: Office) -> None:
    """The MAC key is in the answer to mint, and in no list."""
    key = await office.desk.eab_mint(
        actor=ANNA, names=["*.Example.com"], profiles=["server"], expires_in="30d"
    )
    assert key["names"] == ["*.example.com"]
    assert key["expires"] == "2026-03-31T12:00:00Z"
    mac_key = parse_base64url(key["mac_key"])
    client = await office.world.client(binding=(key["key_id"], mac_key))
    assert client.account.eab_key_id == key["key_id"]
    listed = await office.desk.eab_list(community="default")
    assert key["key_id"] in [each["key_id"] for each in listed]
    assert "mac_key" not in json.dumps(listed)


async def test_revoked_key_binds_nobody(office: Office) -> None:
    """From then on, and its event names who and why."""
    key = await office.desk.eab_mint(actor=ANNA)
    await office.desk.eab_revoke(actor=ANNA, key_id=key["key_id"])
    office.world.clock.advance(timedelta(seconds=1))
    with pytest.raises(Problem, match="refused"):
        await office.world.client(binding=(key["key_id"], parse_base64url(key["mac_key"])))
    (event,) = await office.world.events(EventKind.EAB_REVOKED)
    assert event.actor == ANNA


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"community": "nowhere"}, "no community is called 'nowhere'"),
        ({"profiles": ["sewer"]}, "has no profile 'sewer'"),
        ({"names": ["a..b"]}, "a..b"),
        ({"expires_in": "30"}, "'30' is not a duration"),
    ],
    ids=["community", "profile", "pattern", "duration"],
)
async def test_key_with_a_wrong_limit_is_not_minted(
    office: Office, given: dict[str, object], words: str
) -> None:
    """A limit that means nothing would be none."""
    with pytest.raises(OperationError) as caught:
        await office.desk.eab_mint(actor=ANNA, **given)  # type: ignore[arg-type]
    assert words in caught.value.message
    assert await office.world.events(EventKind.EAB_MINTED) == [
        event
        for event in await office.world.events(EventKind.EAB_MINTED)
        if event.data["key_id"] == "robot"
    ]


@pytest.mark.parametrize(
    "command", ["order_show", "cert_show", "account_show"], ids=["order", "cert", "account"]
)
async def test_unknown_id_is_told_so(office: Office, command: str) -> None:
    """In one sentence, with where to look."""
    argument = {"order_show": "order_id", "cert_show": "certificate", "account_show": "account_id"}
    with pytest.raises(OperationError, match=r"there is no .* 'x'"):
        await getattr(office.desk, command)(**{argument[command]: "x"})
