"""Limits of the ACME listener: who is counted, who is refused, what it costs others."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from broker.issuance.events import Event, EventKind
from broker.policy.units import Rate
from broker.protocol.identifiers import Identifier, IdentifierType
from broker.web.handlers import WebCommunity
from broker.web.limits import Limit, WebRates, client_network
from broker.web.listeners import start_unix
from broker.web.nonces import BootNonces
from broker.web.server import WebSettings, create_acme_app, create_gatekeeper
from tests.fakes.clock import FakeClock
from tests.fakes.raw_client import RawAnswer, RawClient
from tests.fakes.workflows import FakeWorkflows
from tests.unit.web.conftest import ORIGIN, Observed

BASE = f"{ORIGIN}/acme/default"
MINUTE = timedelta(minutes=1)
RATES = WebRates(
    address=Rate(40, MINUTE),
    new_accounts=Rate(3, MINUTE),
    account=Rate(20, MINUTE),
    new_orders=Rate(5, MINUTE),
    failed_validations=Rate(2, MINUTE),
)
NAME = {"type": "dns", "value": "www.corp.example"}


@dataclass
class Limited:
    """A listener with tight limits."""

    client: RawClient
    clock: FakeClock
    observed: Observed
    workflows: FakeWorkflows
    held_back: list[float]
    tell: asyncio.Queue[Event]


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Limited]:
    """Serve with tight limits; answers that are held back are counted and not waited for."""
    workflows, clock, observed = FakeWorkflows(), FakeClock(), Observed()
    held_back: list[float] = []
    give_way = asyncio.sleep

    async def note(seconds: float) -> None:
        if seconds:
            held_back.append(seconds)
        await give_way(0)

    monkeypatch.setattr(asyncio, "sleep", note)

    async def record(event: Event) -> None:
        """Keep nothing."""

    settings = WebSettings(
        external_url=ORIGIN, communities={"default": WebCommunity()}, rates=RATES
    )
    gatekeeper = create_gatekeeper(settings, clock=clock, observer=observed)
    app = create_acme_app(
        settings,
        workflows=workflows.as_workflows(),
        nonces=BootNonces(clock),
        clock=clock,
        observer=observed,
        record_refusal=record,
        profiles=lambda _: {},
        gatekeeper=gatekeeper,
    )
    listener = await start_unix(app, tmp_path / "acme.sock")
    connector = aiohttp.UnixConnector(str(tmp_path / "acme.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        made = Limited(
            RawClient(session, ORIGIN), clock, observed, workflows, held_back, asyncio.Queue()
        )
        made.fail = gatekeeper.on_events  # type: ignore[attr-defined]
        yield made
    await listener.stop()


def check_refused(answer: RawAnswer) -> None:
    """Check the form that RFC 8555 §6.6 gives to a refusal."""
    assert (answer.status, answer.problem) == (429, "rateLimited")
    assert answer.headers["Retry-After"].isdigit()
    assert int(answer.headers["Retry-After"]) >= 1
    assert len(answer.headers.getall("Replay-Nonce")) == 1
    links = answer.headers.getall("Link")
    assert f'<{ORIGIN}/acme/help/rateLimited>;rel="help"' in links


async def nonces(site: Limited, times: int) -> list[int]:
    """Ask for nonces and return the statuses."""
    url = f"{BASE}/new-nonce"
    return [(await site.client.send("HEAD", url)).status for _ in range(times)]


async def test_what_nobody_has_signed_is_counted_by_address(site: Limited) -> None:
    """Directory and nonces alike; after the wait that is told it goes on."""
    assert await nonces(site, 30) == [200] * 30
    for _ in range(10):
        assert (await site.client.send("GET", f"{BASE}/directory")).status == 200
    refused = await site.client.send("GET", f"{BASE}/directory")
    check_refused(refused)
    assert site.observed.limits == ["address"]
    assert site.held_back == [1.0]
    site.clock.advance(timedelta(seconds=int(refused.headers["Retry-After"])))
    assert (await nonces(site, 1)) == [200]


async def test_requests_of_an_account_cost_its_address_nothing(site: Limited) -> None:
    """Fifteen polls, and the address has what it had."""
    await site.client.register()
    nonce = await site.client.nonce()
    for _ in range(15):
        answer = await site.client.post(f"{BASE}/order/order1", nonce=nonce)
        assert answer.status == 200
        nonce = answer.headers["Replay-Nonce"]
    # newAccount is signed by a key, not by an account: it and two nonces were counted.
    assert await nonces(site, 38) == [200] * 37 + [429]


async def test_bad_signatures_are_counted_by_address(site: Limited) -> None:
    """What is refused before anybody is known counts like what nobody signed."""
    client = site.client
    await client.register()
    nonce = await client.nonce()
    url = f"{BASE}/order/order1"
    statuses = []
    for _ in range(40):
        body = client.sign(url, None, nonce)
        body = body.replace(b'"signature":"', b'"signature":"AAAA')
        answer = await client.send("POST", url, body, Content_Type="application/jose+json")
        statuses.append(answer.status)
        nonce = answer.headers["Replay-Nonce"]
    assert statuses == [400] * 37 + [429] * 3
    good = await client.post(url, nonce=nonce)
    check_refused(good)
    site.clock.advance(MINUTE)
    assert (await client.post(url, nonce=nonce)).status == 200


async def test_account_in_a_loop_is_refused_before_its_signature_is_looked_at(
    site: Limited,
) -> None:
    """Another account at the same address goes on as if nothing were."""
    client = site.client
    await client.register()
    other = RawClient(client.session, ORIGIN)
    await other.register()
    nonce = await client.nonce()
    statuses = []
    for _ in range(25):
        answer = await client.post(f"{BASE}/order/order1", nonce=nonce)
        statuses.append(answer.status)
        nonce = answer.headers["Replay-Nonce"]
    assert statuses == [200] * 20 + [429] * 5
    assert site.observed.limits == ["account"] * 5
    unsigned = client.sign(f"{BASE}/order/order1", None, nonce).replace(
        b'"signature":"', b'"signature":"AAAA'
    )
    answer = await client.send(
        "POST", f"{BASE}/order/order1", unsigned, Content_Type="application/jose+json"
    )
    check_refused(answer)
    assert (await other.post(f"{BASE}/order/order1")).status == 200
    site.clock.advance(MINUTE)
    assert (await client.post(f"{BASE}/order/order1")).status == 200


async def test_account_on_many_connections_gets_no_more(
    site: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were let in together are all counted, and the next waits until that is paid."""
    client, url = site.client, f"{BASE}/order/order1"
    await client.register()
    for _ in range(19):
        assert (await client.post(url)).status == 200
    together, find = asyncio.Barrier(5), site.workflows.accounts.require

    async def find_together(*given: Any) -> Any:
        await together.wait()
        return await find(*given)

    with monkeypatch.context() as patch:
        patch.setattr(site.workflows.accounts, "require", find_together)
        given = [await client.nonce() for _ in range(5)]
        answers = await asyncio.gather(*(client.post(url, nonce=one) for one in given))
    assert [one.status for one in answers] == [200] * 5
    refused = await client.post(url)
    check_refused(refused)
    assert refused.headers["Retry-After"] == "15"
    site.clock.advance(timedelta(seconds=12))
    check_refused(await client.post(url))
    site.clock.advance(timedelta(seconds=3))
    assert (await client.post(url)).status == 200


