"""Nonces over TLS: good once, at the boot that made them, and for nothing else."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from tests.e2e.bad_requests import DROP, Bad, Draft, Holdings, names_of, refuse_then_pass
from tests.e2e.front_door import FrontDoor, running
from tests.e2e.requester import JOSE, Reply, Wire, check_refusal, sealed, target_of

pytestmark = pytest.mark.e2e

REPLAYED = 250
"""Requests that are replayed: reads, which cost the broker least."""

REPLAYS = 4
"""How often each is sent again: 1,000 replays in all."""

REPLAY_MEMORY_BYTES = 16 * 1024 * 1024
"""Most that a thousand replays may add to the broker's memory; what is spent is a bit each."""


def nonce(value: object) -> Callable[[Draft], None]:
    """Return what puts something else in the nonce's place."""
    return lambda draft: draft.header(nonce=value)


def genuine(change: Callable[[str], str]) -> Callable[[Draft], None]:
    """Return what changes the nonce that was issued for this request."""
    return lambda draft: draft.header(nonce=change(draft.protected["nonce"]))


def flipped(place: int) -> Callable[[str], str]:
    """Return what changes one character of a nonce for another of the alphabet."""
    return lambda text: text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]


def spent(draft: Draft) -> None:
    """Use the nonce before, for a request that is good."""
    owner = draft.holdings.owner
    assert owner.post(draft.holdings.urls["account"], nonce=draft.protected["nonce"]).status == 200


def spent_by_somebody_else(draft: Draft) -> None:
    """Let another account use the nonce before: nonces are bound to nobody."""
    other = draft.holdings.door.account()
    assert other.post(other.kid or "", nonce=draft.protected["nonce"]).status == 200


def spent_on_a_refusal(draft: Draft) -> None:
    """Use the nonce before, for a request whose signature does not verify."""
    again = draft.holdings.draft("account", nonce=draft.protected["nonce"])
    again.after_signing.append(lambda jws: {**jws, "signature": "A" * 86})
    assert draft.holdings.send(again).problem == "malformed"


TABLE = [
    *(Bad(f"nonce {name}", where, nonce(value), "badNonce", "no nonce")
      for where in ("account", "new-account", "new-order", "revoke-cert")
      for name, value in (("missing", DROP), ("null", None), ("empty", ""))),
    *(Bad(f"nonce {name}", "account", nonce(value), "malformed", "not base64url")
      for name, value in (("a number", 1), ("a list", ["AAAA"]), ("an object", {}),
                          ("true", True), ("padded", "QUFB="), ("plain base64", "AA+/"),
                          ("with a line break", "AAAA\nAAAA"), ("with a space", "AAAA AAAA"),
                          ("not ASCII", "ä" * 40), ("of 513 characters", "A" * 513),
                          ("of 40,000 characters", "A" * 40_000))),
    Bad("nonce of 10 MB", "account", nonce("A" * 10_000_000), "malformed", "limit of 65536 bytes",
        status=413),
    *(Bad(f"nonce forged: {name}", "account", nonce(value), "badNonce", "not issued by this server")
      for name, value in (("zeros", "A" * 40), ("short", "A"), ("long", "A" * 512),
                          ("41 characters", "A" * 41))),
    *(Bad(f"nonce flipped at {place}", "account", genuine(flipped(place)), "badNonce", "not issued")
      for place in (0, 10, 15, 18, 19, 20, 30, 39)),
    Bad("nonce cut short", "account", genuine(lambda text: text[:-1]), "badNonce", "not issued"),
    Bad("nonce with more", "account", genuine(lambda text: text + "A"), "badNonce", "not issued"),
    Bad("nonce in other case", "account", genuine(str.swapcase), "badNonce", "not issued"),
    Bad("nonce spent", "account", spent, "badNonce", "used before"),
    Bad("nonce spent, order", "new-order", spent, "badNonce", "used before"),
    Bad("nonce spent by another account", "account", spent_by_somebody_else, "badNonce",
        "used before"),
    Bad("nonce spent on a refusal", "account", spent_on_a_refusal, "badNonce", "used before"),
]  # fmt: skip
"""RFC 8555 §6.5."""


@pytest.mark.parametrize("bad", TABLE, ids=names_of(TABLE))
def test_nonce_is_refused_and_the_fresh_one_carries_the_request(
    holdings: Holdings, bad: Bad
) -> None:
    """A client that takes the nonce of the refusal gets through at once."""
    refuse_then_pass(holdings, bad)


