"""No account sees or uses anything of another: every object kind × every verb × every stranger."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.front_door import PROVABLE, FrontDoor
from tests.e2e.requester import (
    JOSE,
    Client,
    Reply,
    check_refusal,
    fresh_name,
    leaf_of,
    target_of,
)
from tests.unit.protocol.builders import b64url, make_csr, private_key

pytestmark = pytest.mark.e2e

NAMES = itertools.cycle(PROVABLE)


@dataclass
class Estate:
    """An owner and everything it has: an open and a ready order, and one with a certificate."""

    door: FrontDoor
    owner: Client
    urls: dict[str, str]
    csr_der: bytes
    """Fits the ready order."""
    leaf_der: bytes
    key: Any
    """The certificate's."""

    @classmethod
    def of(cls, door: FrontDoor) -> "Estate":
        """Make an owner and its objects."""
        owner = door.trusted()
        key = private_key("ES256", fresh_name())
        issued, leaf_der = owner.certificate(fresh_name(), key=key)
        pending_url, pending = owner.new_order(next(NAMES))
        name = fresh_name()
        ready_url, ready = owner.new_order(name)
        challenge = owner.post(pending["authorizations"][0]).json()["challenges"][0]
        urls = {
            "account": owner.kid or "",
            "pending order": pending_url,
            "ready order": ready_url,
            "finalize": ready["finalize"],
            "pending authorization": pending["authorizations"][0],
            "granted authorization": ready["authorizations"][0],
            "challenge": challenge["url"],
            "certificate": issued["certificate"],
            "revoke": owner.url("revoke-cert"),
        }
        return cls(door, owner, urls, make_csr([name]), leaf_der, key)

    def state(self) -> dict[str, object]:
        """Return every object as its owner sees it, and every row that the store has of it."""
        seen: dict[str, object] = {
            name: self.owner.post(url).body
            for name, url in self.urls.items()
            if name not in {"finalize", "revoke"}
        }
        account_id = self.urls["account"].rpartition("/")[2]
        for table in ("accounts", "orders", "authorizations", "certificates"):
            query = f"SELECT * FROM {table} WHERE account_id = ? ORDER BY 1"
            seen[table] = self.door.penstock.rows(query, account_id)
        seen["challenges"] = self.door.penstock.rows(
            "SELECT * FROM challenges WHERE authorization_id IN "
            "(SELECT authorization_id FROM authorizations WHERE account_id = ?) ORDER BY 1, 2",
            account_id,
        )
        return seen


@dataclass(frozen=True)
class Verb:
    """One thing to do with one kind of object, and what a stranger hears."""

    kind: str
    name: str
    payload: Callable[[Estate], Any]
    refusal: tuple[str, int] = ("malformed", 404)

    def __str__(self) -> str:
        return f"{self.name} {self.kind}"


def nothing(_estate: Estate) -> None:
    """Ask by POST-as-GET."""


def deactivation(_estate: Estate) -> dict[str, str]:
    """Ask for the end of something."""
    return {"status": "deactivated"}


NOT_YOURS = ("unauthorized", 403)

VERBS = [
    Verb("account", "read", nothing, NOT_YOURS),
    Verb("account", "update", lambda _: {"contact": ["mailto:new@example.com"]}, NOT_YOURS),
    Verb("account", "deactivate", deactivation, NOT_YOURS),
    Verb("pending order", "read", nothing),
    Verb("ready order", "read", nothing),
    Verb("finalize", "finalize", lambda estate: {"csr": b64url(estate.csr_der)}),
    Verb("pending authorization", "read", nothing),
    Verb("granted authorization", "read", nothing),
    Verb("pending authorization", "deactivate", deactivation),
    Verb("granted authorization", "deactivate", deactivation),
    Verb("challenge", "read", nothing),
    Verb("challenge", "respond", lambda _: {}),
    Verb("certificate", "download", nothing),
    Verb("revoke", "revoke", lambda estate: {"certificate": b64url(estate.leaf_der)}, NOT_YOURS),
]
"""Every object kind × every verb that it knows."""

