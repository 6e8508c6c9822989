"""dns-01 towards the CA through an alias: Penstock writes into one dedicated zone and nowhere else.

The names lie in a zone that the given-out TSIG key may not touch; `_acme-challenge` of each is an
alias into a zone that holds nothing else.  What was written is counted at the name server.
"""

from __future__ import annotations

import asyncio
import base64
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from cryptography import x509

from tests.deployments.cas import updates_of
from tests.deployments.operator import Operator
from tests.deployments.penstock import AcmeCa, Penstock, secret
from tests.deployments.requester import Placed, Requester
from tests.peers import process
from tests.peers.bind import Bind
from tests.peers.certbot import Certbot
from tests.peers.client import DnsUpdates
from tests.peers.lego import Lego
from tests.peers.pebble import Pebble, PebbleOptions

pytestmark = pytest.mark.peers

NAMES_ZONE: Final = "company.example.test"
"""Where the names lie: the key may change nothing here."""

CHALLENGE_ZONE: Final = "challenges.test"
"""The dedicated zone, the only one that the key may change."""

TRUSTED: Final = "trusted-tests"
"""A wildcard is proved to nobody by http-01, so its requester is one whom policy trusts."""

WATCHED_SECONDS: Final = 3.0
"""How long an order is watched that cannot go on: two or three tries."""


LOOK_SECONDS: Final = 0.2
"""Pause between two looks at what an order waits for."""

TOLD_SECONDS: Final = 60.0
"""Longest wait for the reason of an order that cannot go on, on a machine that is busy."""


class Delegated:
    """The deployment: a name server with two zones, Pebble, and a broker with two upstreams."""

    def __init__(self, tmp: Path, stack: ExitStack) -> None:
        self._tmp = tmp
        self.named = stack.enter_context(
            Bind(
                tmp / "named",
                zones=[NAMES_ZONE, CHALLENGE_ZONE],
                updatable=[CHALLENGE_ZONE],
            )
        )
        self.client_port = process.free_port()
        self.pebble = stack.enter_context(
            Pebble(
                tmp / "pebble",
                # Nobody answers there: what becomes valid at this Pebble was proved by DNS.
                validation_http_port=process.free_port(),
                dns_server=self.named.address,
                options=PebbleOptions(nonce_reject_percent=15),
            )
        )
        good = updates_of(self.named)
        self.wrong_key = replace(good, tsig_secret_b64=fresh_secret())
        upstreams = [
            self._ca(tmp, "right", good),
            self._ca(tmp, "wrong", self.wrong_key),
            self._ca(tmp, "unknown", replace(good, tsig_name="nobodys-key.")),
        ]
        self.mac = fresh_secret().rstrip("=").replace("+", "-").replace("/", "_")
        trusted = {
            "eab": [TRUSTED],
            "names": [f"**.{NAMES_ZONE}"],
            "profiles": [one.name for one in upstreams],
            "wildcards": True,
            "because": "http-01 proves no wildcard",
        }
        declared = {"key_id": TRUSTED, "mac_key": secret(tmp, "eab.mac", self.mac)}
        self.penstock = Penstock(
            tmp / "penstock",
            validation_http_port=self.client_port,
            resolver=self.named.address,
            upstreams=upstreams,
            profiles={one.name: profile(one.name) for one in upstreams},
            policy={"trusted": [trusted]},
            limits={"finalize_wait": "2s"},
            more={"external_account_bindings": [declared]},
        )
        stack.enter_context(self.penstock)

    def _ca(self, tmp: Path, name: str, updates: DnsUpdates) -> AcmeCa:
        """Return Pebble as an upstream that is answered by dns-01 alone."""
        update: dict[str, Any] = {
            "server": f"{updates.host}:{updates.port}",
            "zone": CHALLENGE_ZONE,
            "resolvers": [self.named.address],
            "tsig": {
                "name": updates.tsig_name,
                "secret": secret(tmp, f"{name}.tsig", updates.tsig_secret_b64),
            },
        }
        check = {"servers": [self.named.address], "timeout": "5s"}
        solver = {"challenge": "dns-01", "rfc2136": update, "self_check": check}
        return AcmeCa(
            name=name,
            directory_url=self.pebble.directory_url,
            ca_bundle=self.pebble.ca_bundle,
            description="pebble",
            options={"solvers": [solver]},
        )

    @property
    def operator(self) -> Operator:
        """The operator socket of the broker."""
        return Operator(self.penstock.state / "operator.sock")

    def delegate(self) -> str:
        """Return a new name whose challenges are delegated, as an operator sets it up once."""
        name = f"h{secrets.token_hex(4)}.{NAMES_ZONE}"
        self.named.add_a(name)
        self.named.add_cname(f"_acme-challenge.{name}", self.target_of(name))
        return name

    def target_of(self, name: str) -> str:
        """Return where `_acme-challenge` of *name* leads."""
        return f"{name.partition('.')[0]}.{CHALLENGE_ZONE}"

    def correct_key(self, name: str) -> None:
        """Write the right secret where upstream *name* has the wrong one, and start anew."""
        self.penstock.stop()
        secret(self._tmp, f"{name}.tsig", self.named.tsig_secret_b64)
        self.penstock.start()

    def changes_of(self, name: str) -> list[str]:
        """Return `adding` and `deleting` as they happened where *name*'s alias leads."""
        place = rf"(adding|deleting) an RR at '?{re.escape(self.target_of(name))}'? TXT"
        found = (re.search(place, line) for line in self.named.updates())
        return [match[1] for match in found if match]

    def zones_written(self) -> set[str]:
        """Return the zones that the given-out key has changed, or tried to."""
        lines = self.named.log_text().splitlines()
        signer = f"/key {self.named.tsig_name.rstrip('.')}:"
        found = (re.search(r"(?:updating|update) zone '([^/']+)/IN'", line) for line in lines)
        return {
            match[1] for line, match in zip(lines, found, strict=True) if match and signer in line
        }

    async def shown(self, placed: Placed) -> dict[str, Any]:
        """Return what ``order show`` tells of an order."""
        shown: dict[str, Any] = await self.operator.ask("order_show", order_id=placed.order_id)
        return shown

    async def waits_for(self, placed: Placed, why: str) -> dict[str, Any]:
        """Watch an order that cannot go on; return what it waits for once *why* is told."""
        assert await placed.settled(WATCHED_SECONDS) == "processing"
        async with asyncio.timeout(TOLD_SECONDS):
            while True:
                waiting: dict[str, Any] = (await self.shown(placed))["waiting"] or {}
                if why in (waiting.get("for") or ""):
                    return waiting
                assert await placed.settled(LOOK_SECONDS) == "processing"


