"""Two real CAs and a hostile one before a real broker: limits, outages, the next in the list."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from tests.deployments.penstock import AcmeCa, secret
from tests.e2e.scene import MAC_KEY, POLL_INTERVAL, Broker
from tests.e2e.survivor import Survivor, binding
from tests.fakes.acme_client import AcmeClient
from tests.fakes.hostile_ca import Behaviour, Fault, HostileCaProcess, Script
from tests.fakes.hostile_ca.envelope import b64
from tests.fakes.hostile_ca.script import FOREVER, ChallengeResult, Resource
from tests.peers.pebble import Pebble, PebbleOptions

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

HONEST = Behaviour(authorizations_valid=True)
ZONE = "farm.example.test"
NOWHERE = "127.0.0.1:9"
"""A resolver that a CA never asks which calls every challenge valid."""

FEW = {
    "name": "few",
    "because": "hosts there are rare",
    "names": [f"**.few.{ZONE}"],
    "quotas": [{"per": "eab", "limit": "1/1d"}],
}

DEAR = {
    "name": "dear",
    "because": "the next CA bills us for them",
    "names": [f"**.dear.{ZONE}"],
    "quotas": [{"per": "eab", "limit": "1/1d", "upstreams": ["next"]}],
}


def pebble(tmp: Path) -> Pebble:
    """Return a Pebble that believes every challenge."""
    options = PebbleOptions(always_valid=True, nonce_reject_percent=15)
    return Pebble(tmp, validation_http_port=9, dns_server=NOWHERE, options=options)


class Place:
    """A broker with two CAs in a list, the first preferred."""

    def __init__(
        self,
        tmp: Path,
        stack: ExitStack,
        first: Pebble | HostileCaProcess,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.tmp = tmp
        self.first = first
        self.next = stack.enter_context(pebble(tmp / "next"))
        home = tmp / "penstock"
        home.mkdir()
        trusted = {
            "eab": ["farm"],
            "names": [f"**.{ZONE}"],
            "profiles": ["server", "again", "alone"],
            "because": "the farm knows its hosts",
        }
        key = {"key_id": "farm", "mac_key": secret(home, "farm.key", b64(MAC_KEY))}
        profile = {
            "description": "TLS servers of the tests",
            "cap": "47d",
            "usages": ["server-auth"],
            "upstreams": [{"upstream": "first"}, {"upstream": "next"}],
        }
        self.broker = stack.enter_context(
            Broker(
                home,
                validation_http_port=9,
                upstreams=[
                    self._upstream("first", first, options or {}),
                    self._upstream("next", self.next, {}),
                ],
                profiles={
                    "server": profile,
                    "again": {**profile, "same_csr_within": "1h"},
                    "alone": {**profile, "upstreams": [{"upstream": "first"}]},
                },
                policy={"trusted": [trusted], "rules": [FEW, DEAR]},
                limits={"finalize_wait": "200ms"},
                more={"external_account_bindings": [key]},
            )
        )

    def _upstream(
        self, name: str, ca: Pebble | HostileCaProcess, options: dict[str, Any]
    ) -> AcmeCa:
        anchors = self.tmp / f"{name}-root.pem"
        anchors.write_bytes(ca.root_pem())
        return AcmeCa(
            name=name,
            directory_url=ca.directory_url,
            ca_bundle=ca.ca_bundle,
            description="pebble",
            anchors=anchors,
            options={"poll_interval": POLL_INTERVAL, **options},
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[AcmeClient]:
        """Return a client of the farm."""
        async with AcmeClient(self.broker.directory_url, self.broker.ca_bundle) as client:
            bound = {"externalAccountBinding": binding(client, "farm", MAC_KEY)}
            assert (await client.register(**bound)).status == 201
            yield client

    def tell(self, *faults: Fault, standing: Behaviour = HONEST) -> None:
        """Have the first CA do these things wrong from now on, and nothing else."""
        assert isinstance(self.first, HostileCaProcess)
        self.first.set_script(Script(standing=standing, faults=list(faults)))

    async def until_watched(self) -> None:
        """Wait until the first CA was told to look at a challenge, and asked for its verdict."""
        assert isinstance(self.first, HostileCaProcess)
        async with asyncio.timeout(60):
            while True:
                asked = [seen.resource for seen in self.first.ledger().requests]
                told = asked.index(Resource.CHALLENGE) if Resource.CHALLENGE in asked else None
                if told is not None and Resource.AUTHORIZATION in asked[told:]:
                    return
                await asyncio.sleep(0.1)

    def new_orders(self) -> int:
        """Return how often the first CA was asked for an order."""
        assert isinstance(self.first, HostileCaProcess)
        return self.first.ledger().count(Resource.NEW_ORDER)

    def issued(self) -> tuple[int, int]:
        """Return how many certificates each CA has really made."""
        first = self.first
        if isinstance(first, Pebble):
            return len(first.issued()), len(self.next.issued())
        return len(first.ledger().certificates), len(self.next.issued())

    def upstreams_of_orders(self) -> list[str]:
        """Return where each order went, oldest first, as the database has it."""
        with closing(sqlite3.connect(f"file:{self.broker.database}?mode=ro", uri=True)) as kept:
            rows = kept.execute("SELECT upstream FROM orders ORDER BY created_at").fetchall()
        return [row[0] for row in rows]

    async def until_all_answer(self) -> None:
        """Wait until no CA is left alone."""
        gauge = 'penstock_upstream_breaker_state{upstream="first"} 0.0'
        async with asyncio.timeout(120):
            while gauge not in self.broker.metrics():  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.5)

    def shown(self) -> Any:
        """Return what `penstock quota show` says."""
        return self.broker.json("quota", "show")


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not the test's own folder: its long name would make the operator socket's path too long."""
    return tmp_path_factory.mktemp("failover")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Ends every process that a test has begun."""
    with ExitStack() as made:
        yield made


async def obtain(client: AcmeClient, host: str, **members: Any) -> Survivor:
    """Have a certificate for a host of the farm."""
    survivor = Survivor(client, f"{host}.{ZONE}")
    survivor._request |= members
    await survivor.obtain()
    return survivor


async def test_order_goes_to_the_next_pebble_when_the_first_has_stopped(
    home: Path, stack: ExitStack
) -> None:
    """One under way moves there, new ones begin there; each has one certificate, of one CA."""
    first = stack.enter_context(pebble(home / "first"))
    place = Place(home, stack, first)
    async with place.client() as client:
        await obtain(client, "a")
        assert place.issued() == (1, 0)
        begun = Survivor(client, f"b.{ZONE}")
        assert (await begun.carry_to("ready"))["status"] == "ready"
        first.kill()
        await begun.obtain()
        assert place.issued() == (1, 1)
        await obtain(client, "c")
    assert place.issued() == (1, 2)
    assert place.upstreams_of_orders() == ["first", "next", "next"]
    (left,) = place.shown()["left_alone"]
    assert left["upstream"] == "first"


async def test_quota_of_the_next_pebble_counts_what_moves_there(
    home: Path, stack: ExitStack
) -> None:
    """One order has room there, by failover; the other waits for its own, and says why."""
    first = stack.enter_context(pebble(home / "first"))
    place = Place(home, stack, first)
    async with place.client() as client:
        made = [Survivor(client, f"{host}.dear.{ZONE}") for host in "ab"]
        for one in made:
            assert (await one.carry_to("ready"))["status"] == "ready"
        assert "rule dear" not in {row["of"] for row in place.shown()["buckets"]}
        first.kill()
        await made[0].obtain()
        assert place.issued() == (0, 1)
        answer = await client.finalize(await made[1].look(), made[1].csr)
        assert (answer.status, answer.json()["status"]) == (200, "processing")
        assert (await made[1].look())["status"] == "processing"
    kept = place.broker.json("order", "show", (made[1].order_url or "").rpartition("/")[2])
    told = kept["decision"]["passed_over"]["next"]
    assert "orders under rule 'dear' are limited to 1/1d" in told
    assert place.issued() == (0, 1)
    assert place.upstreams_of_orders() == ["next", "first"]
    (row,) = [row for row in place.shown()["buckets"] if row["of"] == "rule dear"]
    assert (row["per"], row["subject"], round(row["left"])) == ("eab", "farm", 0)


async def test_ten_orders_for_one_csr_at_once_get_one_certificate(
    home: Path, stack: ExitStack
) -> None:
    """Pebble signs once, however the ten meet; each order is answered with it."""
    first = stack.enter_context(pebble(home / "first"))
    place = Place(home, stack, first)
    async with place.client() as client:
        made = [Survivor(client, f"ten.{ZONE}") for _ in range(10)]
        for one in made:
            one._request["profile"] = "again"
            one.key, one.csr = made[0].key, made[0].csr
            await one.carry_to("ready")
        delivered = await asyncio.gather(*(one.obtain() for one in made))
    assert len({one.order_url for one in made}) == 10
    assert len(set(delivered)) == 1
    assert place.issued() == (1, 0)


@pytest.fixture(scope="module")
def hostile_place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A broker whose first CA does what it is told, for several tests."""
    home = tmp_path_factory.mktemp("hostile")
    with ExitStack() as made:
        script = Script(standing=HONEST)
        first = made.enter_context(HostileCaProcess(home / "first", script))
        yield Place(home, made, first)


