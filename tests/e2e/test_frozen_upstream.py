"""The only CA of an order is frozen while the order is processing: a real broker, and Pebble.

What Pebble was not told to issue waits, and is issued once after the freeze; what it was told to
issue is fetched under it.  How often it issued is counted by Pebble itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deployments.between import Aim, Between
from tests.deployments.node_agents import TrustingPenstock
from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, secret
from tests.deployments.requester import Placed, Requester
from tests.fakes.acme_client import make_csr
from tests.peers import process
from tests.peers.pebble import Pebble, PebbleOptions

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

MAC_KEY: Final = "bWFjLWtleS1vZi10aGUtdGVzdHMtMzItYnl0ZXMtbG9uZw"
KEY: Final = "farm"

PATIENCE_SECONDS: Final = 90.0
"""Longest wait for a step of the broker, which looks each 5 s whether it may go on."""


class Place:
    """A broker whose one ACME CA is Pebble, with somebody in between."""

    def __init__(self, tmp: Path, stack: ExitStack) -> None:
        options = PebbleOptions(always_valid=True, nonce_reject_percent=0)
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "ca",
                validation_http_port=process.free_port(),
                dns_server="127.0.0.1:9",
                options=options,
            )
        )
        self.between = stack.enter_context(
            Between(tmp / "between", self.pebble.port, self.pebble.ca_bundle)
        )
        home = tmp / "broker"
        home.mkdir()
        anchors = tmp / "pebble-root.pem"
        anchors.write_bytes(self.pebble.root_pem())
        ca = AcmeCa(
            name="pebble",
            directory_url=f"https://127.0.0.1:{self.between.port}/dir",
            ca_bundle=self.between.ca_bundle,
            description="pebble",
            anchors=anchors,
            options={"poll_interval": "100ms"},
        )
        trusted = {
            "eab": [KEY],
            "names": ["**.example.test"],
            "profiles": ["server"],
            "because": "hosts of the tests",
        }
        binding = {"key_id": KEY, "mac_key": secret(home, KEY, MAC_KEY)}
        self.broker = stack.enter_context(
            TrustingPenstock(
                home,
                upstreams=[ca],
                policy={"trusted": [trusted]},
                limits={"finalize_wait": "100ms"},
                more={"external_account_bindings": [binding]},
            )
        )

    async def change(self, command: str) -> None:
        """Freeze the CA, or let it go on."""
        operator = Operator(self.broker.state / "operator.sock")
        await operator.ask(command, upstream="pebble", reason="a test")

    async def begun(self, requester: Requester, name: str, aim: Aim) -> Placed:
        """Return an order that was finalized; it is processing, and Pebble was just asked what is
        aimed at."""
        assert (await requester.bind(KEY, MAC_KEY)).status == 201
        ordered = await requester.order(name)
        assert ordered.status == 201, ordered.body
        placed = Placed(requester, ordered.headers["Location"], make_csr([name]))
        answer = await requester.finalize(ordered.json(), placed.csr)
        assert answer.status == 200, answer.body
        placed.order = answer.json()
        assert placed.status == "processing"
        await until(aim.struck.is_set)
        return placed

    def work(self) -> tuple[str, str]:
        """Return how far the newest order is at its CA, and what its job waits for."""
        rows = self.broker.rows(
            "SELECT w.status, coalesce(j.note, '') FROM work w JOIN jobs j"
            " ON j.kind = 'fulfil' AND j.subject = w.taken_by ORDER BY w.created_at DESC"
        )
        return rows[0] if rows else ("", "")


async def until(has_come: Callable[[], Any]) -> None:
    """Wait until *has_come* is true of another process."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not has_come():  # noqa: ASYNC110 - of another process
            await asyncio.sleep(0.05)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """The deployment."""
    with ExitStack() as stack:
        yield Place(tmp_path, stack)


async def test_processing_order_of_a_frozen_ca_waits_and_is_issued_once_after_it(
    place: Place,
) -> None:
    """The CA made its order meanwhile, and is told to issue only after the freeze."""
    gate = threading.Event()
    aim = place.between.aim("/order-plz", gate=gate)
    async with Requester(place.broker.directory_url, place.broker.ca_bundle) as requester:
        placed = await place.begun(requester, "waits.example.test", aim)
        await place.change("freeze")
        gate.set()
        await until(lambda: place.work() == ("opened", "upstream 'pebble' is frozen"))
        assert (await placed.read())["status"] == "processing"
        assert place.pebble.issued() == []
        assert not [path for path in place.between.paths if "/finalize-order/" in path]

        await asyncio.to_thread(place.broker.kill)
    await asyncio.to_thread(place.broker.start)
    async with Requester(place.broker.directory_url, place.broker.ca_bundle) as again:
        again.key, again.account_url = requester.key, requester.account_url
        placed.requester = again
        await until(lambda: place.work() == ("opened", "upstream 'pebble' is frozen"))
        assert (await placed.read())["status"] == "processing"
        assert place.pebble.issued() == []
        await place.change("unfreeze")
        assert await placed.settled() == "valid", placed.order
        assert len(await placed.chain()) >= 1
    assert len(place.pebble.issued()) == 1


async def test_order_whose_ca_was_told_to_issue_is_fetched_under_the_freeze(place: Place) -> None:
    """The certificate exists, and only what is known here can be revoked; a new order is none."""
    gate = threading.Event()
    aim = place.between.aim("/finalize-order/", gate=gate)
    async with Requester(place.broker.directory_url, place.broker.ca_bundle) as requester:
        placed = await place.begun(requester, "told.example.test", aim)
        await place.change("freeze")
        assert place.pebble.issued() == []
        refused = await requester.order("new.example.test")
        assert "upstream 'pebble' is frozen" in refused.json()["detail"]
        gate.set()
        assert await placed.settled() == "valid", placed.order
        assert len(await placed.chain()) >= 1
    assert len(place.pebble.issued()) == 1
