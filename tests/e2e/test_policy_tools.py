"""A reviewer's tools beside a real broker: what they say of real orders is what then happens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.clock import SystemClock
from tests.deployments.penstock import AcmeCa, Penstock
from tests.deployments.requester import Requester
from tests.peers import process
from tests.unit.protocol.builders import Authority, pem

pytestmark = pytest.mark.e2e

TRUSTED = {
    "eab": ["farm"],
    "names": ["**.farm.example.test"],
    "profiles": ["server"],
    "because": "it is tried",
}

RULES: list[dict[str, Any]] = [
    {"name": "one", "because": "x", "names": ["one.farm.example.test"], "refuse": "no longer"},
    {"name": "two", "because": "x", "names": ["two.farm.example.test"], "cap": "7d"},
    {"name": "three", "because": "x", "names": ["three.farm.example.test"], "approval": {}},
    {
        "name": "four",
        "because": "x",
        "names": ["four.farm.example.test"],
        "refuse": "for newcomers alone",
        "renewals": "exempt",
    },
]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Penstock]:
    """A broker whose farm needs no challenges, and is denied one name."""
    policy = {
        "names": {"allow": ["**.example.test"], "deny": ["denied.farm.example.test"]},
        "trusted": [TRUSTED],
    }
    made = Penstock(tmp_path, validation_http_port=process.free_port(), policy=policy)
    with made:
        yield made


def changed(broker: Penstock) -> Path:
    """Return a copy of the policy directory with the rules in it, and nothing denied."""
    new = broker.directory / "new"
    shutil.copytree(broker.policy_file.parent, new)
    path = new / broker.policy_file.name
    document = json.loads(path.read_text("utf-8"))
    document["names"].pop("deny")
    path.write_text(json.dumps({**document, "rules": RULES}, indent=1), "utf-8")
    return new


async def test_diff_says_what_then_happens(broker: Penstock) -> None:
    """Who would be refused, shortened, asked for approval or allowed anew, and is."""
    minted = await broker.a_json("eab", "mint", "--id", "farm", "--reusable")
    async with Requester(broker.directory_url, broker.ca_bundle) as client:
        await client.bind(minted["key_id"], minted["mac_key"])
        for name in ("one", "two", "three", "four", "five"):
            placed = await client.request(f"{name}.farm.example.test")
            assert await placed.settled() == "valid", placed.order
        refused = await client.order("denied.farm.example.test")
        assert refused.status == 400

        new = changed(broker)
        found = await broker.a_json("policy", "diff", str(new))
        assert found["replayed"] == {"order": 5, "certificate": 5, "refusal": 1}
        told = {
            (one["effect"], one["names"][0].partition(".")[0]): (
                one["orders"],
                one["certificates"],
                one["refusals"],
            )
            for one in found["groups"]
        }
        assert told == {
            ("refused", "one"): (1, 1, 0),
            ("shortened", "two"): (1, 1, 0),
            ("needs-approval", "three"): (1, 1, 0),
            ("refused", "four"): (1, 0, 0),  # its renewal is spared
            ("allowed", "denied"): (0, 0, 1),
        }
        assert {one["requester"] for one in found["groups"]} == {"EAB key 'farm'"}
        assert broker.run("policy", "diff", str(new), "--strict", status=3).stdout

        shutil.copytree(new, broker.policy_file.parent, dirs_exist_ok=True)
        await broker.a_json("policy", "reload")
        await check_answers(broker, client)


async def check_answers(broker: Penstock, client: Requester) -> None:
    """Order everything again under the new policy, and compare ``explain`` with what comes."""
    for name, status in (("one", 400), ("two", 201), ("three", 403), ("four", 201),
                         ("five", 201), ("denied", 201)):  # fmt: skip
        answer = await client.order(f"{name}.farm.example.test")
        assert answer.status == status, (name, answer.body)
    explained = await broker.a_json("policy", "explain", "two.farm.example.test", "--eab", "farm")
    assert explained["cap"] == "7d"
    assert explained["cap_rule"].endswith("rule 'two'")
    [rule] = explained["rules"]
    assert (rule["name"], rule["enforced"]) == ("two", True)
    refused = await broker.a_json("policy", "explain", "one.farm.example.test", "--eab", "farm")
    assert not refused["allowed"]


ANNOUNCED = """apiVersion: penstock.dev/v1
kind: UpstreamFacts
descriptions:
  announced:
    as_of: 2026-11-22
    source: a test
    honours_not_after: true
    is_ct_logged: false
    changes: [{ from: %s, usages: [server-auth], note: as announced }]
"""


def test_rule_that_will_stop_working_is_told_before(tmp_path: Path) -> None:
    """By the check, by readiness, by the metric and by impact; and nobody is made unready."""
    day = SystemClock().now().date() + timedelta(days=20)
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(pem(Authority.root("A CA that is never asked")))
    upstream = AcmeCa(
        name="public",
        directory_url="https://127.0.0.1:1/directory",
        ca_bundle=bundle,
        description="announced",
    )
    profile = {
        "description": "clients",
        "usages": ["client-auth"],
        "upstreams": [{"upstream": "public"}],
    }
    broker = Penstock(
        tmp_path / "broker",
        validation_http_port=process.free_port(),
        upstreams=[upstream],
        profiles={"clients": profile},
        is_registering=False,
    )
    broker.write()
    broker.policy_file.with_name("upstreams.yaml").write_text(ANNOUNCED % day, "utf-8")
    with broker:
        told = f"{day}: profile 'clients' stops working with upstream 'public'"
        assert told in broker.run("check").stderr
        broker.run("check", "--strict", status=3)
        ready = process.get(f"http://127.0.0.1:{broker.health_port}/readyz").decode()
        assert f"[!] policy-dates {told}" in ready
        assert ready.endswith("ok\n")
        at = datetime.combine(day, time(), UTC).timestamp()
        name = "penstock_policy_foreseen_timestamp_seconds"
        labels = 'community="default",kind="stops",profile="clients",upstream="public"'
        [line] = [
            one for one in broker.metrics().splitlines() if one.startswith(f"{name}{{{labels}")
        ]
        assert float(line.rpartition(" ")[2]) == at
        found = broker.json("policy", "impact", "--on", str(day))
        assert [one["kind"] for one in found["foreseen"]] == ["stops"]