def fresh_secret() -> str:
    """Return 32 random octets in base64."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


def profile(upstream: str) -> dict[str, Any]:
    """Return a profile that is issued by one upstream."""
    return {
        "description": f"from {upstream}",
        "cap": "47d",
        "usages": ["server-auth"],
        "upstreams": [{"upstream": upstream}],
    }


@pytest.fixture(scope="module")
def delegated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Delegated]:
    """A name server with two zones, Pebble, and a broker."""
    with ExitStack() as stack:
        yield Delegated(tmp_path_factory.mktemp("delegated"), stack)


@pytest.fixture
async def requester(delegated: Delegated) -> AsyncIterator[Requester]:
    """A client that policy trusts with every name of the zone."""
    made = Requester(delegated.penstock.directory_url, delegated.penstock.ca_bundle)
    async with made as requester:
        assert (await requester.bind(TRUSTED, delegated.mac)).status == 201
        yield requester


@pytest.mark.parametrize("program", [Certbot, Lego])
async def test_client_by_http_and_ca_by_delegated_dns(
    delegated: Delegated, tmp_path: Path, program: type[Certbot] | type[Lego]
) -> None:
    """A client proves control by http-01 and never hears of DNS, which is all that the CA sees."""
    name = delegated.delegate()
    penstock = delegated.penstock
    client = program(tmp_path, penstock.directory_url, penstock.ca_bundle)
    if isinstance(client, Certbot):
        options = ["--preferred-profile", "right"]
        obtained = await client.certonly_standalone(
            [name], http_port=delegated.client_port, options=options
        )
    else:
        options = ["--profile", "right"]
        obtained = await client.run_http([name], http_port=delegated.client_port, options=options)
    assert obtained.names() == [name]
    assert delegated.changes_of(name) == ["adding", "deleting"]
    assert delegated.named.txt(delegated.target_of(name)) == []
    assert delegated.zones_written() == {CHALLENGE_ZONE}
    serials = [int(issued.serial_hex, 16) for issued in delegated.pebble.issued()]
    assert obtained.leaf().serial_number in serials


async def test_name_and_its_wildcard_are_answered_at_once(
    delegated: Delegated, requester: Requester
) -> None:
    """Both values stand at the one place at the same time, and both are gone afterwards."""
    name = delegated.delegate()
    placed = await requester.request(name, f"*.{name}", profile="right")
    assert await placed.settled() == "valid", await delegated.shown(placed)
    leaf = (await placed.chain())[0]
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert sorted(san.get_values_for_type(x509.DNSName)) == sorted([name, f"*.{name}"])
    changes = delegated.changes_of(name)
    assert changes == ["adding", "adding", "deleting", "deleting"]
    assert delegated.named.txt(delegated.target_of(name)) == []
    assert delegated.zones_written() == {CHALLENGE_ZONE}


async def test_name_without_an_alias_waits_until_it_has_one(
    delegated: Delegated, requester: Requester
) -> None:
    """Where `_acme-challenge` leads nowhere nothing is written; the operator reads what to do."""
    name = f"h{secrets.token_hex(4)}.{NAMES_ZONE}"
    placed = await requester.request(name, profile="right")
    why = f"lies outside the zone {CHALLENGE_ZONE}., make it an alias"
    await delegated.waits_for(placed, why)
    assert delegated.changes_of(name) == []

    delegated.named.add_cname(f"_acme-challenge.{name}", delegated.target_of(name))
    assert await placed.settled() == "valid", await delegated.shown(placed)
    assert delegated.changes_of(name) == ["adding", "deleting"]


async def test_aliases_in_a_circle_are_told(delegated: Delegated, requester: Requester) -> None:
    """A circle of aliases is walked once, and told."""
    name = f"h{secrets.token_hex(4)}.{NAMES_ZONE}"
    delegated.named.add_cname(f"_acme-challenge.{name}", f"round.{name}")
    delegated.named.add_cname(f"round.{name}", f"_acme-challenge.{name}")
    placed = await requester.request(name, profile="right")
    await delegated.waits_for(placed, "circle")

    delegated.named.delete(f"_acme-challenge.{name}", "CNAME")
    delegated.named.add_cname(f"_acme-challenge.{name}", delegated.target_of(name))
    assert await placed.settled() == "valid", await delegated.shown(placed)


async def test_order_waits_for_the_right_key_and_then_completes(
    delegated: Delegated, requester: Requester
) -> None:
    """With a wrong TSIG key nothing is refused to the client; set right, the order goes on."""
    name = delegated.delegate()
    placed = await requester.request(name, profile="wrong")
    why = "does not know TSIG key 'penstock-test.', or has another secret"
    waiting = await delegated.waits_for(placed, why)
    assert 1 <= waiting["attempts"] <= 6
    assert "error" not in placed.order
    assert delegated.changes_of(name) == []
    told = requester.told()
    assert "TSIG" not in told
    assert delegated.wrong_key.tsig_secret_b64 not in delegated.penstock.log_text()

    delegated.correct_key("wrong")
    assert await placed.settled() == "valid", await delegated.shown(placed)
    assert delegated.changes_of(name) == ["adding", "deleting"]
    assert delegated.pebble.log_text().count(f'Value:"{name}"') == 1


async def test_key_that_the_server_does_not_know_is_told(
    delegated: Delegated, requester: Requester
) -> None:
    """The name of an unknown key is in the reason, and other upstreams go on as before."""
    placed = await requester.request(delegated.delegate(), profile="unknown")
    await delegated.waits_for(placed, "does not know TSIG key 'nobodys-key.'")
    other = await requester.request(delegated.delegate(), profile="right")
    assert await other.settled() == "valid"
