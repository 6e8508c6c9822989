"""TXT records through a provider's API: the library's powerdns provider against PowerDNS."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import dns.name
import pytest
import structlog.testing
from cryptography.hazmat.primitives.asymmetric import ec

from broker.clock import SystemClock
from broker.issuance.errors import Broken, Unreachable
from broker.upstreams.lookup import Lookup, NameServer
from broker.upstreams.placement import PlacedRecord, ZoneLocks
from broker.upstreams.provider import ProviderSettings, ProviderZone
from broker.upstreams.selfcheck import SelfCheck
from broker.upstreams.solvers import Dns01Solver
from tests.contract.upstreams.standing import leaf_of, names_of, request, standing
from tests.peers.pdns import PowerDns
from tests.peers.pebble import Pebble, PebbleOptions
from tests.peers.process import free_port

pytestmark = pytest.mark.peers

ZONE = "acme.example"
NAMES_ZONE = "corp.example"
NAME = f"_acme-challenge.{ZONE}"


@pytest.fixture(scope="module")
def pdns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PowerDns]:
    """A provider with a zone of names, and one for challenges alone."""
    with PowerDns(tmp_path_factory.mktemp("pdns"), zones=[ZONE, NAMES_ZONE]) as server:
        server.add_a(f"www.{NAMES_ZONE}")
        server.add_cname(f"_acme-challenge.www.{NAMES_ZONE}", f"www.{ZONE}")
        server.add_cname(f"_acme-challenge.astray.{NAMES_ZONE}", f"astray.{NAMES_ZONE}")
        yield server


def settings_of(pdns: PowerDns, **more: Any) -> ProviderSettings:
    """Return how the zone for challenges is reached."""
    members: dict[str, Any] = {
        "provider": "powerdns",
        "zone": ZONE,
        "options": {"pdns_server": pdns.api_url},
        "secrets": {"auth_token": pdns.api_key},
        "resolvers": (NameServer(pdns.host, pdns.port),),
    }
    return ProviderSettings(**members | more)


def zone_of(pdns: PowerDns, **more: Any) -> ProviderZone:
    """Return the zone for challenges."""
    return ProviderZone(settings_of(pdns, **more), ZoneLocks())


async def test_a_value_is_added_and_removed(pdns: PowerDns) -> None:
    """Both may be repeated, and nothing stays behind."""
    zone = zone_of(pdns)
    placed = await zone.publish(NAME, "value")
    assert placed == PlacedRecord(f"{ZONE}.", f"{NAME}.", "value")
    await zone.publish(NAME, "value")
    assert pdns.txt(NAME) == ["value"]
    await zone.remove(placed)
    await zone.remove(placed)
    assert pdns.txt(NAME) == []


async def test_values_that_come_at_once_all_stand(pdns: PowerDns) -> None:
    """The provider replaces whole record sets: without turns, one would overwrite the others."""
    locks = ZoneLocks()
    zones = [ProviderZone(settings_of(pdns), locks) for _ in range(2)]
    values = ["one", "two", "three", "four"]
    placed = await asyncio.gather(
        *(zones[place % 2].publish(NAME, value) for place, value in enumerate(values))
    )
    assert pdns.txt(NAME) == sorted(values)
    await asyncio.gather(*(zones[0].remove(record) for record in placed[:3]))
    assert pdns.txt(NAME) == ["four"]
    await zones[0].remove(placed[3])


async def test_aliases_are_followed_into_the_zone(pdns: PowerDns) -> None:
    """The secret of the provider need reach one zone that holds nothing else."""
    zone = zone_of(pdns)
    placed = await zone.publish(f"_acme-challenge.www.{NAMES_ZONE}", "value")
    assert pdns.txt(f"www.{ZONE}") == ["value"]
    await zone.remove(placed)
    with pytest.raises(Broken, match=r"lies outside the zone acme.example., make it an alias"):
        await zone.publish(f"_acme-challenge.astray.{NAMES_ZONE}", "value")


async def test_a_certificate_is_obtained(
    pdns: PowerDns, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Pebble reads what the library wrote; a name and its wildcard stand side by side."""
    server = NameServer(pdns.host, pdns.port)
    check = SelfCheck(SystemClock(), view=Lookup((server,)), servers=(server,))
    solver = Dns01Solver(zone_of(pdns), check)
    pebble = Pebble(
        tmp_path_factory.mktemp("pebble"),
        validation_http_port=free_port(),
        dns_server=pdns.address,
        options=PebbleOptions(),
    )
    names = [f"*.www.{NAMES_ZONE}", f"www.{NAMES_ZONE}"]
    key = ec.generate_private_key(ec.SECP256R1())
    async with (
        pebble,
        standing(pebble.directory_url, pebble.ca_bundle, solvers=[solver]) as we,
    ):
        await we.register()
        assert names_of(leaf_of(await we.obtain(request(*names), key))) == names
    assert pdns.txt(f"www.{ZONE}") == []


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        pytest.param({"secrets": {"auth_token": "wrong"}}, Broken, "status 401", id="secret"),
        pytest.param({"zone": "www.acme.example"}, Broken, "lies outside", id="zone"),
        pytest.param({"options": {}}, Broken, "PowerDNSProviderError", id="option"),
        pytest.param(
            {"options": {"pdns_server": "http://127.0.0.1:1"}},
            Unreachable,
            "ConnectionError",
            id="silent",
        ),
        pytest.param({"provider": "nonesuch"}, Broken, "provider 'nonesuch'", id="provider"),
        pytest.param({"timeout": timedelta(milliseconds=20)}, Unreachable, "was killed", id="slow"),
    ],
)
async def test_a_change_that_fails_is_told_without_the_librarys_words(
    pdns: PowerDns, changes: dict[str, Any], kind: type[Exception], words: str
) -> None:
    """What a client may come to see names the provider and the kind of fault, no more."""
    zone = ProviderZone(replace(settings_of(pdns), **changes), ZoneLocks())
    with structlog.testing.capture_logs() as logs, pytest.raises(kind) as caught:
        await zone.publish(NAME, "value")
    assert words in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert pdns.api_key not in f"{caught.value}{logs}"
    assert dns.name.from_text(NAME).to_text() in str(caught.value)