@pytest.fixture
def place(hostile_place: Place) -> Iterator[Place]:
    """The same, with a first CA that is honest again afterwards."""
    yield hostile_place
    hostile_place.tell()


async def test_limit_of_the_ca_outlives_the_broker_and_sends_orders_on(place: Place) -> None:
    """The CA is not asked again before the time that it named, by the next process neither."""
    await place.until_all_answer()
    asked, (first, following) = place.new_orders(), place.issued()
    place.tell(
        Fault.refusal(Resource.NEW_ORDER, 429, "rateLimited", retry_after="3600", times=FOREVER)
    )
    async with place.client() as client:
        await obtain(client, "limited")
        assert place.issued() == (first, following + 1)
        assert place.new_orders() == asked + 1
        (hold,) = place.shown()["holds"]
        assert (hold["upstream"], hold["about"]) == ("first", f"limited.{ZONE}")
        place.broker.kill()
        place.broker.restart()
        await obtain(client, "limited")
    assert place.new_orders() == asked + 1, "it named a time"
    assert place.issued() == (first, following + 2)
    assert place.upstreams_of_orders()[-2:] == ["next", "next"]


@pytest.mark.parametrize(
    "fault", [Fault.outage(), Fault(None, times=FOREVER, status=500)], ids=["no answer", "500"]
)
async def test_ca_that_returns_is_asked_again(place: Place, fault: Fault) -> None:
    """It is left alone while it is away, looked at, and preferred as before once it answers."""
    await place.until_all_answer()
    first, following = place.issued()
    async with place.client() as client:
        await obtain(client, "before")
        place.tell(fault)
        await obtain(client, "during")
        await obtain(client, "while")
        assert place.issued() == (first + 1, following + 2)
        place.tell()
        await place.until_all_answer()
        await obtain(client, "after")
    assert place.issued() == (first + 2, following + 2)
    assert place.upstreams_of_orders()[-4:] == ["first", "next", "next", "first"]