Ask = Callable[[Estate, str, Any], Reply]
"""How a stranger asks for a URL with a payload."""


def account(estate: Estate, url: str, payload: Any) -> Reply:
    """Ask as another account."""
    return estate.door.account().post(url, payload)


def trusted_account(estate: Estate, url: str, payload: Any) -> Reply:
    """Ask as another account that the same EAB key was bound to."""
    return estate.door.trusted().post(url, payload)


def other_community(estate: Estate, url: str, payload: Any) -> Reply:
    """Ask as an account of the other community."""
    return estate.door.trusted("other").post(url, payload)


def through_other_community(estate: Estate, url: str, payload: Any) -> Reply:
    """Ask the other community, as an account of it, for the same id."""
    return estate.door.trusted("other").post(url.replace("/default/", "/other/"), payload)


def same_key_elsewhere(estate: Estate, url: str, payload: Any) -> Reply:
    """Ask as the account that the owner's own key has in the other community."""
    return estate.door.trusted("other", key=estate.owner.key).post(
        url.replace("/default/", "/other/"), payload
    )


def embedded_key(estate: Estate, url: str, payload: Any) -> Reply:
    """Ask by key, without an account."""
    return estate.door.client().post(url, payload, by_key=True)


def owners_key_embedded(estate: Estate, url: str, payload: Any) -> Reply:
    """Ask by the account's key where its URL belongs: a key alone is no account."""
    return estate.owner.post(url, payload, by_key=True)


def other_key(estate: Estate, url: str, payload: Any) -> Reply:
    """Ask in the owner's name, signed by a key of one's own."""
    return estate.door.client(kid=estate.owner.kid).post(url, payload)


def deactivated(estate: Estate, url: str, payload: Any) -> Reply:
    """Ask as an account that is no more."""
    leaver = estate.door.trusted()
    assert leaver.post(leaver.kid or "", {"status": "deactivated"}).status == 200
    return leaver.post(url, payload)


def unsigned(estate: Estate, url: str, payload: Any) -> Reply:
    """Ask without a signature."""
    body = json.dumps(payload or {}).encode()
    return estate.door.wire.send("POST", target_of(url), body, [("Content-Type", JOSE)])


def by_get(estate: Estate, url: str, payload: Any) -> Reply:
    """Ask as a browser would."""
    return estate.door.wire.send("GET", target_of(url))


STRANGERS: dict[Ask, tuple[str, int] | None] = {
    account: None,
    trusted_account: None,
    other_community: ("accountDoesNotExist", 400),
    through_other_community: None,
    same_key_elsewhere: None,
    embedded_key: ("malformed", 400),
    owners_key_embedded: ("malformed", 400),
    other_key: ("malformed", 400),
    deactivated: ("unauthorized", 401),
    unsigned: ("malformed", 400),
    by_get: ("malformed", 405),
}
"""Who asks, and what all of it is refused with; None where that is the verb's matter."""


def due_refusal(verb: Verb, ask: Ask) -> tuple[str, int]:
    """Return what this stranger hears of this verb."""
    if verb.kind == "revoke" and ask in {embedded_key, owners_key_embedded}:
        return NOT_YOURS  # a key may speak there, but only the certificate's own
    return STRANGERS[ask] or verb.refusal


@pytest.mark.parametrize("verb", VERBS, ids=str)
def test_verb_is_the_owners_alone(front_door: FrontDoor, verb: Verb) -> None:
    """Every stranger is refused, the objects stay as they were to the byte; the owner passes."""
    estate = Estate.of(front_door)
    url, payload = estate.urls[verb.kind], verb.payload(estate)
    issued = front_door.penstock.count("ca_certificates")
    before = estate.state()
    for ask in STRANGERS:
        kind, status = due_refusal(verb, ask)
        check_refusal(ask(estate, url, payload), kind, status, "")
        assert estate.state() == before, ask.__doc__
    assert front_door.penstock.count("ca_certificates") == issued
    assert estate.owner.post(url, payload).status == 200
    # What only reads changes nothing; every other verb has done what it says.
    assert (estate.state() == before) == (verb.name in {"read", "download"})


