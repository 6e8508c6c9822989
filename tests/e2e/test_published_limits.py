"""What a CA publishes about how much it issues, as a facts file says, held by a real broker."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.deployments.requester import Requester
from tests.e2e.test_account_lost import cert_id_of
from tests.fakes.hostile_ca.envelope import b64
from tests.peers.pebble import Pebble, PebbleOptions

pytestmark = [pytest.mark.e2e, pytest.mark.peers]

MAC_KEY: Final = b64(b"the MAC key of the trusted farm.")

DAY: Final = 24 * 3600

FACTS: Final = """\
apiVersion: penstock.dev/v1
kind: UpstreamFacts
descriptions:
  frugal:
    as_of: 2026-11-22
    source: a test
    honours_not_after: true
    is_ct_logged: false
    limits:
      - { per: names, rate: 1/7d, exempt: [replacements], source: the same test }
"""


def new_broker(home: Path, pebble: Pebble) -> Penstock:
    """Return a broker before a CA whose limits stand in its policy directory alone."""
    home.mkdir()
    anchors = home / "pebble-root.pem"
    anchors.write_bytes(pebble.root_pem())
    trusted = {
        "eab": ["farm"],
        "names": ["**.farm.example.test"],
        "profiles": ["server"],
        "because": "the farm knows its hosts",
    }
    key = {"key_id": "farm", "mac_key": secret(home, "farm.key", MAC_KEY)}
    ca = AcmeCa(
        name="public",
        directory_url=pebble.directory_url,
        ca_bundle=pebble.ca_bundle,
        description="frugal",
        anchors=anchors,
        options={"poll_interval": "100ms"},
    )
    broker = Penstock(
        home,
        validation_http_port=9,
        upstreams=[ca],
        policy={"trusted": [trusted]},
        more={"external_account_bindings": [key]},
    )
    broker.write()
    broker.policy_file.with_name("upstreams.yaml").write_text(FACTS, "utf-8")
    return broker


async def check_limited(client: Requester, name: str) -> None:
    """See that an order has to wait, for how long, and why."""
    answer = await client.order(name)
    assert (answer.status, answer.problem) == (429, "rateLimited"), answer.body
    assert 3 * DAY < int(answer.headers["Retry-After"]) <= 7 * DAY
    told = answer.json()["detail"]
    assert "orders for upstream 'public' for exactly these names are limited to 1/7d" in told


async def test_published_limit_is_held_and_does_not_count_what_the_ca_does_not(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The second order for the same names waits; one that says what it replaces does not."""
    home = tmp_path_factory.mktemp("published")
    options = PebbleOptions(always_valid=True)
    name = "a.farm.example.test"
    with (
        Pebble(
            home / "pebble", validation_http_port=9, dns_server="127.0.0.1:9", options=options
        ) as pebble,
        new_broker(home / "broker", pebble) as broker,
    ):
        async with Requester(broker.directory_url, broker.ca_bundle) as client:
            assert (await client.bind("farm", MAC_KEY)).status == 201
            first = await client.request(name)
            assert await first.settled() == "valid", first.order
            await check_limited(client, name)
            other = await client.order("b.farm.example.test")
            assert other.status == 201, other.body
            replaced = cert_id_of((await first.chain())[0])
            renewed = await client.request(name, replaces=replaced)
            assert await renewed.settled() == "valid", renewed.order
            await check_limited(client, name)
        assert len(pebble.issued()) == 2
        shown: Any = await broker.a_json("quota", "show", "--upstream", "public")
    kept = {
        (row["of"], row["per"], row["subject"], row["limit"], row["left"])
        for row in shown["buckets"]
    }
    assert ("upstream public", "names", name, "1/7d", 0) in kept
