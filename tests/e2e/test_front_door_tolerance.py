"""The directory, tolerance for the ways of old clients, and patience with a slow CA."""

import json
import re

import pytest

from tests.e2e.front_door import COMMUNITIES, PROVABLE, STRICT, FrontDoor, Thinking
from tests.e2e.requester import Client, Reply, check_refusal, fresh_name, leaf_of, target_of
from tests.fakes.hostile_ca import Fault, Resource
from tests.peers import process
from tests.unit.protocol.builders import b64url, make_csr

pytestmark = pytest.mark.e2e


# ------------------------------------------------------------------------------ the directory


MEMBERS = {"newNonce": "new-nonce", "newAccount": "new-account", "newOrder": "new-order",
           "revokeCert": "revoke-cert", "keyChange": "key-change",
           "renewalInfo": "renewal-info"}  # fmt: skip


def test_directory_tells_what_there_is(front_door: FrontDoor) -> None:
    """Absolute URLs of what works and of nothing else; the short path gives the default's."""
    origin = front_door.penstock.external_url
    for community in COMMUNITIES:
        document = front_door.wire.send("GET", f"/acme/{community}/directory").json()
        meta = document.pop("meta")
        base = f"{origin}/acme/{community}"
        assert document == {name: f"{base}/{path}" for name, path in MEMBERS.items()}
        told = {
            "termsOfService": STRICT["terms_of_service"],
            "website": STRICT["website"],
            "caaIdentities": STRICT["caa_identities"],
            "externalAccountRequired": True,
        }
        profiles = {"profiles": {"server": "TLS servers of the tests"}}
        assert meta == ({**told, **profiles} if community == "strict" else profiles)
    short = front_door.wire.send("GET", "/acme/directory")
    assert short.json() == front_door.wire.send("GET", "/acme/default/directory").json()


def test_post_as_get_reads_what_get_reads(front_door: FrontDoor) -> None:
    """RFC 8555 §6.3 leaves both ways to the directory and to newNonce."""
    client = front_door.account()
    for resource, method in (("directory", "GET"), ("new-nonce", "GET")):
        url = client.url(resource)
        read = front_door.wire.send(method, target_of(url))
        posted = client.post(url)
        assert (posted.status, posted.body) == (read.status, read.body)


def test_strict_community_asks_for_terms_and_binding(front_door: FrontDoor) -> None:
    """UserActionRequired leads to the terms; externalAccountRequired tells whom to ask."""
    client = front_door.client("strict")
    url = client.url("new-account")
    reply = client.post(url, {}, by_key=True)
    check_refusal(reply, "userActionRequired", 403, "terms of service")
    assert f'<{STRICT["terms_of_service"]}>;rel="terms-of-service"' in reply.all("Link")
    refused = client.register()
    check_refusal(refused, "externalAccountRequired", 403, "external account binding")
    assert client.register(mac_key=b"and in the one that wants a binding").status == 201


# ---------------------------------------------------------------------------------- tolerance


def test_empty_object_reads_as_well(front_door: FrontDoor) -> None:
    """Old clients send ``{}`` where POST-as-GET is due: whatever only reads gives them the same."""
    client = front_door.trusted()
    name = fresh_name()
    url, order = client.new_order(name)
    _, pending = client.new_order(PROVABLE[0])
    valid = client.finalize(order, make_csr([name])).json()
    for one in (client.kid or "", url, pending["authorizations"][0], valid["certificate"]):
        read = client.post(one)
        assert (read.status, read.body) == (200, client.post(one, {}).body)


UNKNOWN = {"resource": "new-reg", "x-unknown": {"a": [1, None]}, "orders": "https://evil.example"}


