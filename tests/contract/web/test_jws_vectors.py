"""Every vector of jws_requests.json at a front door: what is bad is refused as it says."""

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from broker.issuance.events import Event
from broker.issuance.records import AccountRecord
from broker.protocol.jws import parse_jwk
from broker.protocol.problems import Problem, ProblemType
from broker.protocol.resources import AccountStatus
from broker.web.envelope import EnvelopeLimits
from broker.web.handlers import WebCommunity
from broker.web.listeners import start_unix
from broker.web.server import WebSettings, create_acme_app
from tests.fakes.clock import START, FakeClock
from tests.fakes.workflows import FakeWorkflows
from tests.unit.protocol.builders import VECTORS, un64url
from tests.vectors.jws.drafts import ORIGIN
from tests.vectors.jws.make import make

FILE: dict[str, Any] = json.loads((VECTORS / "jws_requests.json").read_text(encoding="ascii"))
TESTS: list[dict[str, Any]] = FILE["tests"]
GOOD = {one["id"]: one for one in TESTS if one["result"] == "valid"}
BAD = [one for one in TESTS if one["result"] == "invalid"]

LEAST_BAD = 300
"""How many bad requests the front door is tried with, at least."""


class OneNonce:
    """A ledger that knows one nonce and takes it again and again, as stored requests need it."""

    def issue(self) -> str:
        return str(FILE["nonce"])

    async def redeem(self, nonce: str) -> None:
        if nonce != FILE["nonce"]:
            raise Problem(ProblemType.BAD_NONCE, "nonce is unknown")


class Unobserved:
    """Telemetry that nobody reads."""

    def request_served(
        self, *, operation: str, status: int, problem: str | None, seconds: float
    ) -> None:
        """Count nothing."""


@dataclass
class Door:
    """A front door with the accounts of the vectors."""

    session: aiohttp.ClientSession
    workflows: FakeWorkflows

    def effects(self) -> tuple[int, int]:
        """Return how many orders and accounts were asked for."""
        return len(self.workflows.orders.asked), len(self.workflows.accounts.bindings)

    async def send(self, one: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Send a vector's octets to its URL; return status and document."""
        body = one["body"].encode() if "body" in one else un64url(one["body_b64url"])
        headers = {"Content-Type": "application/jose+json"}
        async with self.session.post(one["url"], data=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Door]:
    """Serve a community whose accounts have the keys of the vectors."""
    workflows = FakeWorkflows()
    for number, account in enumerate(FILE["accounts"], start=1):
        key = parse_jwk(account["jwk"])
        workflows.accounts.accounts[f"acct{number}"] = AccountRecord(
            account_id=f"acct{number}",
            community="default",
            status=AccountStatus.VALID,
            jwk_json=key.canonical,
            thumbprint=key.thumbprint,
            contacts=(),
            terms_agreed=True,
            eab_key_id=None,
            created_at=START,
        )
        assert account["kid"] == f"{ORIGIN}/acme/default/account/acct{number}"

    async def record(event: Event) -> None:
        assert event.kind

    app = create_acme_app(
        WebSettings(
            external_url=ORIGIN,
            communities={"default": WebCommunity(), "lab": WebCommunity()},
            limits=EnvelopeLimits(body_bytes=256 * 1024, body_time=timedelta(seconds=30)),
        ),
        workflows=workflows.as_workflows(),
        nonces=OneNonce(),
        clock=FakeClock(),
        observer=Unobserved(),
        record_refusal=record,
        profiles=lambda _: {},
    )
    socket: Path = tmp_path_factory.mktemp("door") / "acme.sock"
    listener = await start_unix(app, socket)
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(socket))) as session:
        yield Door(session, workflows)
    await listener.stop()


@pytest.mark.e2e  # signing 627 requests anew takes 3 s: more than make check has
def test_file_is_what_its_maker_makes() -> None:
    """Nothing in the file was written by hand, and making it anew changes nothing."""
    assert make() == FILE


def test_there_are_enough_and_each_has_its_twin() -> None:
    """At least 300 bad requests, no two alike, each beside a good one of its group."""
    assert len(BAD) == FILE["bad"] >= LEAST_BAD
    assert max(Counter(one["id"] for one in TESTS).values()) == 1
    octets = Counter(one.get("body", one.get("body_b64url")) for one in BAD)
    assert [text for text, times in octets.items() if times > 1] == []
    for one in BAD:
        twin = GOOD[one["twin"]]
        assert (twin["url"], twin["flag"]) == (one["url"], "Good"), one["id"]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("vector", GOOD.values(), ids=GOOD)
async def test_good_request_passes(door: Door, vector: dict[str, Any]) -> None:
    """What is right is let through: it reaches a workflow."""
    before = door.effects()
    status, _ = await door.send(vector)
    assert status in {200, 201}
    assert door.effects() != before


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("vector", BAD, ids=[one["id"] for one in BAD])
async def test_bad_request_is_refused_and_its_twin_passes(
    door: Door, vector: dict[str, Any]
) -> None:
    """The refusal is of the type that the file names, nothing happens, and the twin passes."""
    before = door.effects()
    status, document = await door.send(vector)
    token = str(document.get("type")).removeprefix("urn:ietf:params:acme:error:")
    assert (status, token) == (vector["status"], vector["type"]), document
    assert door.effects() == before
    passed, _ = await door.send(GOOD[vector["twin"]])
    assert passed in {200, 201}
