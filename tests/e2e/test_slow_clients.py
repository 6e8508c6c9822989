"""Clients that are slow, greedy or gone: they cost little, and good orders go on beside them."""

from __future__ import annotations

import asyncio
import json
import ssl
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.front_door import FrontDoor, Thinking, running
from tests.e2e.requester import JOSE, Client, Wire, fresh_name, sealed, target_of
from tests.fakes.hostile_ca import Fault, Resource
from tests.peers import process
from tests.unit.protocol.builders import b64url, make_csr

pytestmark = pytest.mark.e2e

IDLE, HALF, DRIBBLING, GREEDY_REQUESTS, LARGE_BODIES = 200, 100, 50, 1000, 50
"""How many of each kind of attacker there are."""

GOOD_ORDERS = 30
"""Whole orders that go on beside the attackers: four requests each."""

BODY_SECONDS, IDLE_SECONDS = 3, 6
"""The limits that this broker is configured with: short, so that they are seen to hold."""

SLACK_SECONDS = 20.0
"""How much later than its limit a connection may be closed on a busy machine."""

GOOD_SECONDS = 1.0
"""What 95 of 100 good requests must take less than (threats J12)."""

GOOD_FACTOR = 10
"""How many times longer they may take beside attackers than without, where the machine is so busy
with something else that this is more."""

IDLE_BYTES = 128 * 1024
"""Most memory that an idle TLS connection may cost; 47 KiB are usual."""

GROWTH_BYTES = 96 * 1024 * 1024
"""Most that all attackers together may add to the broker's memory."""

BODY_LIMIT = 64 * 1024
"""Largest body that is read, in bytes."""

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontDoor]:
    """A broker with short limits, of its own: its memory is measured."""
    limits = {"body_timeout": f"{BODY_SECONDS}s", "idle_timeout": f"{IDLE_SECONDS}s"}
    with running(tmp_path_factory.mktemp("patient"), limits=limits) as door:
        client = door.trusted()
        for _ in range(10):
            client.certificate(fresh_name())
        yield door


@asynccontextmanager
async def connections(
    door: FrontDoor, count: int, first: bytes = b""
) -> AsyncIterator[list[Connection]]:
    """Open TLS connections that say *first* and no more."""
    context = ssl.create_default_context(cafile=str(door.penstock.ca_bundle))
    opened: list[Connection] = []
    try:
        for _ in range(count):
            made = await asyncio.open_connection("127.0.0.1", door.penstock.port, ssl=context)
            made[1].write(first)
            opened.append(made)
        yield opened
    finally:
        for _, writer in opened:
            writer.transport.abort()


def head(length: int) -> bytes:
    """Return the head of a newOrder request that announces a body."""
    return (
        b"POST /acme/default/new-order HTTP/1.1\r\nHost: a\r\nContent-Type: "
        + f"{JOSE}\r\nContent-Length: {length}\r\n\r\n".encode()
    )


async def closed(reader: asyncio.StreamReader, seconds: float) -> bytes:
    """Return what came before the broker closed the connection, which it must within a time."""
    async with asyncio.timeout(seconds):
        try:
            return await reader.read()
        except ConnectionError:
            return b""


@dataclass
class Seen:
    """What a good client saw."""

    statuses: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def usual(self) -> float:
        """What 95 of 100 took no longer than, in seconds."""
        return statistics.quantiles(self.seconds, n=20)[-1]

    def check(self, alone: Seen) -> None:
        """See that every request passed, and that 95 of 100 were quick; *alone* tells how quick
        they are on this machine now when nobody attacks."""
        assert self.statuses == [201, 200, 200, 200] * GOOD_ORDERS
        assert self.usual < max(GOOD_SECONDS, GOOD_FACTOR * alone.usual)


