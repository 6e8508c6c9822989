"""Clients that ask too often harm nobody: what they get is counted, and others go on."""

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.front_door import PROVABLE, FrontDoor, running
from tests.e2e.requester import Client, Wire, fresh_name, target_of
from tests.peers import process

pytestmark = pytest.mark.e2e

POLLS, PERIOD = 60, 60
"""What the account limit of this broker lets through: so many polls, and one a second."""

LOOPS = 8
"""Connections of the client that polls in a tight loop."""

FLOOD = 700
"""Refused orders of one client, a hundred more than are kept of a minute; they take seconds."""

GOOD_ORDERS = 10
"""Whole orders that go on beside it."""

JUDGED_SECONDS = 60.0
"""Longest wait for a validation that fails; it takes milliseconds."""


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """A broker with limits that one client reaches soon."""
    rates = {"account": f"{POLLS}/{PERIOD}s", "failed_validations": "2/1h"}
    with running(tmp_path_factory.mktemp("limits"), limits={"rates": rates}) as made:
        yield made


class Loop(threading.Thread):
    """Polls an order as fast as it is answered, heeding nothing."""

    def __init__(self, client: Client, url: str) -> None:
        super().__init__(daemon=True)
        self.statuses: Counter[int] = Counter()
        self.has_to_end = False
        self._client, self._url = client, url

    def run(self) -> None:
        """Poll until told to end."""
        nonce = self._client.nonce()
        while not self.has_to_end:
            reply = self._client.post(self._url, nonce=nonce)
            self.statuses[reply.status] += 1
            nonce = reply.nonce


def limited(door: FrontDoor, limit: str) -> float:
    """Return how often a limit was reached, as the metrics tell."""
    pattern = rf'^penstock_rate_limited_total{{limit="{limit}"}} ([0-9.e+]+)$'
    (value,) = re.findall(pattern, door.penstock.metrics(), re.MULTILINE)
    return float(value)


def test_client_in_a_tight_loop_delays_nobody(door: FrontDoor) -> None:
    """It gets its share and then an answer a second on each connection; orders beside it go on.

    Nothing is timed but the loop itself: what it got is counted against what its rate allows.
    """
    abuser, good = door.trusted(), door.trusted()
    url, _ = abuser.new_order(fresh_name())
    wires = [Wire(door.penstock) for _ in range(LOOPS)]
    loops = [Loop(Client(wire, abuser.base, abuser.key, abuser.kid), url) for wire in wires]
    started = time.monotonic()
    for loop in loops:
        loop.start()
    try:
        for _ in range(GOOD_ORDERS):
            good.certificate(fresh_name())
        # Long enough for the loops to be refused, however fast the orders were.
        while time.monotonic() - started < 3 or not any(loop.statuses[429] for loop in loops):
            assert time.monotonic() - started < 60, "nobody was refused"
            good.post(good.kid or "")
            time.sleep(0.2)
    finally:
        for loop in loops:
            loop.has_to_end = True
        for loop in loops:
            loop.join(60)
        seconds = time.monotonic() - started
        for wire in wires:
            wire.close()
    seen = sum((loop.statuses for loop in loops), Counter())
    assert set(seen) == {200, 429}
    assert seen[200] <= POLLS + seconds * POLLS / PERIOD + LOOPS
    assert seen[429] <= LOOPS * (seconds + 2), "refusals are held back for a second each"
    assert limited(door, "account") >= seen[429]


def test_client_that_waits_as_told_is_served(door: FrontDoor) -> None:
    """429 with whole seconds, help, and a nonce; after that time the request passes."""
    client = door.trusted()
    assert client.kid is not None
    reply = client.post(client.kid)
    # More than there are at first: on a busy machine some come back meanwhile.
    for _ in range(10 * POLLS):
        if reply.status == 429:
            break
        reply = client.post(client.kid, nonce=reply.nonce)
    assert (reply.status, reply.problem) == (429, "rateLimited")
    helping = [one for one in reply.all("Link") if 'rel="help"' in one]
    page = door.wire.send("GET", target_of(helping[0].split(">")[0].lstrip("<")))
    assert page.status == 200
    assert b"Retry-After" in page.body
    time.sleep(int(reply.one("Retry-After")))
    assert client.post(client.kid, nonce=reply.nonce).status == 200


