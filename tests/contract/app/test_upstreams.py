"""Registering at a CA on loopback, as the command does it in a broker."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broker.app.assembly import assembled
from broker.config import Config
from broker.issuance.errors import Refused
from broker.issuance.events import Actor
from tests.fakes.hostile_ca import HostileCa
from tests.unit.config.conftest import parsed

ANNA = Actor("operator:anna")
POLICY = {
    "apiVersion": "penstock.dev/v1",
    "kind": "Policy",
    "cap": "90d",
    "names": {"allow": ["**.corp.example"]},
    "challenges": ["http-01"],
    "keys": {"allow": ["ec-p256"]},
    "profiles": {
        "server": {
            "description": "servers",
            "usages": ["server-auth"],
            "upstreams": [{"upstream": "ca"}],
        }
    },
    "default_profile": "server",
}
MAC_KEY = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE"


@pytest.fixture
async def ca(tmp_path: Path) -> AsyncIterator[HostileCa]:
    """A CA that is honest here."""
    directory = tmp_path / "ca"
    directory.mkdir()
    async with HostileCa(directory) as server:
        yield server


def config_for(ca: HostileCa, directory: Path, *communities: str, **changes: Any) -> Config:
    """Return a configuration whose upstream ``ca`` is *ca*, for one community or more."""
    names = communities or ("default",)
    policies = directory / "policies"
    policies.mkdir(exist_ok=True)
    for name in names:
        policy = {**POLICY, "community": name}
        (policies / f"{name}.yaml").write_text(json.dumps(policy))
    passphrase = directory / "passphrase"
    passphrase.write_text("a passphrase for this test")
    acme = {
        "kind": "acme",
        "directory": ca.directory_url,
        "ca_bundle": str(ca.ca_bundle),
        "communities": list(names),
        **changes,
    }
    return parsed(
        {
            "state": str(directory / "state"),
            "keys.passphrase": f"file:{passphrase}",
            "listen.acme": {"certificate": "/a", "key": "/b"},
            "policies": [str(policies)],
            "communities": {name: {} for name in names},
            "upstreams": {"ca": acme},
        }
    )


async def test_registering_makes_the_upstream_ready_at_once(ca: HostileCa, tmp_path: Path) -> None:
    """In the broker that runs, and in the next one; asked again, it is the same account."""
    config = config_for(ca, tmp_path)
    async with assembled(config) as broker:
        upstreams, desk = broker.outside.upstreams, broker.operations
        assert [one.name for one in upstreams.facts("default")] == []
        (before,) = await desk.upstream_check(upstream="ca")
        (made,) = await desk.upstream_register(actor=ANNA, upstream="ca")
        assert [one.name for one in upstreams.facts("default")] == ["ca"]
        (after,) = await desk.upstream_check(upstream="ca")
    assert before["faults"] == ["no account is registered"]
    assert after["faults"] == []
    async with assembled(config) as broker:
        assert [one.name for one in broker.outside.upstreams.facts("default")] == ["ca"]
        (again,) = await broker.operations.upstream_register(actor=ANNA, upstream="ca")
    assert again["url"] == made["url"]
    assert again["thumbprint"] == made["thumbprint"]


async def test_each_community_has_an_account_and_a_key_of_its_own(
    ca: HostileCa, tmp_path: Path
) -> None:
    """What one of them does at the CA is not laid at the other's door."""
    config = config_for(ca, tmp_path, "default", "lab")
    async with assembled(config) as broker:
        made = await broker.operations.upstream_register(actor=ANNA, upstream="ca")
    assert [one["community"] for one in made] == ["default", "lab"]
    assert len({one["url"] for one in made}) == 2
    assert len({one["thumbprint"] for one in made}) == 2


async def test_ca_that_knows_its_subscribers_is_given_the_binding(
    ca: HostileCa, tmp_path: Path
) -> None:
    """Without it, it refuses, and the upstream stays as unready as it was."""
    ca.script = replace(ca.script, external_accounts={"subscriber": MAC_KEY})
    async with assembled(config_for(ca, tmp_path)) as broker:
        with pytest.raises(Refused, match="wants an external account binding"):
            await broker.operations.upstream_register(actor=ANNA, upstream="ca")
        assert broker.outside.upstreams.facts("default") == []
    secret = tmp_path / "mac.key"
    secret.write_text(MAC_KEY)
    binding = {"key_id": "subscriber", "mac_key": f"file:{secret}"}
    config = config_for(ca, tmp_path, external_account_binding=binding)
    async with assembled(config) as broker:
        await broker.operations.upstream_register(actor=ANNA, upstream="ca")
        assert [one.name for one in broker.outside.upstreams.facts("default")] == ["ca"]
