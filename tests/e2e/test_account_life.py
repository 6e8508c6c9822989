"""An account from its first order to its end, at a broker as it runs: RFC 8555 §7.3 and §7.4.1."""

import json
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.e2e.front_door import FARM_KEYS, PROVABLE, FrontDoor, running
from tests.e2e.requester import Client, Reply, Wire, fresh_name
from tests.unit.protocol.builders import b64url, jwk_json, make_csr, private_key, sign

pytestmark = pytest.mark.e2e

ORDERS = 103
"""Orders of one account: a page of a hundred, and a second one."""


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """A broker whose communities offer pre-authorization."""
    offered = {"pre_authorization": "7d"}
    with running(tmp_path_factory.mktemp("life"), community=offered) as made:
        yield made


def fresh_key() -> Any:
    """Return a key that nobody has."""
    return private_key("ES256", secrets.token_hex(8))


def roll_over(client: Client, new: Any, **payload: Any) -> Reply:
    """Ask for another key, signed by both as RFC 8555 §7.3.5 has it."""
    url = client.url("key-change")
    header = {"alg": "ES256", "jwk": jwk_json(new), "url": url}
    wanted = {"account": client.kid, "oldKey": jwk_json(client.key), **payload}
    parts = [b64url(json.dumps(part).encode()) for part in (header, wanted)]
    inner = {
        "protected": parts[0],
        "payload": parts[1],
        "signature": b64url(sign(new, ".".join(parts).encode())),
    }
    return client.post(url, inner)


def next_page(reply: Reply) -> str | None:
    """Return the URL of the next page, if there is one."""
    found = [re.fullmatch(r'<(.*)>;rel="next"', one) for one in reply.all("Link")]
    urls = [match[1] for match in found if match]
    assert len(urls) <= 1
    return urls[0] if urls else None


def test_directory_offers_what_there_is(door: FrontDoor) -> None:
    """KeyChange always, newAuthz where the community is configured for it."""
    client = door.client()
    directory = json.loads(door.wire.send("GET", "/acme/default/directory").body)
    assert directory["keyChange"] == client.url("key-change")
    assert directory["newAuthz"] == client.url("new-authz")


def test_order_that_was_begun_under_the_old_key_ends_under_the_new_one(door: FrontDoor) -> None:
    """Nothing but the key changes: the challenge is answered with the new key's thumbprint."""
    client = door.account()
    name = PROVABLE[0]
    url, order = client.new_order(name)
    old, new = client.key, fresh_key()
    changed = roll_over(client, new)
    assert changed.status == 200
    assert client.kid is not None
    stale = client.post(client.kid)
    assert (stale.status, stale.problem) == (400, "malformed")
    assert "signature does not verify" in stale.json()["detail"]
    client.key = new
    client.prove(door.answers.key_authorizations, order)
    ready = client.post(url).json()
    assert ready["status"] == "ready"
    assert client.finalize(ready, make_csr((name,))).json()["status"] == "valid"
    found = door.client(key=new).register(onlyReturnExisting=True)
    assert found.one("Location") == client.kid
    gone = door.client(key=old).register(onlyReturnExisting=True)
    assert gone.problem == "accountDoesNotExist"


def test_of_eight_key_changes_at_once_one_wins(door: FrontDoor) -> None:
    """Each on its own connection; the account has the key of the one that was told 200."""
    client = door.account()
    wires = [Wire(door.penstock) for _ in range(8)]
    keys = [fresh_key() for _ in wires]

    def change(wire: Wire, key: Any) -> int:
        return roll_over(Client(wire, client.base, key=client.key, kid=client.kid), key).status

    with ThreadPoolExecutor(len(wires)) as pool:
        statuses = list(pool.map(change, wires, keys))
    for wire in wires:
        wire.close()
    assert statuses.count(200) == 1
    winner = keys[statuses.index(200)]
    assert door.client(key=winner).register(onlyReturnExisting=True).one("Location") == client.kid


def test_key_of_another_account_or_of_a_certificate_is_refused(door: FrontDoor) -> None:
    """409 with that account's URL for the one, badPublicKey for the other."""
    client, other = door.account(), door.trusted()
    taken = roll_over(client, other.key)
    assert taken.status == 409
    assert taken.one("Location") == other.kid
    certified = fresh_key()
    other.certificate(fresh_name(), key=certified)
    reserved = roll_over(client, certified)
    assert (reserved.status, reserved.problem) == (400, "badPublicKey")
    assert roll_over(client, fresh_key()).status == 200


def test_orders_are_listed_to_their_owner_alone(door: FrontDoor) -> None:
    """Newest first, a page at a time; the cursor of one account is none in another's list."""
    client, other = door.trusted(), door.trusted()
    made = [client.new_order(fresh_name())[0] for _ in range(ORDERS)]
    account = client.post(client.kid or "").json()
    first = client.post(account["orders"])
    following = next_page(first)
    assert following is not None
    second = client.post(following)
    assert next_page(second) is None
    listed = [*first.json()["orders"], *second.json()["orders"]]
    assert listed == made[::-1]
    assert len(first.json()["orders"]) == 100
    refused = other.post(account["orders"])
    assert (refused.status, refused.problem) == (403, "unauthorized")
    cursor = following.partition("?")[2]
    stolen = other.post(f"{other.post(other.kid or '').json()['orders']}?{cursor}")
    assert (stolen.status, stolen.problem) == (404, "malformed")