async def test_ca_that_dies_while_it_looks_at_a_challenge_is_left(place: Place) -> None:
    """Whoever waits for its verdict gives up after seconds, and the order goes to the next."""
    await place.until_all_answer()
    first, following = place.issued()
    looking = Behaviour(challenge_result=ChallengeResult.PROCESSING)
    place.tell(standing=looking)
    async with place.client() as client:
        survivor = Survivor(client, f"looking.{ZONE}")
        assert (await survivor.carry_to("ready"))["status"] == "ready"
        await place.until_watched()
        place.tell(Fault.outage(), standing=looking)
        await survivor.obtain()
    assert place.issued() == (first, following + 1)
    assert place.upstreams_of_orders()[-1] == "next"


@pytest.mark.parametrize(
    ("resource", "status", "problem"),
    [
        pytest.param(Resource.NEW_ORDER, 403, "rejectedIdentifier", id="names"),
        pytest.param(Resource.FINALIZE, 403, "caa", id="CAA, seen at finalize"),
        pytest.param(Resource.FINALIZE, 400, "badCSR", id="CSR"),
    ],
)
async def test_refusal_for_what_is_asked_goes_to_nobody_else(
    place: Place, resource: Resource, status: int, problem: str
) -> None:
    """What one CA will not certify is not offered to another."""
    await place.until_all_answer()
    before = place.issued()
    place.tell(Fault.refusal(resource, status, problem, times=FOREVER))
    async with place.client() as client:
        survivor = Survivor(client, f"refused.{ZONE}")
        await survivor._finalize(await survivor.carry_to("ready"))
        order = await until_over(survivor)
    told = order["error"]["type"].rpartition(":")[2]
    assert (order["status"], told) == ("invalid", problem)
    assert place.issued() == before
    assert place.upstreams_of_orders()[-1] == "first"


async def until_over(survivor: Survivor) -> dict[str, Any]:
    """Return the order once it is valid or invalid."""
    async with asyncio.timeout(120):
        while (order := await survivor.look())["status"] not in (  # noqa: ASYNC110 - another's
            "valid",
            "invalid",
        ):
            await asyncio.sleep(0.1)
    return order


async def test_budget_of_the_exact_names_outlives_the_broker(home: Path, stack: ExitStack) -> None:
    """A new key costs a token each time; the same CSR costs none, and the CA signs once for it.

    Once it is spent the next CA of the profile serves; where there is none, the client waits.
    """
    first = stack.enter_context(pebble(home / "first"))
    limits = {"certificates": {"for_same_names": {"rate": "2/7d"}}}
    place = Place(home, stack, first, limits)
    async with place.client() as client:
        one = await obtain(client, "a", profile="again")
        again = Survivor(client, f"a.{ZONE}")
        again._request["profile"] = "again"
        again.csr = one.csr
        again.key = one.key
        assert (await again.obtain()) == (await one.obtain())
        assert place.issued() == (1, 0)
        await obtain(client, "a", profile="again")
        assert place.issued() == (2, 0)
    place.broker.kill()
    place.broker.restart()
    async with place.client() as client:
        answer = await client.order(f"a.{ZONE}", profile="alone")
        assert (answer.status, answer.problem) == (429, "rateLimited")
        assert int(answer.headers["Retry-After"]) > 3 * 24 * 3600
        assert "for exactly these names are limited to 2/7d" in answer.json()["detail"]
        await obtain(client, "a", profile="again")
        assert place.issued() == (2, 1)
        await obtain(client, "a.few")
    async with place.client() as client:
        answer = await client.order(f"b.few.{ZONE}")
        assert (answer.status, answer.problem) == (429, "rateLimited")
        assert "orders under rule 'few' are limited to 1/1d" in answer.json()["detail"]
        await obtain(client, "b")
    empty = [row for row in place.shown()["buckets"] if row["left"] == 0]
    assert {(row["of"], row["per"], row["subject"]) for row in empty} == {
        ("upstream first", "names", f"a.{ZONE}"),
        ("rule few", "eab", "farm"),
    }
