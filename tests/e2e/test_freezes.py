"""Freezes of a key and a CA at a real broker: each stops alone, and goes on afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.deployments.node_agents import TrustingPenstock
from tests.deployments.operator import Operator
from tests.deployments.penstock import secret
from tests.deployments.requester import Placed, Requester
from tests.fakes.acme_client import make_csr

pytestmark = pytest.mark.e2e

MAC_KEY: Final = "bWFjLWtleS1vZi10aGUtdGVzdHMtMzItYnl0ZXMtbG9uZw"
KEYS: Final = ("farm", "barn")


def profile(*upstreams: str) -> dict[str, Any]:
    """Return a profile that these CAs issue, the first preferred."""
    return {
        "description": "TLS servers of the tests",
        "cap": "47d",
        "usages": ["server-auth"],
        "upstreams": [{"upstream": one} for one in upstreams],
    }


PROFILES: Final = {
    "one": profile("local"),
    "two": profile("local", "next"),
}


class Place(TrustingPenstock):
    """A broker with two CAs of its own, and two keys."""

    def __init__(self, tmp: Path) -> None:
        tmp.mkdir()
        common = {"names": ["**.example.test"], "because": "hosts of the tests"}
        trusted = [
            {"eab": list(KEYS), "profiles": ["one", "two"], **common},
        ]
        bindings = [{"key_id": key, "mac_key": secret(tmp, key, MAC_KEY)} for key in KEYS]
        super().__init__(
            tmp,
            profiles=PROFILES,
            policy={"trusted": trusted},
            community={"ask": "pki@corp.example"},
            limits={"finalize_wait": "200ms"},
            more={"external_account_bindings": bindings},
        )

    def config_document(self) -> dict[str, Any]:
        """Return the configuration, with the second CA."""
        document = super().config_document()
        document["upstreams"]["next"] = self._built_in.document(self.plain_port)
        return document

    def prepare(self) -> None:
        """Make the second CA as well."""
        super().prepare()
        self.run("ca", "init", "--upstream", "next")

    async def change(self, command: str, **what: str) -> None:
        """Freeze or unfreeze one thing."""
        await Operator(self.state / "operator.sock").ask(command, reason="a test", **what)

    @asynccontextmanager
    async def requester(self, key: str) -> AsyncIterator[Requester]:
        """Return a new account bound to *key*, which may order without proof."""
        async with Requester(self.directory_url, self.ca_bundle) as made:
            assert (await made.bind(key, MAC_KEY)).status == 201
            yield made

    def upstream_of(self, placed: Placed) -> str:
        """Return where an order stands, as the database has it."""
        query = "SELECT upstream FROM orders WHERE order_id = ?"
        ((upstream,),) = self.rows(query, placed.order_id)
        return str(upstream)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Run the broker once: each test freezes something else, and lets it go on."""
    with Place(tmp_path_factory.mktemp("freezes") / "broker") as made:
        yield made


async def ready(requester: Requester, name: str, profile_name: str) -> Placed:
    """Return an order that is ready, and not finalized."""
    ordered = await requester.order(name, profile=profile_name)
    assert ordered.status == 201, ordered.body
    placed = Placed(requester, ordered.headers["Location"], make_csr([name]))
    placed.order = ordered.json()
    assert placed.status == "ready"
    return placed


async def finalized(placed: Placed) -> Placed:
    """Finalize an order."""
    answer = await placed.requester.finalize(placed.order, placed.csr)
    assert answer.status == 200, answer.body
    placed.order = answer.json()
    return placed


async def obtain(requester: Requester, name: str, profile_name: str) -> Placed:
    """Return an order that has its certificate."""
    placed = await requester.request(name, profile=profile_name)
    assert await placed.settled() == "valid", placed.order
    return placed


async def test_accounts_of_a_frozen_key_are_stopped_and_no_others(place: Place) -> None:
    """Neither a new order nor one begun before gets on; both do after it was lifted."""
    said = "frozen for the external account binding key of this account, ask pki@corp.example"
    async with place.requester("farm") as frozen, place.requester("barn") as other:
        held = await obtain(frozen, "before.example.test", "one")
        begun = await ready(frozen, "begun.example.test", "one")
        await place.change("freeze", eab="farm")
        for answer in (
            await frozen.order("new.example.test", profile="one"),
            await frozen.finalize(begun.order, begun.csr),
        ):
            assert (answer.status, answer.problem) == (403, "unauthorized")
            assert said in answer.json()["detail"]
        await obtain(other, "other.example.test", "one")
        assert await held.chain(), "what there is can be read"
        await place.change("unfreeze", eab="farm")
        assert await (await finalized(begun)).settled() == "valid"
        await obtain(frozen, "new.example.test", "one")


async def test_orders_of_a_frozen_ca_go_to_the_next_or_wait(place: Place) -> None:
    """New ones and those under way; where policy has no other they are refused, or wait."""
    async with place.requester("barn") as requester:
        moving = await ready(requester, "moving.example.test", "two")
        waiting = await ready(requester, "waiting.example.test", "one")
        assert [place.upstream_of(one) for one in (moving, waiting)] == ["local", "local"]
        await place.change("freeze", upstream="local")
        try:
            new = await obtain(requester, "elsewhere.example.test", "two")
            assert place.upstream_of(new) == "next"
            assert await (await finalized(moving)).settled() == "valid"
            assert place.upstream_of(moving) == "next"
            refused = await requester.order("nowhere.example.test", profile="one")
            assert refused.problem == "serverInternal"
            detail = refused.json()["detail"]
            assert "upstream 'local' is frozen, ask pki@corp.example" in detail
            stopped = await requester.finalize(waiting.order, waiting.csr)
            assert "upstream 'local' is frozen" in stopped.json()["detail"]
            assert (await waiting.read())["status"] == "ready"
        finally:
            await place.change("unfreeze", upstream="local")
        assert await (await finalized(waiting)).settled() == "valid"
        assert place.upstream_of(waiting) == "local"
        again = await obtain(requester, "nowhere.example.test", "two")
        assert place.upstream_of(again) == "local"