async def test_new_accounts_are_counted_and_known_ones_are_not(site: Limited) -> None:
    """Finding an account again is free, and so is asking in vain."""
    for _ in range(5):
        site.client.kid = None
        await site.client.register()
    stranger = RawClient(site.client.session, ORIGIN)
    url = f"{BASE}/new-account"
    for _ in range(5):
        answer = await stranger.post(url, {"onlyReturnExisting": True})
        assert answer.problem == "accountDoesNotExist"
    for _ in range(2):
        await RawClient(site.client.session, ORIGIN).register()
    refused = await stranger.post(url, {"termsOfServiceAgreed": True})
    check_refused(refused)
    assert site.observed.limits == ["new-accounts"]


async def test_orders_of_an_account_are_counted(site: Limited) -> None:
    """Pre-authorizations with them; another account's are its own."""
    client = site.client
    await client.register()
    for _ in range(4):
        answer = await client.post(f"{BASE}/new-order", {"identifiers": [NAME]})
        assert answer.status == 201
    assert (await client.post(f"{BASE}/new-authz", {"identifier": NAME})).status == 201
    check_refused(await client.post(f"{BASE}/new-order", {"identifiers": [NAME]}))
    assert len(site.workflows.orders.asked) == 4
    other = RawClient(client.session, ORIGIN)
    await other.register()
    answer = await other.post(f"{BASE}/new-order", {"identifiers": [NAME]})
    assert answer.status == 201


async def test_name_that_failed_too_often_is_not_ordered_for_a_while(site: Limited) -> None:
    """By this account alone, and this name alone; the refusal names it."""
    client = site.client
    await client.register()
    failed = Event(
        kind=EventKind.CHALLENGE_INVALID,
        at=site.clock.now(),
        account_id="acct1",
        data={"identifier": NAME["value"]},
    )
    site.fail([failed])  # type: ignore[attr-defined]
    assert (await client.post(f"{BASE}/new-order", {"identifiers": [NAME]})).status == 201
    site.fail([failed])  # type: ignore[attr-defined]
    other_name = {"type": "dns", "value": "api.corp.example"}
    answer = await client.post(f"{BASE}/new-order", {"identifiers": [NAME, other_name]})
    check_refused(answer)
    (subproblem,) = answer.json()["subproblems"]
    assert subproblem["identifier"] == NAME
    assert site.observed.limits == ["failed-validations"]
    wildcard = {"type": "dns", "value": "*.www.corp.example"}
    check_refused(await client.post(f"{BASE}/new-order", {"identifiers": [wildcard]}))
    assert (await client.post(f"{BASE}/new-order", {"identifiers": [other_name]})).status == 201
    site.clock.advance(MINUTE)
    assert (await client.post(f"{BASE}/new-order", {"identifiers": [NAME]})).status == 201


async def test_limit_of_somebody_else_is_passed_on_without_delay(site: Limited) -> None:
    """What a workflow refuses so is none of ours."""
    from broker.protocol.problems import Problem, ProblemType

    await site.client.register()
    site.workflows.orders.error = Problem(ProblemType.RATE_LIMITED, "the CA wants a rest")
    answer = await site.client.post(f"{BASE}/order/order1")
    assert (answer.status, answer.problem) == (429, "rateLimited")
    assert (site.held_back, site.observed.limits) == ([], [])


@pytest.mark.parametrize(
    ("remote", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::4", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "local"),
        (None, "local"),
    ],
)
def test_client_is_an_ipv4_address_or_an_ipv6_network(remote: str | None, network: str) -> None:
    """A site with a whole /64 is one client, and an IPv4 address is one however it is written."""
    assert client_network(remote) == network


def test_every_limit_has_its_rate() -> None:
    """But that on connections, which is a number of its own, and those of the agents' listener."""
    elsewhere = {Limit.CONNECTIONS, Limit.AGENTS, Limit.NODES}
    named = {limit.value.replace("-", "_") for limit in Limit if limit not in elsewhere}
    assert named == set(WebRates.__dataclass_fields__)
    assert Identifier(IdentifierType.DNS, "a.example").base.value == "a.example"