def test_name_that_is_proven_ahead_makes_an_order_ready_at_once(door: FrontDoor) -> None:
    """For the account that proved it; nobody looks a second time."""
    client, other = door.account(), door.account()
    name = PROVABLE[1]
    reply = client.post(client.url("new-authz"), {"identifier": {"type": "dns", "value": name}})
    assert reply.status == 201
    authorization = reply.json()
    client.prove(door.answers.key_authorizations, {"authorizations": [reply.one("Location")]})
    door.answers.key_authorizations.clear()
    _, order = client.new_order(name)
    assert order["status"] == "ready"
    (own,) = order["authorizations"]
    assert own != reply.one("Location")
    shown = client.post(own).json()
    assert (shown["status"], shown["identifier"]) == ("valid", authorization["identifier"])
    assert [one["status"] for one in shown["challenges"]] == ["valid"]
    assert client.finalize(order, make_csr((name,))).json()["status"] == "valid"
    assert other.new_order(name)[1]["status"] == "pending"


@pytest.mark.parametrize(
    ("value", "problem"),
    [("*.example.test", "rejectedIdentifier"), ("www.example.net", "rejectedIdentifier")],
    ids=["wildcard", "policy is unwilling"],
)
def test_what_is_not_proven_ahead_is_refused_with_403(
    door: FrontDoor, value: str, problem: str
) -> None:
    """RFC 8555 §7.4.1."""
    client = door.account()
    refused = client.post(client.url("new-authz"), {"identifier": {"type": "dns", "value": value}})
    assert (refused.status, refused.problem) == (403, problem)


def test_bound_account_shows_its_binding_as_it_was_sent(door: FrontDoor) -> None:
    """Octet for octet what newAccount carried (RFC 8555 §7.3.4); others show none."""
    from tests.e2e.requester import binding

    client = door.client()
    sent = binding(client.url("new-account"), client.key, FARM_KEYS["default"])
    made = client.register(externalAccountBinding=sent)
    assert made.status == 201
    assert made.json()["externalAccountBinding"] == sent
    assert client.post(client.kid or "").json()["externalAccountBinding"] == sent
    assert "externalAccountBinding" not in door.account().post(door.account().kid or "").json()


def test_account_that_ends_takes_its_open_orders_with_it(door: FrontDoor) -> None:
    """What it was issued stays; the store has nothing open of it any more."""
    client = door.trusted()
    client.certificate(fresh_name())
    client.new_order(fresh_name())
    client.new_order(PROVABLE[2])
    client.post(client.url("new-authz"), {"identifier": {"type": "dns", "value": PROVABLE[3]}})
    assert client.kid is not None
    ended = client.post(client.kid, {"status": "deactivated"})
    assert ended.json()["status"] == "deactivated"
    account_id = client.kid.rpartition("/")[2]
    query = "SELECT status, count(*) FROM orders WHERE account_id = ? GROUP BY status"
    assert dict(door.penstock.rows(query, account_id)) == {"valid": 1, "invalid": 2}
    ahead = door.penstock.rows(
        "SELECT status FROM authorizations WHERE account_id = ? AND order_id IS NULL", account_id
    )
    assert ahead == [("deactivated",)]
    revoked = "SELECT count(*) FROM certificates WHERE account_id = ? AND revoked_at IS NOT NULL"
    assert door.penstock.rows(revoked, account_id) == [(0,)]


def test_page_of_another_origin_can_speak_with_us(door: FrontDoor) -> None:
    """What a browser asks first, and what its script may read then."""
    asked = door.wire.send(
        "OPTIONS",
        "/acme/default/new-account",
        headers=[
            ("Origin", "https://page.example"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type"),
        ],
    )
    assert (asked.status, asked.body) == (204, b"")
    assert asked.one("Access-Control-Allow-Origin") == "*"
    assert asked.one("Access-Control-Allow-Methods") == "POST"
    assert "Content-Type" in asked.one("Access-Control-Allow-Headers")
    answer = door.wire.send("HEAD", "/acme/default/new-nonce")
    assert "Replay-Nonce" in answer.one("Access-Control-Expose-Headers")


def test_terms_that_changed_are_agreed_to_anew(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A new version, a restart: 403 with where to read, until the client agrees."""
    terms = {
        "terms_of_service": "https://pki.example.test/terms",
        "terms_version": "1",
        "terms_instructions": "https://pki.example.test/how",
    }
    with running(tmp_path_factory.mktemp("terms"), community=terms) as door:
        client = door.trusted()
        client.certificate(fresh_name())
        door.penstock.stop()
        config = json.loads(door.penstock.config.read_text("utf-8"))
        config["communities"]["default"]["terms_version"] = "2"
        door.penstock.config.write_text(json.dumps(config), "utf-8")
        door.penstock.start()
        refused = client.order(fresh_name())
        assert (refused.status, refused.problem) == (403, "userActionRequired")
        assert refused.json()["instance"] == "https://pki.example.test/how"
        assert '<https://pki.example.test/terms>;rel="terms-of-service"' in refused.all("Link")
        agreed = client.register()
        assert agreed.status == 200
        client.certificate(fresh_name())