def test_the_table_is_long_enough() -> None:
    """At least 30 nonces are tried."""
    assert len(TABLE) >= 30


def test_a_thousand_replays_of_valid_requests_are_all_refused(holdings: Holdings) -> None:
    """None of them is answered with anything but badNonce, and none costs memory."""
    door, owner = holdings.door, holdings.owner
    url = holdings.urls["order"]
    bodies = [sealed(owner.header(url), b"", owner.key) for _ in range(REPLAYED)]

    def send(body: bytes) -> Reply:
        return door.wire.send("POST", target_of(url), body, [("Content-Type", JOSE)])

    assert {send(body).status for body in bodies} == {200}
    memory = door.penstock.memory_bytes()
    replies = [send(body) for body in bodies for _ in range(REPLAYS)]
    assert len(replies) == 1000
    for reply in replies:
        check_refusal(reply, "badNonce", 400, "used before")
    assert len({reply.nonce for reply in replies}) == len(replies)
    assert door.penstock.memory_bytes() - memory < REPLAY_MEMORY_BYTES


def test_of_requests_at_once_with_one_nonce_one_passes(holdings: Holdings) -> None:
    """Eight connections race with eight orders under one nonce: one order is made."""
    owner, url = holdings.owner, holdings.owner.url("new-order")
    drafts = [holdings.draft("new-order") for _ in range(8)]
    shared = owner.nonce()
    for draft in drafts:
        draft.header(nonce=shared)
    bodies = [draft.encoded() for draft in drafts]
    orders = holdings.door.penstock.count("orders")
    start = Barrier(len(bodies))

    def race(body: bytes) -> int:
        wire = Wire(holdings.door.penstock)
        wire.send("GET", "/acme/directory")
        start.wait(10)
        status = wire.send("POST", target_of(url), body, [("Content-Type", JOSE)]).status
        wire.close()
        return status

    with ThreadPoolExecutor(len(bodies)) as pool:
        assert sorted(pool.map(race, bodies)) == [201] + [400] * 7
    assert holdings.door.penstock.count("orders") == orders + 1


def test_every_way_to_a_nonce_leads_to_one_that_works(holdings: Holdings) -> None:
    """By HEAD and GET newNonce, and with every answer, whatever its status (RFC 8555 §6.5)."""
    wire, owner = holdings.door.wire, holdings.owner
    account = holdings.urls["account"]
    for method, path, status in (
        ("HEAD", "/acme/default/new-nonce", 200),
        ("GET", "/acme/default/new-nonce", 204),
        ("GET", "/acme/directory", 200),
        ("GET", "/acme/default/new-order", 405),
        ("GET", "/nowhere", 404),
    ):
        reply = wire.send(method, path)
        assert (reply.status, reply.one("Cache-Control")) == (status, "no-store")
        assert owner.post(account, nonce=reply.nonce).status == 200


@pytest.fixture(scope="module")
def neighbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """Another broker, which is started anew by a test."""
    with running(tmp_path_factory.mktemp("neighbour")) as door:
        yield door


def test_nonce_of_another_broker_is_refused(neighbour: FrontDoor, holdings: Holdings) -> None:
    """A broker cannot know whether a nonce that it did not make was spent."""
    client = neighbour.account()
    refused = client.post(client.kid or "", nonce=holdings.owner.nonce())
    check_refusal(refused, "badNonce", 400, "not issued by this server since it started")
    assert client.post(client.kid or "", nonce=refused.nonce).status == 200


def test_nonce_from_before_a_restart_is_refused(neighbour: FrontDoor) -> None:
    """Whether it was spent is forgotten with the boot that made it; the account is not."""
    client = neighbour.account()
    url = client.kid or ""
    unused = client.nonce()
    used = sealed(client.header(url), b"", client.key)
    assert neighbour.wire.send("POST", target_of(url), used, [("Content-Type", JOSE)]).status == 200
    neighbour.wire.close()
    neighbour.penstock.stop()
    neighbour.penstock.start()
    replayed = neighbour.wire.send("POST", target_of(url), used, [("Content-Type", JOSE)])
    check_refusal(replayed, "badNonce", 400, "since it started")
    refused = client.post(url, nonce=unused)
    check_refusal(refused, "badNonce", 400, "since it started")
    assert client.post(url, nonce=refused.nonce).json()["status"] == "valid"