def test_every_kind_and_verb_is_tried() -> None:
    """At least 14 verbs × 11 strangers, and all URLs of an owner are among them."""
    assert len(VERBS) * len(STRANGERS) >= 150
    assert {verb.kind for verb in VERBS} == {
        *("account", "pending order", "ready order", "finalize", "pending authorization"),
        *("granted authorization", "challenge", "certificate", "revoke"),
    }


PAYLOADS: tuple[Any, ...] = (
    None,
    {},
    {"status": "deactivated"},
    {"status": "valid"},
    {"contact": ["mailto:thief@example.com"]},
    {"csr": "AAAA"},
    {"certificate": "AAAA"},
    {"identifiers": [{"type": "dns", "value": "thief.farm.example.test"}]},
)


@pytest.mark.parametrize("ask", STRANGERS, ids=lambda ask: ask.__name__)
def test_no_payload_opens_any_object(front_door: FrontDoor, ask: Ask) -> None:
    """Every URL of an owner × every payload there is: refused, with nothing changed."""
    estate = Estate.of(front_door)
    before = estate.state()
    for url, payload in itertools.product(estate.urls.values(), PAYLOADS):
        reply = ask(estate, url, payload)
        assert 400 <= reply.status < 500, (url, payload, reply.body)
        assert reply.problem
    assert estate.state() == before


def test_stranger_does_not_learn_what_there_is(front_door: FrontDoor) -> None:
    """The answer for what is another's equals the answer for what is nobody's, to the byte."""
    estate, stranger = Estate.of(front_door), front_door.account()
    for verb in VERBS:
        if verb.kind == "revoke":
            continue
        url, payload = estate.urls[verb.kind], verb.payload(estate)
        parts = [part if len(part) != 32 else "0" * 32 for part in url.split("/")]
        theirs = stranger.post(url, payload)
        nobodys = stranger.post("/".join(parts), payload)
        assert parts != url.split("/")
        assert (theirs.status, theirs.body) == (nobodys.status, nobodys.body)
    revoked = {"certificate": b64url(estate.leaf_der)}
    unknown = {"certificate": b64url(estate.leaf_der + b"\x00")}
    answers = [stranger.post(estate.urls["revoke"], each) for each in (revoked, unknown)]
    assert answers[0].body == answers[1].body


# --------------------------------------------------------------------------------- revocation


def revoke(client: Client, leaf_der: bytes, **options: Any) -> Reply:
    """Ask for a revocation."""
    return client.post(client.url("revoke-cert"), {"certificate": b64url(leaf_der)}, **options)


def test_grant_gives_no_right_to_revoke_what_another_ordered(front_door: FrontDoor) -> None:
    """Two trusted requesters with a certificate for one name each: neither can revoke the other's.

    Only control that a challenge has proved confers that right (RFC 8555 §7.6).
    """
    name = fresh_name()
    first, second = front_door.trusted(), front_door.trusted()
    _, leaf = first.certificate(name)
    second.certificate(name)
    second.new_order(name)
    check_refusal(revoke(second, leaf), "unauthorized", 403, "revoking wants")
    assert revoke(first, leaf).status == 200


def proved_certificate(door: FrontDoor, *names: str) -> tuple[Client, bytes]:
    """Return an account and a certificate that it got by challenges."""
    client = door.account()
    _, order = client.new_order(*names)
    client.prove(door.answers.key_authorizations, order)
    issued = client.finalize(order, make_csr(names)).json()
    chain = client.post(issued["certificate"])
    assert chain.status == 200
    return client, leaf_of(chain.body)