def wait_until_judged(door: FrontDoor, url: str) -> None:
    """Wait until an authorization is pending no more, past the broker: whoever asks it again and
    again for as long as a busy machine takes is over the account's limit."""
    query = "SELECT status FROM authorizations WHERE authorization_id = ?"
    process.wait_until(
        lambda: door.penstock.rows(query, url.rpartition("/")[2]) != [("pending",)],
        JUDGED_SECONDS,
        "the authorization is judged",
    )


def test_name_that_keeps_failing_is_not_ordered_again(door: FrontDoor) -> None:
    """By this account; the refusal names it, and other names are ordered as before."""
    client = door.account()
    name = PROVABLE[5]
    for _ in range(2):
        _, order = client.new_order(name)
        authorization = client.post(order["authorizations"][0]).json()
        (challenge,) = [c for c in authorization["challenges"] if c["type"] == "http-01"]
        client.post(challenge["url"], {})
        wait_until_judged(door, order["authorizations"][0])
        assert client.post(order["authorizations"][0]).json()["status"] == "invalid"
    refused = client.order(name)
    assert (refused.status, refused.problem) == (429, "rateLimited")
    (subproblem,) = refused.json()["subproblems"]
    assert subproblem["identifier"] == {"type": "dns", "value": name}
    assert client.order(PROVABLE[6]).status == 201
    assert door.account().order(name).status == 201
    assert limited(door, "failed-validations") == 1


def test_connections_of_one_address_are_bounded(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Past the bound they are closed; when some end, there is room again."""
    limits = {"connections_per_address": 4}
    with running(tmp_path_factory.mktemp("connections"), limits=limits) as door:
        wires = [door.wire, *(Wire(door.penstock) for _ in range(5))]
        got = []
        for wire in wires:
            try:
                got.append(wire.send("HEAD", "/acme/default/new-nonce").status)
            except OSError:
                got.append(0)
        assert got == [200] * 4 + [0] * 2
        assert limited(door, "connections") == 2
        for wire in wires[1:4]:
            wire.close()
        deadline = time.monotonic() + 60
        while True:
            again = Wire(door.penstock)
            try:
                assert again.send("HEAD", "/acme/default/new-nonce").status == 200
                break
            except OSError:
                assert time.monotonic() < deadline, "no room was made"
                time.sleep(0.05)
            finally:
                again.close()


def test_no_refusal_of_a_flood_is_lost_to_an_orderly_stop(tmp_path: Path) -> None:
    """Past 600 a minute they are counted, by the listener and by policy, and nothing follows that
    could tell: the broker does, as it ends."""
    with running(tmp_path / "flooded") as door:
        client = door.trusted()
        for _ in range(FLOOD):
            assert client.order("www.nobody.invalid").status == 400
        door.penstock.stop()
        rows = door.penstock.rows(
            "SELECT kind, data FROM events WHERE kind IN ('request-refused', 'refusals-left-out')"
        )
    told: Counter[str] = Counter()
    for kind, text in rows:
        data = json.loads(text)
        if kind == "refusals-left-out":
            told[f"left out by {data['by']}"] += data["left_out"]
        else:
            by = "policy" if "findings" in data else "listener"
            told[f"kept by {by}"] += 1
            told[f"left out by {by}"] += data.get("left_out_before", 0)
    for by in ("policy", "listener"):
        assert told[f"kept by {by}"] + told[f"left out by {by}"] == FLOOD, told
        assert told[f"left out by {by}"] > 0, told