def order_on(door: FrontDoor) -> Seen:
    """Get certificates one after the other, over a connection of its own."""
    wire, seen = Wire(door.penstock), Seen()
    client = Client(wire, door.client().base)
    registered = door.trusted(key=client.key)
    client.kid = registered.kid
    for _ in range(GOOD_ORDERS):
        name = fresh_name()
        made = client.order(name)
        finalized = client.finalize(made.json(), make_csr([name]))
        chain = client.post(finalized.json()["certificate"])
        shown = client.post(made.one("Location"))
        assert shown.json()["status"] == "valid"
        for reply in (made, finalized, chain, shown):
            seen.statuses.append(reply.status)
            seen.seconds.append(reply.seconds)
    wire.close()
    return seen


def ask_for_nonces(door: FrontDoor) -> set[int]:
    """Ask for a nonce as fast as one connection can."""
    wire = Wire(door.penstock)
    path = "/acme/default/new-nonce"
    statuses = {wire.send("HEAD", path).status for _ in range(GREEDY_REQUESTS)}
    wire.close()
    return statuses


def send_large_bodies(door: FrontDoor) -> set[int]:
    """Send bodies of one byte too many."""
    wire, headers = Wire(door.penstock), [("Content-Type", JOSE)]
    body = b" " * (BODY_LIMIT + 1)
    path = "/acme/default/new-order"
    statuses = {wire.send("POST", path, body, headers).status for _ in range(LARGE_BODIES)}
    wire.close()
    return statuses


async def dribble(opened: list[Connection]) -> None:
    """Send a byte on each connection again and again, until the broker has enough of it."""
    while True:
        for _, writer in opened:
            if not writer.is_closing():
                writer.write(b" ")
        await asyncio.sleep(0.05)


async def test_good_orders_go_on_beside_every_kind_of_bad_client(
    patient: FrontDoor, note: Callable[[str, object], None]
) -> None:
    """Idle sockets, half and dribbled bodies, large ones, nonces by the thousand: all at once."""
    penstock = patient.penstock
    before = penstock.memory_bytes()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(connections(patient, IDLE))
        idle_bytes = (penstock.memory_bytes() - before) / IDLE
        half = head(60_000) + b" " * 30_000
        await stack.enter_async_context(connections(patient, HALF, half))
        slow = await stack.enter_async_context(connections(patient, DRIBBLING, head(60_000)))
        dribbling = asyncio.create_task(dribble(slow))
        good, nonces, large = await asyncio.gather(
            asyncio.to_thread(order_on, patient),
            asyncio.to_thread(ask_for_nonces, patient),
            asyncio.to_thread(send_large_bodies, patient),
        )
        growth = penstock.memory_bytes() - before
        dribbling.cancel()
    note("bytes of an idle connection", round(idle_bytes))
    note("bytes of all attackers", growth)
    note("slowest good request in seconds", round(max(good.seconds), 3))
    # The twin: without them it is no different, and what they took is not taken twice.
    alone = await asyncio.to_thread(order_on, patient)
    alone.check(alone)
    good.check(alone)
    assert (nonces, large) == ({200}, {413})
    assert idle_bytes < IDLE_BYTES
    assert growth < GROWTH_BYTES
    assert penstock.memory_bytes() - before < GROWTH_BYTES


async def test_connection_that_says_nothing_is_closed(patient: FrontDoor) -> None:
    """Before the first request and after one, once the configured time has passed."""
    request = b"GET /acme/directory HTTP/1.1\r\nHost: a\r\n\r\n"
    unfinished = b"GET /acme/directory HTTP/1.1\r\nHost: a\r\n"
    started = time.monotonic()
    async with AsyncExitStack() as stack:
        groups = [
            await stack.enter_async_context(connections(patient, 5, first))
            for first in (b"", unfinished, request)
        ]
        heard = [
            [await closed(reader, IDLE_SECONDS + SLACK_SECONDS) for reader, _ in group]
            for group in groups
        ]
    took = time.monotonic() - started
    assert took > IDLE_SECONDS - 1
    assert heard[0] == heard[1] == [b""] * 5
    assert all(said.startswith(b"HTTP/1.1 200 ") for said in heard[2])


