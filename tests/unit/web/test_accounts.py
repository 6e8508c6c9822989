"""The account resources: what a workflow's answer becomes on the wire."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from broker.protocol.jws import jwk_from_public_key, seal_binding
from tests.fakes.raw_client import RawAnswer, RawClient
from tests.unit.protocol.builders import b64url, sign
from tests.unit.web.conftest import ORIGIN, Site

BASE = f"{ORIGIN}/acme/default"
KEY_CHANGE = f"{BASE}/key-change"


@pytest.fixture
async def client(site: Site) -> RawClient:
    """A client with an account."""
    await site.client.register()
    return site.client


async def test_new_account_is_created_once_and_found_again(site: Site) -> None:
    """201 for a new key, 200 with the same Location for a known one (RFC 8555 §7.3.1)."""
    first = await site.client.register()
    site.client.kid = None
    second = await site.client.register()
    assert (first.status, second.status) == (201, 200)
    assert first.headers.getall("Location") == second.headers.getall("Location")
    assert first.json() == {
        "status": "valid",
        "termsOfServiceAgreed": True,
        "orders": f"{first.headers['Location']}/orders",
    }


async def test_only_return_existing_creates_nothing(site: Site) -> None:
    """A key without account stays without one."""
    answer = await site.client.post(f"{BASE}/new-account", {"onlyReturnExisting": True})
    assert (answer.status, answer.problem) == (400, "accountDoesNotExist")
    assert site.workflows.accounts.accounts == {}


async def test_binding_for_another_url_never_reaches_the_workflow(site: Site) -> None:
    """An external account binding is checked against this URL and key; the right one passes."""
    client = site.client
    url = f"{ORIGIN}/acme/lab/new-account"
    binding = _binding(client, url)
    wrong = await client.post(
        url, {"externalAccountBinding": _binding(client, f"{BASE}/new-account")}
    )
    assert (wrong.status, wrong.problem) == (403, "unauthorized")
    assert site.workflows.accounts.bindings == []
    right = await client.post(url, {"externalAccountBinding": binding})
    assert right.status == 201
    assert [each and each.key_id for each in site.workflows.accounts.bindings] == ["key-1"]


def _binding(client: RawClient, url: str) -> dict[str, Any]:
    return seal_binding("key-1", b"k" * 32, "HS256", url, client.jwk)


async def test_account_is_read_and_updated_by_its_owner(site: Site, client: RawClient) -> None:
    """POST-as-GET shows, contacts change, unknown members are neither kept nor reflected."""
    assert client.kid is not None
    shown = await client.post(client.kid)
    changed = await client.post(
        client.kid, {"contact": ["mailto:ops@corp.example"], "x": "y", "orders": "z"}
    )
    assert shown.json() == {
        "status": "valid",
        "termsOfServiceAgreed": True,
        "orders": f"{client.kid}/orders",
    }
    assert changed.json() == {**shown.json(), "contact": ["mailto:ops@corp.example"]}


async def test_account_of_somebody_else_is_refused(site: Site, client: RawClient) -> None:
    """Being an account opens that account's URL alone."""
    other = RawClient(client.session, ORIGIN)
    await other.register()
    assert other.kid is not None
    answer = await client.post(other.kid, {"status": "deactivated"})
    assert (answer.status, answer.problem) == (403, "unauthorized")
    assert (await other.post(other.kid)).json()["status"] == "valid"


def next_page(answer: RawAnswer) -> str | None:
    """Return the URL of the next page, if there is one."""
    links = (value.split(">;rel=") for value in answer.headers.getall("Link"))
    found = [url.lstrip("<") for url, rel in links if rel == '"next"']
    return found[0] if found else None


async def test_orders_are_listed_page_by_page(site: Site, client: RawClient) -> None:
    """URLs of ours, and a link to the next page until there is none (RFC 8555 §7.1.2.1)."""
    site.workflows.orders.pages = {None: (["o1", "o2"], "o2"), "o2": (["o3"], None)}
    first = await client.post(f"{client.kid}/orders")
    assert first.json() == {"orders": [f"{BASE}/order/o1", f"{BASE}/order/o2"]}
    following = next_page(first)
    assert following is not None
    assert following.startswith(f"{client.kid}/orders?")
    second = await client.post(following)
    assert second.json() == {"orders": [f"{BASE}/order/o3"]}
    assert next_page(second) is None


async def test_place_that_is_in_no_list_of_the_accounts_is_404(
    site: Site, client: RawClient
) -> None:
    """A cursor is not to be guessed; the list itself is there."""
    answer = await client.post(f"{client.kid}/orders?after=nothing")
    assert (answer.status, answer.problem) == (404, "malformed")
    assert (await client.post(f"{client.kid}/orders")).status == 200


async def test_orders_of_somebody_else_are_refused(site: Site, client: RawClient) -> None:
    """Only the owner reads them."""
    other = RawClient(client.session, ORIGIN)
    await other.register()
    answer = await client.post(f"{other.kid}/orders")
    assert (answer.status, answer.problem) == (403, "unauthorized")
    assert (await other.post(f"{other.kid}/orders")).status == 200


def inner(client: RawClient, key: ec.EllipticCurvePrivateKey, **payload: Any) -> dict[str, Any]:
    """Return the inner JWS of a key change."""
    jwk = jwk_from_public_key(key.public_key())
    header = {"alg": "ES256", "jwk": jwk.to_json(), "url": KEY_CHANGE}
    wanted = {"account": client.kid, "oldKey": client.jwk.to_json(), **payload}
    parts = [b64url(json.dumps(part).encode()) for part in (header, wanted)]
    signature = sign(key, ".".join(parts).encode())
    return {"protected": parts[0], "payload": parts[1], "signature": b64url(signature)}


async def test_key_is_changed_and_signs_from_then_on(site: Site, client: RawClient) -> None:
    """200 with the account; the old key opens nothing more."""
    old, new = client.key, ec.generate_private_key(ec.SECP256R1())
    answer = await client.post(KEY_CHANGE, inner(client, new))
    assert (answer.status, answer.json()["status"]) == (200, "valid")
    assert client.kid is not None
    stale = await client.post(client.kid)
    assert (stale.status, stale.problem) == (400, "malformed")
    client.key = new
    assert (await client.post(client.kid)).status == 200
    assert client.key is not old


async def test_key_of_another_account_is_409_with_its_url(site: Site, client: RawClient) -> None:
    """RFC 8555 §7.3.5; a key that nobody has is taken."""
    new = ec.generate_private_key(ec.SECP256R1())
    site.workflows.key_changes.holder = "acct9"
    answer = await client.post(KEY_CHANGE, inner(client, new))
    assert (answer.status, answer.problem) == (409, "malformed")
    assert answer.headers.getall("Location") == [f"{BASE}/account/acct9"]
    site.workflows.key_changes.holder = None
    assert (await client.post(KEY_CHANGE, inner(client, new))).status == 200


async def test_change_that_names_another_account_reaches_nobody(
    site: Site, client: RawClient
) -> None:
    """What is inside is checked before any workflow is asked; its twin passes."""
    new = ec.generate_private_key(ec.SECP256R1())
    answer = await client.post(KEY_CHANGE, inner(client, new, account=f"{client.kid}0"))
    assert (answer.status, answer.problem) == (403, "unauthorized")
    assert (await client.post(KEY_CHANGE, inner(client, new))).status == 200
