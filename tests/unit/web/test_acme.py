"""The ACME resources: what a workflow's answer becomes on the wire."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.protocol.encoding import encode_base64url
from broker.protocol.resources import AuthorizationStatus, ChallengeStatus, OrderStatus
from tests.fakes.clock import START
from tests.fakes.raw_client import RawAnswer, RawClient
from tests.fakes.workflows import CHAIN_PEM, authorization_record
from tests.unit.web.conftest import ORIGIN, Site

BASE = f"{ORIGIN}/acme/default"
ORDER = {"identifiers": [{"type": "dns", "value": "www.corp.example"}], "profile": "server"}
CSR = {"csr": encode_base64url(b"\x30\x00")}


@pytest.fixture
async def client(site: Site) -> RawClient:
    """A client with an account."""
    await site.client.register()
    return site.client


def links_of(answer: RawAnswer) -> dict[str, str]:
    """Return the answer's links by their relation."""
    links = (value.split(">;rel=") for value in answer.headers.getall("Link"))
    return {rel.strip('"'): url.lstrip("<") for url, rel in links}


async def test_new_order_is_answered_with_its_urls(site: Site, client: RawClient) -> None:
    """201, a Location, and nothing but our own URLs in the object."""
    answer = await client.post(f"{BASE}/new-order", ORDER)
    assert answer.status == 201
    assert answer.headers.getall("Location") == [f"{BASE}/order/order1"]
    assert "Retry-After" not in answer.headers
    assert answer.json() == {
        "status": "pending",
        "expires": "2026-03-01T20:00:00Z",
        "identifiers": [{"type": "dns", "value": "www.corp.example"}],
        "authorizations": [f"{BASE}/authz/authz1"],
        "finalize": f"{BASE}/order/order1/finalize",
        "profile": "server",
    }
    assert site.workflows.orders.asked[0].profile == "server"


async def test_processing_order_tells_when_to_come_back(site: Site, client: RawClient) -> None:
    """Finalize answers 200 with Location and an integer Retry-After while the CA works."""
    site.workflows.orders.changes = {"status": OrderStatus.PROCESSING}
    answers = [
        await client.post(f"{BASE}/order/order1/finalize", CSR),
        await client.post(f"{BASE}/order/order1"),
    ]
    for answer in answers:
        assert answer.status == 200
        assert answer.json()["status"] == "processing"
        assert answer.headers["Location"] == f"{BASE}/order/order1"
        assert answer.headers["Retry-After"] == "3"
    assert site.workflows.orders.csrs == [b"\x30\x00"]


async def test_valid_order_leads_to_the_certificate(site: Site, client: RawClient) -> None:
    """The chain comes as it was kept, with RFC 8555 §7.4.2's content type."""
    site.workflows.orders.changes = {"status": OrderStatus.VALID, "certificate_id": "cert1"}
    order = await client.post(f"{BASE}/order/order1")
    assert order.json()["certificate"] == f"{BASE}/certificate/cert1"
    assert "Retry-After" not in order.headers
    answer = await client.post(f"{BASE}/certificate/cert1")
    assert (answer.status, answer.body) == (200, CHAIN_PEM)
    assert answer.headers["Content-Type"] == "application/pem-certificate-chain"


async def test_invalid_order_says_why(site: Site, client: RawClient) -> None:
    """The problem that ended the order stands in its error member."""
    error = {"type": "urn:ietf:params:acme:error:caa", "detail": "no", "status": 403}
    site.workflows.orders.changes = {"status": OrderStatus.INVALID, "error": error}
    assert (await client.post(f"{BASE}/order/order1")).json()["error"] == error


async def test_stale_error_is_not_shown_in_a_living_order(site: Site, client: RawClient) -> None:
    """Clients take any error member for the end of the order."""
    error = {"type": "urn:ietf:params:acme:error:dns", "detail": "no", "status": 400}
    site.workflows.orders.changes = {"status": OrderStatus.PROCESSING, "error": error}
    assert "error" not in (await client.post(f"{BASE}/order/order1")).json()


@pytest.mark.parametrize("path", ["order/order1", "certificate/c", "directory", "new-nonce"])
async def test_reading_with_a_payload_is_refused(client: RawClient, path: str) -> None:
    """A POST-as-GET has an empty payload, or the empty object that old clients send."""
    with_payload = await client.post(f"{BASE}/{path}", {"a": 1})
    assert (with_payload.status, with_payload.problem) == (400, "malformed")
    assert (await client.post(f"{BASE}/{path}")).status in (200, 204)
    assert (await client.post(f"{BASE}/{path}", {})).status in (200, 204)


@pytest.mark.parametrize("path", ["new-order", "order/order1/finalize", "revoke-cert"])
async def test_writing_without_a_payload_is_refused(client: RawClient, path: str) -> None:
    """What needs an object says so when there is none."""
    answer = await client.post(f"{BASE}/{path}")
    assert (answer.status, answer.problem) == (400, "malformed")