async def test_body_that_does_not_come_is_given_up(patient: FrontDoor) -> None:
    """408 with a problem document once its time has passed, however busily bytes trickle in."""
    async with AsyncExitStack() as stack:
        silent = await stack.enter_async_context(connections(patient, 5, head(1000) + b"{"))
        slow = await stack.enter_async_context(connections(patient, 5, head(60_000)))
        dribbling = asyncio.create_task(dribble(slow))
        limit = BODY_SECONDS + IDLE_SECONDS + SLACK_SECONDS
        heard = [await closed(reader, limit) for reader, _ in [*silent, *slow]]
        dribbling.cancel()
    for said in heard:
        assert said.startswith(b"HTTP/1.1 408 "), said
        assert b"application/problem+json" in said
        assert f"body did not arrive within {BODY_SECONDS} s".encode() in said
    assert patient.account().kid


async def test_slow_body_within_its_time_passes(patient: FrontDoor) -> None:
    """The twin: a body in many pieces, in time, is a request like any other."""
    client = patient.account()
    url = client.kid or ""
    body = sealed(client.header(url), b"", client.key)
    first = (
        f"POST {target_of(url)} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        f"Content-Type: {JOSE}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    async with connections(patient, 1, first.encode()) as [(reader, writer)]:
        for start in range(0, len(body), 40):
            writer.write(body[start : start + 40])
            await writer.drain()
            await asyncio.sleep(0.05)
        assert (await closed(reader, SLACK_SECONDS)).startswith(b"HTTP/1.1 200 ")


# ----------------------------------------------------------------------- clients that leave


LEAVERS = 25
"""Orders whose client leaves while finalize is under way, each a millisecond later."""


def finalize_request(client: Client, order: Mapping[str, Any], name: str) -> bytes:
    """Return a whole finalize request."""
    url = order["finalize"]
    payload = json.dumps({"csr": b64url(make_csr([name]))}).encode()
    body = sealed(client.header(url), payload, client.key)
    first = (
        f"POST {target_of(url)} HTTP/1.1\r\nHost: a\r\nContent-Type: {JOSE}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return first.encode() + body


async def test_client_that_leaves_during_finalize_finds_it_done(patient: FrontDoor) -> None:
    """Wherever it is cut off, the order ends valid with one certificate, or can be finalized."""
    client = patient.trusted()
    issued = patient.penstock.count("ca_certificates")
    urls = []
    for number in range(LEAVERS):
        name = fresh_name()
        url, order = client.new_order(name)
        request = finalize_request(client, order, name)
        async with connections(patient, 1, request) as [(_, writer)]:
            await writer.drain()
            await asyncio.sleep(number / 1000)
        urls.append((url, order, name))
    statuses = []
    for url, order, name in urls:
        shown = client.post(url).json()
        statuses.append(shown["status"])
        if shown["status"] == "ready":  # it left before its request was taken
            assert client.finalize(order, make_csr([name])).status == 200
        process.wait_until(
            lambda url=url: client.post(url).json()["status"] == "valid",  # type: ignore[misc]
            60,
            f"the order of {name} is valid",
        )
    assert set(statuses) <= {"ready", "processing", "valid"}
    assert len(set(statuses)) > 1 or statuses[0] != "ready"
    assert patient.penstock.count("ca_certificates") == issued + LEAVERS


async def test_client_that_leaves_while_the_ca_thinks_loses_nothing(thinking: Thinking) -> None:
    """The CA holds its answer to finalize, the client is gone, the CA answers: it is valid."""
    asked = thinking.ca.ledger().count(Resource.FINALIZE)
    thinking.tell(Fault.hanging(Resource.FINALIZE, processed=True))
    client = thinking.door.trusted()
    name = fresh_name()
    url, order = client.new_order(name)
    async with connections(thinking.door, 1, finalize_request(client, order, name)):
        await asyncio.to_thread(thinking.ca.wait_seen, Resource.FINALIZE, asked + 1)
    assert client.post(url).json()["status"] == "processing"
    thinking.ca.release()
    process.wait_until(
        lambda: client.post(url).json()["status"] == "valid", 60, "the order is valid"
    )
    assert thinking.ca.ledger().count(Resource.FINALIZE) == asked + 1
    assert client.post(client.post(url).json()["certificate"]).status == 200