def test_control_of_every_name_gives_the_right_to_revoke(front_door: FrontDoor) -> None:
    """Control of one of two names is not enough, nor is that of another community; of both is."""
    names = (next(NAMES), next(NAMES))
    _, leaf = proved_certificate(front_door, *names)
    half = front_door.account()
    _, order = half.new_order(names[0])
    half.prove(front_door.answers.key_authorizations, order)
    check_refusal(revoke(half, leaf), "unauthorized", 403, "control of every name")
    elsewhere = front_door.account("other")
    _, order = elsewhere.new_order(*names)
    elsewhere.prove(front_door.answers.key_authorizations, order)
    check_refusal(revoke(elsewhere, leaf), "unauthorized", 403, "control of every name")
    _, pending = half.new_order(names[1])
    check_refusal(revoke(half, leaf), "unauthorized", 403, "control of every name")
    half.prove(front_door.answers.key_authorizations, pending)
    assert revoke(half, leaf).status == 200
    check_refusal(revoke(half, leaf), "alreadyRevoked", 400, "revoked already")


def test_control_that_was_given_up_gives_no_right(front_door: FrontDoor) -> None:
    """A deactivated authorization proves nothing any more."""
    name = next(NAMES)
    _, leaf = proved_certificate(front_door, name)
    former = front_door.account()
    _, order = former.new_order(name)
    former.prove(front_door.answers.key_authorizations, order)
    url = order["authorizations"][0]
    assert former.post(url, {"status": "deactivated"}).json()["status"] == "deactivated"
    check_refusal(revoke(former, leaf), "unauthorized", 403, "control of every name")


def test_key_of_the_certificate_gives_the_right_and_no_other_key_does(
    front_door: FrontDoor,
) -> None:
    """The account's own key embedded is not enough: it speaks for no certificate."""
    estate = Estate.of(front_door)
    for key in (estate.owner.key, private_key("ES256", "nobody's")):
        client = front_door.client(key=key)
        check_refusal(
            revoke(client, estate.leaf_der, by_key=True), "unauthorized", 403, "the certificate's"
        )
    other = front_door.client("other", key=estate.key)
    check_refusal(
        revoke(other, estate.leaf_der, by_key=True), "unauthorized", 403, "the certificate's own"
    )
    holder = front_door.client(key=estate.key)
    assert revoke(holder, estate.leaf_der, by_key=True).status == 200


def test_same_name_of_two_owners_gives_each_its_own_certificate(front_door: FrontDoor) -> None:
    """Orders, authorizations and certificates of one name are never shared between accounts."""
    name = fresh_name()
    owners = [front_door.trusted(), front_door.trusted(), front_door.trusted("other")]
    orders = [owner.new_order(name) for owner in owners]
    urls = [{url, order["finalize"], *order["authorizations"]} for url, order in orders]
    assert len(set.union(*urls)) == sum(len(each) for each in urls)
    issued = [
        owner.finalize(order, make_csr([name], key=private_key("ES256", fresh_name()))).json()
        for owner, (_, order) in zip(owners, orders, strict=True)
    ]
    leaves = [
        leaf_of(owner.post(order["certificate"]).body)
        for owner, order in zip(owners, issued, strict=True)
    ]
    assert len(set(leaves)) == len(owners)
    for owner, order in itertools.product(owners, issued):
        reply = owner.post(order["certificate"])
        is_own = order["certificate"] == issued[owners.index(owner)]["certificate"]
        assert (reply.status == 200) == is_own


def test_authorization_of_one_name_opens_no_other_order(front_door: FrontDoor) -> None:
    """Proof of a name is proof for its order, not for a parent, a child or a wildcard of it."""
    client, name = front_door.account(), next(NAMES)
    _, order = client.new_order(name)
    client.prove(front_door.answers.key_authorizations, order)
    for other in (f"*.{name}", f"www.{name}", name):
        _, made = client.new_order(other)
        (authorization,) = made["authorizations"]
        shown = client.post(authorization).json()
        assert (made["status"], shown["status"]) == ("pending", "pending")
        reply = client.finalize(made, make_csr([other]))
        check_refusal(reply, "orderNotReady", 403, "")
    parent = front_door.account().order("example.test")
    check_refusal(parent, "rejectedIdentifier", 400, "")
    assert client.finalize(order, make_csr([name])).json()["status"] == "valid"