async def test_challenge_goes_to_processing_with_a_way_up(site: Site, client: RawClient) -> None:
    """The answer is the challenge, with rel=up, which certbot needs, and a Retry-After."""
    url = f"{BASE}/challenge/authz1/chall1"
    shown = await client.post(url)
    answer = await client.post(url, {})
    assert shown.json()["status"] == "pending"
    assert answer.json() == {
        "type": "http-01",
        "url": url,
        "status": "processing",
        "token": "tokentokentokentoken",
    }
    assert answer.headers["Retry-After"] == "3"
    assert links_of(answer) == {"up": f"{BASE}/authz/authz1", "index": f"{BASE}/directory"}
    assert site.workflows.authorizations.responded == [("authz1", "chall1")]


async def test_unknown_challenge_is_not_there(client: RawClient) -> None:
    """A challenge id that the authorization does not have is 404."""
    answer = await client.post(f"{BASE}/challenge/authz1/chall9")
    assert (answer.status, answer.problem) == (404, "malformed")


async def test_pending_authorization_offers_all_challenges(client: RawClient) -> None:
    """Their order and members are stable; ``wildcard`` is absent unless true."""
    shown = (await client.post(f"{BASE}/authz/authz1")).json()
    assert [each["type"] for each in shown["challenges"]] == ["http-01", "dns-01"]
    assert list(shown) == ["identifier", "status", "expires", "challenges"]


async def test_valid_authorization_shows_the_challenge_that_succeeded(
    site: Site, client: RawClient
) -> None:
    """RFC 8555 §7.1.4: of a valid one, what was proved."""
    record = authorization_record("acct1")
    first, second = record.challenges
    site.workflows.authorizations.changes = {
        "status": AuthorizationStatus.VALID,
        "is_wildcard": True,
        "challenges": (
            first,
            replace(
                second, status=ChallengeStatus.VALID, validated_at=START + timedelta(minutes=1)
            ),
        ),
    }
    shown = (await client.post(f"{BASE}/authz/authz1")).json()
    (challenge,) = shown["challenges"]
    assert (challenge["type"], challenge["validated"]) == ("dns-01", "2026-03-01T12:01:00Z")
    assert shown["wildcard"] is True


async def test_authorization_is_deactivated_and_nothing_else(client: RawClient) -> None:
    """``deactivated`` is the only status that a client may ask for."""
    url = f"{BASE}/authz/authz1"
    assert (await client.post(url, {"status": "valid"})).problem == "malformed"
    assert (await client.post(url, {"status": "deactivated"})).json()["status"] == "deactivated"


async def test_revocation_by_account_and_by_certificate_key(site: Site, client: RawClient) -> None:
    """The workflow learns which of the two signed, never both."""
    payload = {"certificate": encode_base64url(b"\x30\x00"), "reason": 1}
    by_account = await client.post(f"{BASE}/revoke-cert", payload)
    by_key = await client.post(f"{BASE}/revoke-cert", payload, kid=None, jwk=client.jwk.to_json())
    assert (by_account.status, by_account.body) == (200, b"")
    assert by_key.status == 200
    first, second = site.workflows.revocations.revoked
    assert first[1] is not None
    assert first[2] is None
    assert second[1] is None
    assert second[2] == client.jwk


async def test_directory_and_nonce_can_be_read_by_post(client: RawClient) -> None:
    """RFC 8555 §6.3 lets GET stand beside POST-as-GET for these two."""
    assert (await client.post(f"{BASE}/directory")).json()["newOrder"] == f"{BASE}/new-order"
    assert (await client.post(f"{ORIGIN}/acme/directory")).status == 200
    assert (await client.post(f"{BASE}/new-nonce")).status == 204


async def test_pre_authorization_is_answered_like_an_authorization(
    site: Site, client: RawClient
) -> None:
    """201 with its Location (RFC 8555 §7.4.1)."""
    name = {"type": "dns", "value": "api.corp.example"}
    answer = await client.post(f"{BASE}/new-authz", {"identifier": name})
    assert answer.status == 201
    assert answer.headers.getall("Location") == [f"{BASE}/authz/authz1"]
    assert (answer.json()["identifier"], answer.json()["status"]) == (name, "pending")
    (asked,) = site.workflows.orders.pre_authorized
    assert asked.value == "api.corp.example"


async def test_wildcard_is_not_proven_ahead(site: Site, client: RawClient) -> None:
    """Refused before any workflow is asked; what it stands for can be."""
    for value, status in (("*.corp.example", 403), ("corp.example", 201)):
        answer = await client.post(
            f"{BASE}/new-authz", {"identifier": {"type": "dns", "value": value}}
        )
        assert answer.status == status
    assert len(site.workflows.orders.pre_authorized) == 1
