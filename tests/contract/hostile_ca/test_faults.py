"""What happens to single requests, and how the CA is steered from outside."""

import asyncio
import dataclasses
from pathlib import Path

import aiohttp
import pytest

from tests.contract.hostile_ca.steps import NAME, READY
from tests.fakes.acme_client import AcmeClient, make_csr
from tests.fakes.hostile_ca import (
    FOREVER,
    Behaviour,
    Chain,
    Fault,
    HostileCa,
    HostileCaProcess,
    NotAfter,
    Resource,
    Script,
)
from tests.peers import process


class TestFaults:
    """What happens to single requests."""

    async def test_a_hang_lasts_until_released(self, ca: HostileCa, client: AcmeClient) -> None:
        """No answer, then the true one."""
        ca.script.faults = [Fault.hanging(Resource.NEW_ORDER)]
        waiting = asyncio.create_task(client.order(NAME))
        await ca.seen(Resource.NEW_ORDER)
        assert not waiting.done()
        assert ca.ledger.orders == []
        ca.release()
        assert (await waiting).status == 201

    async def test_a_hang_after_the_deed(self, ca: HostileCa, client: AcmeClient) -> None:
        """The order is there long before its answer."""
        ca.script.faults = [Fault.hanging(Resource.NEW_ORDER, processed=True)]
        waiting = asyncio.create_task(client.order(NAME))
        await ca.seen(Resource.NEW_ORDER)
        assert (len(ca.ledger.orders), waiting.done()) == (1, False)
        ca.release()
        assert (await waiting).status == 201

    async def test_a_lost_answer(self, ca: HostileCa, client: AcmeClient) -> None:
        """The second newOrder is done and never answered; the third goes well."""
        ca.script.faults = [Fault.lost(Resource.NEW_ORDER, skip=1)]
        assert (await client.order(NAME)).status == 201
        with pytest.raises(aiohttp.ClientError):
            await client.order(NAME)
        assert len(ca.ledger.orders) == 2
        assert (await client.order(NAME)).status == 201

    async def test_a_lost_request(self, ca: HostileCa, client: AcmeClient) -> None:
        """The connection breaks before anything was done."""
        ca.script.faults = [Fault.lost(Resource.NEW_ORDER, processed=False)]
        with pytest.raises(aiohttp.ClientError):
            await client.order(NAME)
        assert ca.ledger.orders == []
        assert ca.ledger.count(Resource.NEW_ORDER) == 1

    async def test_an_outage(self, ca: HostileCa, client: AcmeClient) -> None:
        """Nothing is answered, not even the directory, until it is over."""
        ca.script.faults = [Fault.outage()]
        with pytest.raises(aiohttp.ClientError):
            await client.get(ca.directory_url)
        ca.script.faults = []
        assert (await client.get(ca.directory_url)).status == 200

    async def test_a_restart(self, ca: HostileCa, client: AcmeClient) -> None:
        """Stopped, it answers nobody; started again, it knows what it knew."""
        location = (await client.order(NAME)).headers["Location"]
        await ca.stop()
        with pytest.raises(aiohttp.ClientError):
            await client.post(location)
        await ca.start()
        assert (await client.post(location)).status == 200

    @pytest.mark.parametrize("status", [429, 500, 503])
    @pytest.mark.parametrize(
        "retry_after", ["20", "Fri, 01 Jan 2038 00:00:00 GMT", "-5", "315360000", None]
    )
    async def test_a_refusal_with_retry_after(
        self, ca: HostileCa, client: AcmeClient, status: int, retry_after: str | None
    ) -> None:
        """Any status with any text in Retry-After, once."""
        ca.script.faults = [
            Fault.refusal(Resource.NEW_ORDER, status, "rateLimited", retry_after=retry_after)
        ]
        answer = await client.order(NAME)
        assert (answer.status, answer.problem) == (status, "rateLimited")
        assert answer.headers.get("Retry-After") == retry_after
        assert (await client.order(NAME)).status == 201
        assert len(ca.ledger.times_of(Resource.NEW_ORDER)) == 2

    async def test_bad_nonces(self, ca: HostileCa, client: AcmeClient) -> None:
        """Three good nonces are called bad, whatever they came with, each with a fresh one."""
        ca.script.faults = [Fault.bad_nonce(times=3)]
        answers = [await client.order(NAME) for _ in range(4)]
        assert [each.problem for each in answers] == ["badNonce"] * 3 + [""]
        assert len({each.headers["Replay-Nonce"] for each in answers}) == 4

    async def test_bad_nonces_for_ever(self, ca: HostileCa, client: AcmeClient) -> None:
        """It never ends, and the directory still answers."""
        ca.script.faults = [Fault.bad_nonce(times=FOREVER)]
        for _ in range(10):
            assert (await client.order(NAME)).problem == "badNonce"
        assert (await client.get(ca.directory_url)).status == 200

    @pytest.mark.parametrize("body", ["", "{", "[]", "null", "\x00", '{"status":7}', "<html>"])
    async def test_garbage(self, ca: HostileCa, client: AcmeClient, body: str) -> None:
        """The true status and headers around a body that is nonsense."""
        ca.script.faults = [Fault.garbage(Resource.NEW_ORDER, body)]
        answer = await client.order(NAME)
        assert (answer.status, answer.body) == (201, body.encode())
        assert answer.headers["Location"].endswith(ca.ledger.orders[0].order_id)

    async def test_an_order_that_is_not_there(self, ca: HostileCa, client: AcmeClient) -> None:
        """404 for an order that exists."""
        location = (await client.order(NAME)).headers["Location"]
        ca.script.faults = [Fault.refusal(Resource.ORDER, 404, "malformed")]
        assert (await client.post(location)).status == 404
        assert (await client.post(location)).status == 200

    async def test_a_redirect(self, ca: HostileCa, client: AcmeClient) -> None:
        """Every request is sent elsewhere."""
        ca.script.faults = [Fault.redirect(Resource.NEW_ORDER, "http://127.0.0.1:1/")]
        for _ in range(2):
            answer = await client.order(NAME)
            assert (answer.status, answer.headers["Location"]) == (307, "http://127.0.0.1:1/")

    async def test_a_directory_of_other_hosts(self, ca: HostileCa, client: AcmeClient) -> None:
        """Members of the directory, and every link, may point anywhere."""
        ca.script.directory_overrides = {"newOrder": "http://127.0.0.1:1/newOrder"}
        directory = (await client.get(ca.directory_url)).json()
        assert directory["newOrder"] == "http://127.0.0.1:1/newOrder"
        assert directory["newNonce"].startswith(ca.base_url)
        ca.script.link_base = "https://elsewhere.test"
        assert (await client.register()).headers["Location"].startswith("https://elsewhere.test/")
        assert (await client.order(NAME)).headers["Location"].startswith("https://elsewhere.test/")