def test_unknown_members_are_ignored_and_not_reflected(front_door: FrontDoor) -> None:
    """RFC 8555 §7.3 for accounts; old clients put ``resource`` and ``keyAuthorization`` in."""
    client = front_door.client()
    replies = [client.register(mac_key=b"a MAC key that only the farm holds", **UNKNOWN)]
    assert replies[0].status == 201
    account = {**UNKNOWN, "contact": ["mailto:a@example.com"], "status": "revoked",
               "termsOfServiceAgreed": False, "onlyReturnExisting": True}  # fmt: skip
    replies.append(client.post(client.kid or "", account))
    assert replies[-1].json()["status"] == "valid"
    identifier = {"type": "dns", "value": PROVABLE[1], "wildcard": False, "x-unknown": 1}
    order = {**UNKNOWN, "identifiers": [identifier], "status": "valid", "notAfter": None}
    replies.append(client.post(client.url("new-order"), order))
    made = replies[-1].json()
    assert (made["status"], made["identifiers"]) == (
        "pending",
        [{"type": "dns", "value": PROVABLE[1]}],
    )
    authorization = client.post(made["authorizations"][0]).json()
    answer = {**UNKNOWN, "keyAuthorization": "token.thumbprint", "type": "http-01"}
    replies.append(client.post(authorization["challenges"][0]["url"], answer))
    _, ready = client.new_order(fresh_name())
    csr_der = make_csr([ready["identifiers"][0]["value"]])
    replies.append(client.post(ready["finalize"], {**UNKNOWN, "csr": b64url(csr_der)}))
    leaf = leaf_of(client.post(replies[-1].json()["certificate"]).body)
    replies.append(client.post(client.url("revoke-cert"), {**UNKNOWN, "certificate": b64url(leaf)}))
    for reply in replies:
        assert reply.status in {200, 201}, reply.body
        for word in ("resource", "x-unknown", "onlyReturnExisting", "keyAuthorization"):
            assert f'"{word}"' not in reply.body.decode()
        assert "evil" not in reply.body.decode()


def test_profile_is_read_in_either_spelling(front_door: FrontDoor) -> None:
    """Eggsampler writes ``Profile``."""
    client = front_door.trusted()
    for spelling in ("profile", "Profile"):
        assert client.order(fresh_name(), **{spelling: "server"}).json()["profile"] == "server"
        check_refusal(
            client.order(fresh_name(), **{spelling: "nowhere"}), "invalidProfile", 400, "nowhere"
        )


def test_existing_key_gets_its_account_whatever_else_it_says(front_door: FrontDoor) -> None:
    """RFC 8555 §7.3.1: 200, the same Location, and nothing of the request is taken over."""
    client = front_door.account()
    before = client.post(client.kid or "").body
    found = client.register(contact=["mailto:new@example.com"], onlyReturnExisting=True)
    assert (found.status, found.body) == (200, before)
    assert client.post(client.kid or "").body == before
    stranger = front_door.client()
    check_refusal(
        stranger.register(onlyReturnExisting=True), "accountDoesNotExist", 400, "no account"
    )
    assert stranger.register().status == 201


# ----------------------------------------------------------------------------- a CA that thinks


def finalized(client: Client) -> tuple[str, Reply]:
    """Make an order and finalize it; returns its URL and the answer to finalize."""
    name = fresh_name()
    url, order = client.new_order(name)
    return url, client.finalize(order, make_csr([name]))


def test_finalized_order_is_processing_until_the_ca_is_done(thinking: Thinking) -> None:
    """Finalize says ``processing`` with Location and Retry-After; then it is valid."""
    asked = thinking.ca.ledger().count(Resource.FINALIZE)
    thinking.tell(Fault.hanging(Resource.FINALIZE))
    client = thinking.door.trusted()
    url, reply = finalized(client)
    for each in (reply, client.post(url)):
        assert (each.status, each.one("Location")) == (200, url)
        assert re.fullmatch(r"[1-9]\d*", each.one("Retry-After"))
        document = each.json()
        assert document["status"] == "processing"
        assert not {"certificate", "error"} & set(document)
    thinking.ca.wait_seen(Resource.FINALIZE, asked + 1)
    thinking.ca.release()
    statuses = set()

    def is_done() -> bool:
        statuses.add(client.post(url).json()["status"])
        return "valid" in statuses

    process.wait_until(is_done, 60, "the order is valid")
    assert statuses <= {"processing", "valid"}
    assert client.post(url).all("Retry-After") == []


def test_refused_order_is_invalid_and_says_why(thinking: Thinking) -> None:
    """``error`` is a problem document, there once it is over and not before."""
    refusal = Fault.refusal(Resource.FINALIZE, 403, "rejectedIdentifier", detail="not this name")
    thinking.tell(refusal)
    client = thinking.door.trusted()
    url, reply = finalized(client)
    process.wait_until(
        lambda: client.post(url).json()["status"] == "invalid", 60, "the order is invalid"
    )
    assert reply.json()["status"] in {"processing", "invalid"}
    document = client.post(url).json()
    assert document["error"]["type"].startswith("urn:ietf:params:acme:error:")
    assert "not this name" in json.dumps(document["error"])
    assert "127.0.0.1" not in json.dumps(document["error"])
    assert "null" not in json.dumps(document)
    # The twin: the same CA, not told to refuse.
    thinking.tell()
    url, _ = finalized(client)
    process.wait_until(lambda: client.post(url).json()["status"] == "valid", 60, "it is valid")