class TestProcess:
    """The CA as a process of its own."""

    async def test_it_outlives_its_clients_and_is_steered_from_afar(self, tmp_path: Path) -> None:
        """Script, ledger, waiting and release over the control page."""
        first = Script(standing=READY, faults=[Fault.hanging(Resource.FINALIZE)])
        async with HostileCaProcess(tmp_path, first) as ca:
            async with AcmeClient(ca.directory_url, ca.ca_bundle) as client:
                await client.register()
                order = (await client.order(NAME)).json()
                waiting = asyncio.create_task(client.finalize(order, make_csr([NAME])))
                await asyncio.to_thread(ca.wait_seen, Resource.FINALIZE)
                assert (ca.ledger().finalizes, ca.script().faults) == ([], [])
                ca.release()
                final = await waiting
                ca.set_script(Script(standing=dataclasses.replace(READY, chain=Chain.NEWLINE)))
                assert ca.script().standing.chain is Chain.NEWLINE
                await client.post(final.json()["certificate"])
            assert [len(each) for each in (ca.ledger().finalizes, ca.ledger().certificates)] == [
                1,
                1,
            ]
            with pytest.raises(process.PeerFailed, match="1 of 5 requests for finalize"):
                ca.wait_seen(Resource.FINALIZE, 5, seconds=0.1)

    def test_a_script_is_the_same_after_a_journey(self) -> None:
        """Whatever a script can say travels as JSON."""
        script = Script(
            standing=dataclasses.replace(READY, extra_names=("a.test",), chain=Chain.FIFTY),
            next_orders=[Behaviour(not_after=NotAfter.REFUSE, extra_extensions={"1.2.3": "0500"})],
            faults=[Fault.bad_nonce(), Fault.lost(Resource.FINALIZE)],
            profiles={"brief": 60},
        )
        assert Script.from_json(script.to_json()) == script

    def test_a_misspelt_switch_is_an_error(self) -> None:
        """A typo must not turn a hostile CA into an honest one."""
        assert Script.from_json({"standing": {"coalesce": True}}).standing.coalesce
        with pytest.raises(ValueError, match="colaesce"):
            Script.from_json({"standing": {"colaesce": True}})
